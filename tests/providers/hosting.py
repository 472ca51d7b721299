"""A worker host for tests, with all that the conformance suite wants to do to one."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from providers.base import LaunchRequest
from providers.hosted import HostedProvider
from tests.providers.harness import DEADLINE
from tests.providers.test_conformance import STANDIN, LocalHarness

REPOSITORY = Path(__file__).parent.parent.parent
SUBREAPER = (
    sys.executable,
    "-c",
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""Runs what follows as a process to which orphans fall (PR_SET_CHILD_SUBREAPER of prctl(2))."""
NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs what follows as the first process of a pid namespace, as in a container."""


@dataclass(slots=True)
class HostedHarness(LocalHarness):
    """One worker host on this machine, and controllers that come and go."""

    folder: Path
    """For the socket; its path must be short."""
    archives: Path
    """The controller's folder for archives; nothing is ever in it."""
    around: Sequence[str] = ()
    """What runs the host."""
    uids: Sequence[int] = field(default_factory=lambda: [os.getuid()])
    workspace_roots: Sequence[Path] = ()
    grace: float = 10.0
    host: subprocess.Popen[bytes] | None = None
    epochs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def socket(self) -> Path:
        """Where the host listens."""
        return self.folder / "host.sock"

    @property
    def log(self) -> Path:
        """What the hosts said."""
        return self.folder / "host.log"

    def provider(self, **options: Any) -> HostedProvider:
        """The next controller's."""
        return HostedProvider(self.socket, next(self.epochs), archives=self.archives, **options)

    def begin(self, *, die: str = "", ready: bool = True) -> subprocess.Popen[bytes]:
        """Start the host; it listens when this returns."""
        told = {
            "socket": str(self.socket),
            "root": str(self.root),
            "uids": list(self.uids),
            "workspace_roots": [str(path) for path in self.workspace_roots],
            "grace": self.grace,
            "command": list(self.command),
            "die": die,
        }
        before = _inode(self.socket)
        command = [sys.executable, "-m", "tests.providers.host_process", json.dumps(told)]
        with self.log.open("ab") as log:
            host = self.host = subprocess.Popen(
                [*self.around, *command], cwd=REPOSITORY, stderr=log, start_new_session=True
            )
        until = time.monotonic() + DEADLINE
        while ready and _inode(self.socket) in (None, before):
            assert host.poll() is None, self.log.read_text()
            assert time.monotonic() < until, "the host does not listen"
            time.sleep(0.01)
        return host

    def kill(self) -> None:
        """SIGKILL to the host alone (in a pid namespace that is the end of all in it)."""
        if self.host is not None and self.host.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.host.wait()
        self.host = None

    def disconnect(self) -> None:
        """The host dies, and another takes its place."""
        self.kill()
        self.begin()

    @property
    def pid(self) -> int:
        """The host's own pid, as seen from here."""
        assert self.host is not None
        if tuple(self.around) != NAMESPACE:
            return self.host.pid
        children = Path(f"/proc/{self.host.pid}/task/{self.host.pid}/children")
        return int(children.read_text().split()[0])

    def die_while_launching(self, request: LaunchRequest, point: str) -> None:
        """The host dies in the middle of it, and another one takes its place."""
        self.kill()
        self.begin(die=point)
        swarm = request.swarm
        told = {
            "socket": str(self.socket),
            "epoch": next(self.epochs),
            "swarm": {"namespace": swarm.namespace, "name": swarm.name, "uid": swarm.uid},
            "job": request.job,
            "index": request.index,
            "config": dict(request.config),
            "env": dict(request.env),
        }
        command = [sys.executable, "-m", "tests.providers.host_launch", json.dumps(told)]
        said = subprocess.run(
            command, cwd=REPOSITORY, check=True, timeout=60, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        if point == "returned":
            assert said == "launched"
            self.kill()
        else:
            assert said == "OutcomeUnknown"
            assert self.host is not None
            assert self.host.wait(DEADLINE) == -signal.SIGKILL
        self.begin()

    def end(self) -> None:
        """Kill the host and what it left."""
        self.kill()
        super(HostedHarness, self).end()


@contextmanager
def hosted(
    tmp_path: Path, command: tuple[str, ...] = STANDIN, *, begun: bool = True, **options: Any
) -> Iterator[HostedHarness]:
    """A host until the test is over; not ``begun``: one that is still to be started."""
    with TemporaryDirectory(prefix="host-") as folder:
        root = tmp_path.resolve() / "work"
        harness = HostedHarness(root, command, Path(folder), tmp_path / "archives", **options)
        try:
            if begun:
                harness.begin()
            yield harness
        finally:
            harness.end()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
