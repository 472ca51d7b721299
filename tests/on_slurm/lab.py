"""A file home whose workers are jobs of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clusters import Cluster
from tests.faults.support import FaultLab


class SlurmLab(FaultLab):
    """A lab beside a cluster; its own folder is not to be reached from there.

    Args:
        path: of the home, the repositories and logs.
        cluster: where the workers run.
    """

    def __init__(self, path: Path, cluster: Cluster) -> None:
        super().__init__(path)
        self.cluster = cluster
        self.provider = {"slurm": cluster.parameters()}
        self.workspaces = cluster.shared / "codeswarm"

    def swarm_of(self, name: str = "builders", replicas: int = 2, **spec: Any) -> dict[str, Any]:
        """A manifest; ``slurm`` holds further parameters."""
        return self.cluster.swarm(name, replicas, **spec)

    def slurm_id(self, swarm: str, index: int) -> str:
        """The id of the job that a worker is."""
        (row,) = [w for w in self.swarm_status(swarm) if w["index"] == index]
        (id,) = self.cluster.slurm.ids(row["job"], "RUNNING", "PENDING", "SUSPENDED")
        return id

    def node_of(self, id: str) -> str:
        """The node that a job runs on."""
        return self.cluster.slurm.call("squeue", "-h", "-j", id, "-o", "%N").stdout.strip()

    def swarm_status(self, swarm: str) -> list[dict[str, Any]]:
        """Its table of workers."""
        return list(self.swarm(swarm).get("workers") or ())

    def live_jobs(self) -> list[tuple[str, str, str]]:
        """Jobs that wait or run: id, name, state."""
        done = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        return [job for job in self.cluster.slurm.jobs() if job[2] not in done]

    def outlast(self, seconds: float) -> None:
        """Let time pass in which something must not happen."""
        time.sleep(seconds)

    def every(self, seconds: float, look: Callable[[], bool], deadline: float) -> None:
        """Do something again and again until it says that this is enough."""
        end = time.monotonic() + deadline
        while not look():
            assert time.monotonic() < end, self.picture()
            time.sleep(seconds)

    def close(self) -> None:
        """End the controller, then what it left on the cluster."""
        if self._controller is not None and self._controller.poll() is None:
            self._controller.kill()
            self._controller.wait()
        self.cluster.slurm.call("scancel", "--user=root", check=False)
        super().close()
