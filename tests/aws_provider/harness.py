"""A test cloud as the conformance suite and whole runs need it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from providers.aws import AwsProvider
from providers.aws_plan import Patience
from providers.aws_state import Times
from providers.base import LaunchRequest, SwarmHandle
from providers.ssh_target import Means
from tests.cloud.machines import Cloud
from tests.providers.harness import die_in_another_process

TIMES = Times(
    steady=0.5,
    busy=0.1,
    volumes=5.0,
    settle=0.5,
    deaf=3.0,
    early=1.0,
    expiry=20.0,
    patience=Patience(linger=1.0, idle=30.0, set_up=60.0),
)
"""Of a cloud that is near and quick."""


def provider(times: Times = TIMES) -> AwsProvider:
    """A provider that looks at EC2 oftener than users need."""
    means = Means(config=None, agent=None, files=True)
    return AwsProvider(lambda: means, home=lambda: "tests", times=times)


@dataclass(slots=True)
class AwsHarness:
    """One test cloud."""

    cloud: Cloud
    more: dict[str, Any] = field(default_factory=dict)

    def provider(self) -> AwsProvider:
        """A new provider object, as after a restart."""
        return provider()

    def parameters(self) -> dict[str, Any]:
        """The provider block."""
        volume = {"sizeGib": 8, "deleteOnTermination": True}
        return self.cloud.parameters(**{"workersPerInstance": 2, "volume": volume, **self.more})

    def processes(self, job: str) -> set[int]:
        """Living processes of a job, on any machine, without who watches over it."""
        return {pid for pid in self.cloud.processes(job) if "supervise" not in _words(pid)}

    def kill_worker(self, job: str) -> None:
        """SIGKILL to the process that is the worker."""
        self.cloud.wait(lambda: self.worker(job) is not None, f"{job} to begin")
        pid = self.worker(job)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def worker(self, job: str) -> int | None:
        """The process of a worker, as the host counts it."""
        for pid in self.processes(job):
            words = _words(pid)
            if "-I" in words and words[-1].endswith(f"/{job}"):
                return pid
        return None

    def disconnect(self) -> None:
        """Cut the SSH connections of all machines."""
        for id in self.cloud.machines():
            self.cloud.cut(id)

    def die_while_launching(self, request: LaunchRequest, point: str) -> None:
        """In a process of its own."""
        die_in_another_process("tests.aws_provider.die_while_launching", request, point)

    def traces(self, swarm: SwarmHandle) -> list[str]:
        """Instances that have not ended, and volumes."""
        return self.cloud.leftovers(swarm.uid)


def _words(pid: int) -> list[str]:
    """What a process was started with; nothing, if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except OSError:
        return []
