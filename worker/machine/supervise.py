"""The supervisor of one worker: its parent while it lives, and the one who tells how it ended.

All that the worker's agent starts and loses comes to it (a subreaper), and is killed once the
worker is gone; only then is ``ended`` written, so that whoever reads it knows that nothing writes
here any more.  Killed itself, it leaves a worker that goes on, whose end the heartbeat tells.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from worker import children
from worker.errors import ConfigError
from worker.failures import ProviderError
from worker.log import complain
from worker.machine import notices, tree
from worker.machine.start import ENDED, METADATA, has_begun
from worker.machine.watch import Watch
from worker.paths import write_private
from worker.signals import NOTICE, SPOT_INTERRUPTION

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
_TICK = 0.25
"""Seconds between two looks whether a worker that is to be told of its end has begun."""
_SWEEP_SECONDS = 60.0
_WRITE_SECONDS = 30.0
_NOT_RUN = "exit 127"


@dataclass(frozen=True)
class Task:
    """What a supervisor is told."""

    folder: Path
    job: str
    node: str
    lock: int
    """Descriptor of the lock that it keeps."""
    path: tuple[str, ...]
    python: str
    spot: bool
    root: Path
    coordinator: str

    @classmethod
    def of(cls, text: str) -> Task:
        """Raises: ConfigError."""
        try:
            told = json.loads(text)
            return cls(
                Path(told["folder"]),
                str(told["job"]),
                str(told["node"]),
                int(told["lock"]),
                tuple(told["path"]),
                str(told["python"]),
                bool(told["spot"]),
                Path(told["root"]),
                str(told["coordinator"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"supervise: {error}") from error


class Supervisor:
    """One worker's, from before its beginning to after its end."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._mine = tree.of_job(task.job, task.folder)
        self._stopping = False
        self._worker = 0
        self._status: int | None = None
        self._note, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._untold = False

    def run(self) -> int:
        """See a worker through; 0."""
        self._take_signals()
        children.become_subreaper()
        os.set_inheritable(self._task.lock, False)
        tree.kill(self._mine, _SWEEP_SECONDS)  # a killed predecessor's worker that had not begun
        if has_begun(self._task.folder):
            self._tell("signal 9")
            return 0
        ended = "signal 15" if self._stopping else self._live()
        self._sweep()
        self._tell(ended)
        return 0

    # --- the worker --------------------------------------------------------------------------

    def _live(self) -> str:
        """Run the worker to its end; how it ended."""
        try:
            self._worker = self._spawn()
        except OSError as error:
            self._fail(f"{self._task.python} cannot be run: {error.strerror or error}")
            return _NOT_RUN
        for watch in self._watches():
            watch.start()
        told_to_leave = False
        while self._status is None:
            if self._stopping and not told_to_leave:
                told_to_leave = True
                self._signal(signal.SIGTERM)
            if self._untold and (self._task.folder / "worker.pid").exists():
                self._untold = False  # it takes the signal now; before, it would have died of it
                self._signal(signal.SIGUSR1)
            select.select([self._note], [], [], _TICK if self._untold else None)
            with suppress(BlockingIOError):
                os.read(self._note, 4096)
            self._reap()
        return _text(self._status)

    def _watches(self) -> list[Watch]:
        """What tells that this machine, or the one that all files are on, will be taken away."""
        task = self._task
        watches = []
        if task.spot:
            from worker.machine.metadata import Metadata  # slow to load

            watches.append(Watch(Metadata(os.environ.get(METADATA, "")).notice, self._announce))
        if task.coordinator != task.node:
            of_files = functools.partial(notices.of, task.root, task.coordinator)
            watches.append(Watch(of_files, self._pass_on))
        return watches

    def _spawn(self) -> int:
        """Raises: OSError."""
        task = self._task
        environ = {
            name: value
            for name, value in os.environ.items()
            if name not in (tree.SUPERVISOR_VARIABLE, METADATA)
        }
        environ["PATH"] = ":".join([*task.path, environ.get("PATH", os.defpath)])
        program = str(Path(sys.argv[0]).absolute())
        process = subprocess.Popen(
            [task.python, "-I", program, str(task.folder)],
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd=task.folder,
        )
        process.returncode = 0  # we wait for it ourselves, with all the others
        return process.pid

    def _reap(self) -> None:
        """Take the exit status of every child that has ended, the worker's or an orphan's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if not pid:
                return
            if pid == self._worker:
                self._status = status

    def _signal(self, number: signal.Signals) -> None:
        if self._status is None:  # not reaped yet: the pid is its own
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._worker, number)

    # --- from outside ------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._came)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True

    def _announce(self, text: str) -> None:
        """This machine will be taken away (a watch's thread); others may live by its files."""
        self._pass_on(text)
        with suppress(OSError, ProviderError):
            notices.put(self._task.root, self._task.node, text)

    def _pass_on(self, text: str) -> None:
        """Have the worker leave (a watch's thread)."""
        complain(f"spot interruption: {text.strip()}")
        with suppress(OSError):
            write_private(self._task.folder / NOTICE, f"{SPOT_INTERRUPTION.reason}\n".encode())
        self._untold = True
        with suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    # --- the end -----------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Kill all that the worker left."""
        deadline = time.monotonic() + _SWEEP_SECONDS
        while True:
            swept = children.end_descendants(1.0)
            if not swept:
                tree.kill_these(children.descendants())  # begun by sudo
            if tree.kill(self._mine, 1.0) == 0 and swept:
                return
            if time.monotonic() >= deadline:
                complain("processes of the worker could not be ended")
                return

    def _fail(self, message: str) -> None:
        told = {"reason": "PythonNotFound", "message": f"{message} (on {self._task.node})"}
        with suppress(OSError):
            write_private(self._task.folder / "failure", json.dumps(told).encode())

    def _tell(self, text: str) -> None:
        """Write how the worker ended, unless its folder is gone."""
        deadline = time.monotonic() + _WRITE_SECONDS
        while True:
            try:
                write_ended(self._task.folder, text)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                complain(f"{ENDED}: {error}")
                if time.monotonic() >= deadline:
                    return
            time.sleep(1.0)


def write_ended(folder: Path, text: str) -> None:
    """Say how a worker ended, unless that is said; for whoever holds its lock. Raises: OSError."""
    if not os.path.lexists(folder / ENDED):
        write_private(folder / ENDED, f"{text}\n".encode())


def _text(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit {code}"


def supervise(text: str) -> int:
    """Be a supervisor. Raises: ConfigError."""
    return Supervisor(Task.of(text)).run()
