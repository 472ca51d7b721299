"""One process per worker folder: the lock, and the proof of who holds it.

``worker.pid`` holds ``{"pid", "start", "boot"}``: ``start`` is the process's start time in clock
ticks since boot (field 22 of ``/proc/<pid>/stat``, proc(5)), which no change of the clock moves,
and ``boot`` the kernel's boot id, so that both together name one process for ever.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from worker.locks import lock
from worker.log import complain

_PATIENCE = 0.5  # seconds; somebody who only probes the lock holds it for an instant


class AlreadyRunning(Exception):
    """Another process holds the folder's lock."""


class FolderLock:
    """``worker.lock``, held until this process ends."""

    def __init__(self, base: Path) -> None:
        """Take the lock.

        Raises: AlreadyRunning, OSError.
        """
        self._handle = os.open(
            base / "worker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if not lock(self._handle, wait=False):
                    complain(f"{base}: no locks here, so a second worker would not be noticed")
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(self._handle)
                    raise AlreadyRunning(f"a worker already runs in {base}") from None
                time.sleep(0.02)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._handle)


def write_identity(base: Path) -> bool:
    """Write ``worker.pid`` for this process, whole or not at all; whether one was there before."""
    path = base / "worker.pid"
    earlier = path.exists()
    part = base / ".worker.pid.part"
    identity = {"pid": os.getpid(), "start": start_ticks(os.getpid()), "boot": boot_id()}
    part.write_text(json.dumps(identity) + "\n")
    part.replace(path)
    return earlier


def start_ticks(pid: int) -> int:
    """Start time of a process in ticks since boot; 0 where there is no ``/proc`` or process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[19])


def boot_id() -> str:
    """The kernel's id of this boot (random(4)); empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
