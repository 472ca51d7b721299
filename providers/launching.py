"""Starting one worker process: its folder, its configuration, its clean environment."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from providers.base import LaunchRequest, ProviderError
from providers.identity import FOLDER_VARIABLE, JOB_VARIABLE, has_begun
from providers.layout import Layout
from providers.processes import Target, exit_text, find
from worker.paths import PRIVATE_DIR, PRIVATE_FILE, make_fifo, write_private

_SETTLE_SECONDS = 0.25

NODE_VARIABLE = "CODESWARM_NODE_ID"

PASSED_ON = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR",
        "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "CODEX_HOME",
        "CODESWARM_CAPTURE_ALL_SESSION",
    }
)  # fmt: skip
"""The controller's own variables that a worker gets, with ``LC_*``; nothing else."""


def worker_command() -> tuple[str, ...]:
    """How to run the installed worker package, less the folder that is its last argument.

    ``-P`` keeps Python from importing out of the working directory, where agents write.
    """
    return (sys.executable, "-P", "-m", "worker")


def worker_environment(own: Mapping[str, str], job: str, folder: Path, node: str) -> dict[str, str]:
    """The environment a worker starts with.

    Args:
        own: the controller's environment, of which only ``PASSED_ON`` and ``LC_*`` are taken.
        job, folder, node: identify the worker, to itself and to ``providers.processes``.
    """
    passed = {
        name: value for name, value in own.items() if name in PASSED_ON or name.startswith("LC_")
    }
    return {
        **passed,
        JOB_VARIABLE: job,
        FOLDER_VARIABLE: str(folder),
        NODE_VARIABLE: node,
    }


@dataclass(slots=True)
class Children:
    """The workers that this process started, until they are reaped; safe between threads."""

    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _exits: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, job: str, child: subprocess.Popen[bytes]) -> None:
        """Take on a child."""
        with self._lock:
            self._running[job] = child
            self._exits.pop(job, None)

    def reap(self) -> None:
        """Take the exit status of those that ended, so that no zombie stays."""
        with self._lock:
            for job in list(self._running):
                self._reap_one(job)

    def _reap_one(self, job: str) -> None:
        child = self._running.get(job)
        code = child.poll() if child is not None else None
        if code is not None:
            del self._running[job]
            self._exits[job] = exit_text(code)

    def running(self, job: str) -> subprocess.Popen[bytes] | None:
        """The job's child if it has not ended."""
        with self._lock:
            self._reap_one(job)
            return self._running.get(job)

    def note_exit(self, job: str, text: str) -> None:
        """Remember how an adopted worker ended."""
        with self._lock:
            self._exits[job] = text

    def pids(self) -> set[int]:
        """Those that are not reaped yet."""
        with self._lock:
            return {child.pid for child in self._running.values()}

    def exit_of(self, job: str) -> str | None:
        """``exit N`` or ``signal N`` of a reaped worker."""
        with self._lock:
            return self._exits.get(job)

    def forget(self, job: str) -> None:
        """Drop what is known of an ended job."""
        with self._lock:
            self._exits.pop(job, None)


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts workers below a layout's folders; its methods run in threads.

    Args:
        layout: where folders lie.
        command: what to run, less the job's folder.
        children: takes on what is started.
    """

    layout: Layout
    command: Sequence[str]
    children: Children

    def launch(self, request: LaunchRequest) -> None:
        """Start the worker of a job unless it was started before, by whomever.

        A job is one incarnation: one whose worker has begun (and maybe ended) is never begun
        again.  Two that start at once by way of a crash settle it by ``worker.lock``.

        Raises: ProviderError (``LaunchFailed``, ``InvalidName``, ``UnsafePath``).
        """
        try:
            folder = self.layout.make(request.swarm, request.job)
            if not self._started_before(request.job, folder):
                self._prepare(request, folder)
                self._settle(self._spawn(request, folder), folder)
        except OSError as error:
            raise ProviderError(
                "LaunchFailed",
                f"worker {request.job} cannot be started: "
                f"{error.strerror or error} ({error.filename or self.command[0]})",
            ) from error

    def _started_before(self, job: str, folder: Path) -> bool:
        if has_begun(folder) or self.children.running(job) or self.children.exit_of(job):
            return True
        # A controller that was killed after it spawned left a process with no pid file yet.
        prepared = (folder / "worker.json").exists()
        return prepared and job in find([Target(job, folder)])

    def _prepare(self, request: LaunchRequest, folder: Path) -> None:
        for name in ("mailbox", "mailbox/inbox", "mailbox/outbox", "secrets"):
            self.layout.make(request.swarm, request.job, *name.split("/"))
        self.layout.stores.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        make_fifo(folder / "mailbox" / "inbox" / "wake")
        write_private(folder / "env", json.dumps(dict(request.env)).encode())
        write_private(folder / "worker.json", json.dumps(self._config(request)).encode())

    def _config(self, request: LaunchRequest) -> dict[str, object]:
        given = {
            "node": platform.node(),
            "hint": str(self.layout.hint),
            "stores": str(self.layout.stores),
        }
        identity = {
            "job": request.job,
            "index": request.index,
            "namespace": request.swarm.namespace,
            "swarm": request.swarm.name,
            "swarm_uid": request.swarm.uid,
        }
        chosen = {name: value for name, value in request.config.items() if value is not None}
        return {**given, **chosen, **identity}

    def _spawn(self, request: LaunchRequest, folder: Path) -> subprocess.Popen[bytes]:
        node = str(request.config.get("node") or platform.node())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(folder / "worker.log", flags, PRIVATE_FILE)
        try:
            child = subprocess.Popen(
                [*self.command, str(folder)],
                cwd=folder,
                env=worker_environment(os.environ, request.job, folder, node),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                close_fds=True,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.children.add(request.job, child)
        return child

    def _settle(self, child: subprocess.Popen[bytes], folder: Path) -> None:
        """Wait a moment until the worker has begun, so that a hundred of them at once do not
        take the processors from everybody else."""
        until = time.monotonic() + _SETTLE_SECONDS
        while not has_begun(folder) and child.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
