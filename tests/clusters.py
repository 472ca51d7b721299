"""A login host and its Slurm cluster as one thing, and manifests for swarms that run there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import slurm
from tests.lab import swarm
from tests.sshd import Sshd


@dataclass(slots=True)
class Cluster:
    """A real sshd in front of a real Slurm."""

    slurm: slurm.Slurm
    login: Sshd
    shared: Path
    """Its shared file system: what ``workspaceRoot`` names lies in there."""

    def parameters(self, **more: Any) -> dict[str, Any]:
        """A provider block."""
        usual = {
            "workspaceRoot": str(self.shared / "codeswarm"),
            "retry": {"attempts": 2, "delaySeconds": 0.2},
        }
        return {**self.login.parameters(), **usual, **more}

    def swarm(self, name: str = "builders", replicas: int = 2, **spec: Any) -> dict[str, Any]:
        """A swarm of scripted workers there; ``slurm`` holds further parameters."""
        parameters = self.parameters(**spec.pop("slurm", {}))
        return swarm(name, replicas, provider={"slurm": parameters}, **spec)

    def left(self) -> list[str]:
        """Job folders and stores on the shared file system."""
        root = self.shared / "codeswarm"
        found = [*root.glob("*/*/*/worker.json"), *root.glob("stores/*.git")]
        return sorted(str(path.relative_to(root)) for path in found)

    def clear(self) -> None:
        """Nothing runs and nothing lies there any more; for tests that share a cluster."""
        self.login.start()
        self.slurm.clear()
        shutil.rmtree(self.shared / "codeswarm", ignore_errors=True)


@contextmanager
def running(
    nodes: int = 4, *, cpus: int = 8, extra: str = "", **overrides: str
) -> Iterator[Cluster]:
    """A cluster of our own, gone at the end."""
    shared = Path(tempfile.mkdtemp(prefix="shared-"))
    try:
        with (
            slurm.running(nodes, cpus=cpus, extra=extra, **overrides) as batch,
            Sshd(shared / "login", environment=batch.environment) as login,
        ):
            yield Cluster(batch, login, shared)
    finally:
        shutil.rmtree(shared, ignore_errors=True)
