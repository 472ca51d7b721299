"""The conformance suite, for workers on this machine: a stand-in and the real worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from providers.base import LaunchRequest, SwarmHandle
from providers.launching import worker_command
from providers.local import LocalProvider
from tests.providers.conformance import ProviderConformance
from tests.providers.harness import processes_below

HERE = Path(__file__).parent
STANDIN = (sys.executable, "-I", "-S", str(HERE / "standin.py"))


@dataclass(slots=True)
class LocalHarness:
    """This machine, with one root folder."""

    root: Path
    command: tuple[str, ...]

    def provider(self) -> LocalProvider:
        """A new provider object over the same folder."""
        return LocalProvider(self.root, command=self.command, poll_seconds=0.1)

    def parameters(self) -> dict[str, Any]:
        """Nothing but defaults."""
        return {}

    def processes(self, job: str | None = None) -> set[int]:
        """Living processes whose environment names a folder below our root (and the job)."""
        return processes_below(self.root, job)

    def kill_worker(self, job: str) -> None:
        """SIGKILL to the process that the folder names."""
        (pid_file,) = self.root.glob(f"*/*/{job}/worker.pid")
        os.kill(json.loads(pid_file.read_text())["pid"], signal.SIGKILL)

    def disconnect(self) -> None:
        """There is no connection."""

    def die_while_launching(self, request: LaunchRequest, point: str) -> None:
        """In a process of its own."""
        swarm = request.swarm
        told = {
            "root": str(self.root),
            "command": self.command,
            "swarm": {"namespace": swarm.namespace, "name": swarm.name, "uid": swarm.uid},
            "job": request.job,
            "index": request.index,
            "config": dict(request.config),
            "env": dict(request.env),
        }
        ended = subprocess.run(
            [sys.executable, "-m", "tests.providers.die_while_launching", point, json.dumps(told)],
            cwd=HERE.parent.parent,
            check=False,
            timeout=60,
        )
        assert ended.returncode == -signal.SIGKILL

    def traces(self, swarm: SwarmHandle) -> list[str]:
        """Every path that has the swarm's uid in it."""
        return [str(path) for path in self.root.rglob("*") if swarm.uid[:8] in str(path)]

    def end(self) -> None:
        """Kill what a failed test left."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the local provider."""
    return tmp_path.resolve() / "workspaces"


class TestStandin(ProviderConformance):
    """With a worker that starts at once."""

    @pytest.fixture
    def harness(self, root: Path) -> Iterator[LocalHarness]:
        """This machine with the stand-in."""
        harness = LocalHarness(root, STANDIN)
        yield harness
        harness.end()


class TestWorker(ProviderConformance):
    """With the worker that users get."""

    @pytest.fixture
    def harness(self, root: Path) -> Iterator[LocalHarness]:
        """This machine with the real worker."""
        harness = LocalHarness(root, worker_command())
        yield harness
        harness.end()
