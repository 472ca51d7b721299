"""A real cluster behind a real sshd, as the conformance suite and whole runs need it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from providers.base import LaunchRequest, SwarmHandle
from providers.slurm import SlurmProvider
from providers.slurm_remote import RemoteLogins
from providers.ssh_target import Means
from tests.providers.harness import die_in_another_process, processes_below
from tests.slurm import Slurm, wait
from tests.sshd import Sshd


def provider() -> SlurmProvider:
    """A provider that looks at queues oftener than users need."""
    means = Means(config=None, agent=None, files=True)
    return SlurmProvider(RemoteLogins(lambda: means), interval=0.5, least=0.1, beat_seconds=2)


@dataclass(slots=True)
class SlurmHarness:
    """One cluster, its login host and a folder that all see."""

    slurm: Slurm
    sshd: Sshd
    root: Path
    more: dict[str, Any] = field(default_factory=dict)

    def provider(self) -> SlurmProvider:
        """A new provider object, as after a restart."""
        return provider()

    def parameters(self) -> dict[str, Any]:
        """The provider block."""
        retry = {"attempts": 2, "delaySeconds": 0.1}
        return self.sshd.parameters(workspaceRoot=str(self.root), retry=retry, **self.more)

    def processes(self, job: str | None = None) -> set[int]:
        """Living processes whose environment names a folder below our root (and the job)."""
        return processes_below(self.root, job)

    def kill_worker(self, job: str) -> None:
        """SIGKILL to the process that the folder names."""
        wait(lambda: bool(list(self.root.glob(f"*/*/{job}/worker.pid"))), f"{job} to begin")
        (pid_file,) = self.root.glob(f"*/*/{job}/worker.pid")
        os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)

    def disconnect(self) -> None:
        """Kill the sessions of the login host."""
        self.sshd.cut()

    def die_while_launching(self, request: LaunchRequest, point: str) -> None:
        """In a process of its own."""
        die_in_another_process("tests.slurm_provider.die_while_launching", request, point)

    def traces(self, swarm: SwarmHandle) -> list[str]:
        """Files with the swarm's uid in their path, and its jobs that are not at their end."""
        files = [str(path) for path in self.root.rglob("*") if swarm.uid[:8] in str(path)]
        out = self.slurm.call("squeue", "-h", "-o", "%k").stdout.split()
        return files + [comment for comment in out if swarm.uid in comment]

    def end(self) -> None:
        """Kill what a failed test left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
