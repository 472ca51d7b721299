"""A file home whose workers are on machines of a test cloud."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from providers.aws_values import UID_TAG
from tests.cloud.machines import Cloud
from tests.faults import crashing
from tests.faults.support import FaultLab
from tests.on_aws import quick

BEATS = {"heartbeatTimeoutSeconds": 10}


class AwsLab(FaultLab):
    """A lab beside a cloud.

    Args:
        path: of the home, the repositories and logs.
        cloud: where the workers run.
    """

    def __init__(self, path: Path, cloud: Cloud) -> None:
        super().__init__(path)
        self.cloud = cloud
        volume = {"sizeGib": 8, "deleteOnTermination": True}
        self.block = cloud.parameters(workersPerInstance=2, volume=volume)
        self.provider = {"aws": self.block}

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start the controller and wait until it is up."""
        self.start_special(quick, **{**self.cloud.environment(), **variables})
        return self.controller

    def start_crashing(self, at: int | str) -> Path:
        """Start a controller that kills itself at a step; the log of its steps."""
        steps = self.path / f"steps-{at}"
        self.start(**{crashing.AT: str(at), crashing.LOG: str(steps)})
        return steps

    def swarm_of(self, name: str = "builders", replicas: int = 2, **spec: Any) -> dict[str, Any]:
        """A manifest; ``aws`` holds further parameters."""
        aws = {**self.block, **spec.pop("aws", {})}
        return {
            "apiVersion": "codeswarm.dev/v1alpha1",
            "kind": "Swarm",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "agent": {"runtime": "mock"},
                "provider": {"aws": aws},
                "termination": {"gracePeriodSeconds": 5},
                **BEATS,
                **spec,
            },
        }

    def swarm_status(self, swarm: str = "builders") -> list[dict[str, Any]]:
        """Its table of workers."""
        return list(self.swarm(swarm).get("workers") or ())

    def processes(self) -> list[psutil.Process]:
        """Workers on any machine of this cloud, what watches over them, and what descends from
        them."""
        spaces = {_space(machine["pid"]) for machine in self.cloud.machines().values()} - {""}
        found = []
        for process in psutil.process_iter():
            try:
                if _space(process.pid) in spaces and process.environ().get("CODESWARM_JOB_ID"):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def workers(self) -> dict[str, Any]:
        """Running worker processes by job."""
        found: dict[str, Any] = {}
        for process in self.processes():
            try:
                job, words = process.environ()["CODESWARM_JOB_ID"], process.cmdline()
            except (psutil.Error, OSError, KeyError):
                continue
            if "-I" in words and words[-1].endswith(f"/{job}"):
                found.setdefault(job, []).append(process)
        return found

    def outlast(self, seconds: float) -> None:
        """Let time pass in which something must not happen."""
        time.sleep(seconds)

    def coordinator(self, swarm: str = "builders") -> str:
        """The instance that has a swarm's volume; empty: none."""
        uid = self.uid(swarm)
        for told in self.cloud.volumes().values():
            if told["tags"].get(UID_TAG) == uid and told["attached_to"]:
                return str(told["attached_to"])
        return ""

    def machine_of(self, job: str) -> str:
        """The instance that a worker runs on."""
        (row,) = [row for row in self.swarm_status() if row["job"] == job]
        return str(row["handle"])

    def uid(self, swarm: str = "builders") -> str:
        """Of a swarm."""
        found = self.find("Swarm", swarm)
        assert found is not None
        return str(found["metadata"]["uid"])

    def running(self, swarm: str = "builders") -> list[str]:
        """Instances of a swarm that are about to run, or do."""
        uid = self.uid(swarm)
        return sorted(
            id
            for id, told in self.cloud.instances().items()
            if told["tags"].get(UID_TAG) == uid and told["state"] in ("pending", "running")
        )

    def ready(self, count: int, swarm: str = "builders", deadline: float = 60.0) -> None:
        """Wait until so many workers are ready, and no others are there."""
        self.converge(
            lambda: self.swarm(swarm).get("ready") == f"{count}/{count}",
            f"{count} workers",
            deadline,
        )

    def gone(self, uid: str, swarm: str = "builders", deadline: float = 60.0) -> None:
        """Wait until a swarm is gone, and see that nothing of it is left."""
        self.converge(lambda: self.is_gone("Swarm", swarm), "the swarm to go", deadline)
        assert self.cloud.leftovers(uid) == []


def _space(pid: int) -> str:
    """The PID namespace of a process; empty, if it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
