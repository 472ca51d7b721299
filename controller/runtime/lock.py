"""One controller per home: the lock file, and who holds it.

The kernel's ``flock`` is the truth; the file's text (first line the pid, then ``key: value``
lines) only says who it is, and is believed while the lock is held and the start time fits.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from controller.runtime.home import Home

_PATIENCE = 1.0  # seconds; a probe by another process holds the lock for an instant


class ControllerRunning(Exception):
    """Another controller holds the home."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The controller that holds a home."""

    pid: int
    start: str
    """Start time of the process as the system tells it: to be compared, not read."""
    epoch: int
    """The controller's incarnation; 0 while it is still starting."""


class ControllerLock:
    """The lock of one home, for the controller (``acquire``) and for those who look."""

    def __init__(self, home: Home) -> None:
        self._path = home.lock
        self._root = home.root
        self._handle: int | None = None

    def acquire(self, epoch: int = 0) -> None:
        """Take the lock for the life of this process and note who holds it.

        Called again by its holder, it notes a new ``epoch``.

        Raises: ControllerRunning, OSError.
        """
        if self._handle is None:
            self._handle = self._take()
        text = f"{os.getpid()}\nstart: {start_time(os.getpid())}\nepoch: {epoch}\n".encode()
        os.pwrite(self._handle, text, 0)
        os.ftruncate(self._handle, len(text))

    def _take(self) -> int:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Never wait for another controller: it may be asked to stop meanwhile, and its
                # place is then not ours to take.
                if self.holder() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                os.close(handle)
                raise ControllerRunning(self._taken()) from None
            return handle

    def _taken(self) -> str:
        holder = self.holder()
        who = f"pid {holder.pid}" if holder else "its pid is not known"
        return (
            f"a controller already runs on {self._root} ({who}); "
            "stop it with `codeswarm down`, or use another CODESWARM_HOME"
        )

    def release(self) -> None:
        """Give the lock up; nothing happens if it is not held."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    @property
    def is_lost(self) -> bool:
        """Whether the file that this process holds is no longer the home's: somebody removed it."""
        if self._handle is None:
            return False
        mine = os.fstat(self._handle)
        try:
            there = os.stat(self._path)
        except OSError:
            return True
        return (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino)

    def holder(self) -> Holder | None:
        """Who holds the lock now, proven by the lock itself; None when nobody does."""
        if not is_held(self._path):
            return None
        found = _parse(self._path)
        if found is None or found.start != start_time(found.pid):
            return None
        return found

    def stale(self) -> int | None:
        """The pid that a dead controller left in the file, or None."""
        found = _parse(self._path)
        return found.pid if found is not None and not is_held(self._path) else None


def is_held(path: Path) -> bool:
    """Whether some process holds an exclusive ``flock`` on a file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _parse(path: Path) -> Holder | None:
    try:
        first, *rest = path.read_text().splitlines()
        values = dict(line.split(": ", 1) for line in rest if ": " in line)
        return Holder(int(first), values.get("start", ""), int(values.get("epoch", "0")))
    except (OSError, ValueError):
        return None


def start_time(pid: int) -> str:
    """When a process started, as an opaque text that no jump of the clock changes.

    Linux: field 22 of ``/proc/<pid>/stat`` (proc(5)), ticks since boot. Elsewhere psutil's time.
    Empty when there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _start_elsewhere(pid)
    return text.rpartition(")")[2].split()[19]


def _start_elsewhere(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return ""
