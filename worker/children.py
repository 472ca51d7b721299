"""All processes that descend from this one, found and ended, orphans included.

On Linux the worker is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): a descendant whose parent
died becomes its child, so that the tree below the worker is always complete.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PROC = Path("/proc")


@dataclass(frozen=True)
class Spared:
    """An agent's own process, which outlives turns."""

    pid: int
    folder: Path
    """Where its programs lie, or its one program: what runs one of them below it is its helper,
    and spared as well."""


def become_subreaper() -> bool:
    """Have orphaned descendants come to this process; whether the system can do that."""
    if sys.platform != "linux":
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def children_of(pid: int) -> list[int]:
    """Direct children, zombies included; empty if the process is gone."""
    found: list[int] = []
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            found += map(int, Path(task.path, "children").read_bytes().split())
    except FileNotFoundError:
        if Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
            return found  # the process or one of its threads just went
        return [child for child, parent in _parents() if parent == pid]
    except ProcessLookupError:
        return found
    return found


def descendants() -> list[int]:
    """Everything below this process, parents before children."""
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = children_of(waiting.pop())
        found += children
        waiting += children
    return found


def kill_descendants(spared: Collection[Spared] = ()) -> None:
    """Send SIGKILL to everything below this process that is not spared, and do not wait."""
    for pid in _unspared(spared):
        _kill(pid)


def end_descendants(timeout: float = 5.0, spared: Collection[Spared] = ()) -> bool:
    """Kill and reap everything below this process that is not spared; whether it went in time.

    Nothing else of this process may be waiting for a child meanwhile, but for spared ones.

    Args:
        timeout: seconds.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0005
    kept = {one.pid for one in spared}
    while True:
        for pid in _unspared(spared):
            _kill(pid)
        for pid in children_of(os.getpid()):
            if pid not in kept:
                _reap(pid)
        if not _unspared(spared):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _unspared(spared: Collection[Spared]) -> list[int]:
    """Everything below this process but agents and their helpers."""
    if not spared:
        return descendants()
    helpers: set[int] = set()
    for one in spared:
        helpers.add(one.pid)
        waiting = [one.pid]
        while waiting:
            children = children_of(waiting.pop())
            waiting += children
            helpers.update(pid for pid in children if _runs_from(pid, one.folder))
    return [pid for pid in descendants() if pid not in helpers]


def _runs_from(pid: int, folder: Path) -> bool:
    try:
        program = (_PROC / str(pid) / "exe").readlink()
    except OSError:
        return False
    return program == folder or folder in program.parents


def kill_marked(marks: Mapping[str, str]) -> int:
    """Kill other processes that were started with all these variables; how many there were.

    These are what an earlier, killed process of the same worker left behind. A process's parent
    (who started us with the same variables) is spared.
    """
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    killed = 0
    for pid in _pids():
        if pid in (os.getpid(), os.getppid()):
            continue
        try:
            environment = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted <= set(environment):
            _kill(pid)
            killed += 1
    return killed


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone, or another user's (setuid): not ours to end


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def _pids() -> Iterator[int]:
    if _PROC.is_dir():
        yield from (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit())


def _parents() -> Iterator[tuple[int, int]]:
    """Every process with its parent, by reading the whole process table."""
    for pid in _pids():
        try:
            text = (_PROC / str(pid) / "stat").read_bytes()
        except OSError:
            continue
        yield pid, int(text.rpartition(b")")[2].split()[1])
