"""All processes of a machine that belong to jobs, found in the process table and killed.

A process belongs to a job if it was started with the job's variables, or descends from one that
was.  The supervisor of a job is such a process, and its descendants' last parent (a subreaper):
so what cleared its environment is found as well, as long as the supervisor lives.  Nothing here
touches a job's folder: its file system may hang.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.config import BASE_VARIABLE, JOB_VARIABLE

SUPERVISOR_VARIABLE = "CODESWARM_SUPERVISOR"
"""Set for a job's supervisor, and for nothing below it."""
_PROC = Path("/proc")
_ROUNDS = 50
_PAUSE = 0.02
_EXEC_SECONDS = 0.003
_SUDO_SECONDS = 10.0
_REFUSED: list[int] = []
"""What sudo would not do: then it is asked no more."""
_DEAD = frozenset({"Z", "X", "x"})

Wanted = Callable[[Mapping[bytes, bytes]], bool]
"""Whether an environment is one of those that are looked for."""


@dataclass(frozen=True)
class Process:
    """One process, as one look at the process table showed it."""

    pid: int
    start: int
    """Clock ticks since boot: with the pid, this names one process only."""
    parent: int
    environ: Mapping[bytes, bytes]

    @property
    def supervises(self) -> bool:
        """Whether it is a job's supervisor."""
        return SUPERVISOR_VARIABLE.encode() in self.environ


def of_job(job: str, folder: Path) -> Wanted:
    """What tells a job's processes."""
    wanted = (os.fsencode(job), os.fsencode(folder))
    names = (JOB_VARIABLE.encode(), BASE_VARIABLE.encode())
    return lambda environ: tuple(environ.get(name) for name in names) == wanted


def below(root: str) -> Wanted:
    """What tells the processes of every job below a root."""
    start = os.fsencode(root.rstrip("/") + "/")
    name = BASE_VARIABLE.encode()
    return lambda environ: environ.get(name, b"").startswith(start)


def find(wanted: Wanted, held: Collection[int] = ()) -> dict[int, Process]:
    """The processes that belong, by pid; we and our ancestors are not among them.

    Args:
        wanted: which environments.
        held: processes whose descendants belong as well.
    """
    table = _table()
    spared = _ancestors(table)
    found = {
        pid
        for pid, one in table.items()
        if pid not in spared and (pid in held or wanted(one.environ))
    }
    children: dict[int, list[int]] = {}
    for pid, one in table.items():
        children.setdefault(one.parent, []).append(pid)
    waiting = list(found)
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found and pid not in spared:
                found.add(pid)
                waiting.append(pid)
    return {pid: table[pid] for pid in found}


def kill(wanted: Wanted, seconds: float) -> int:
    """Kill all that belongs, and wait until it is gone; how many are still there.

    All are stopped first, and looked for again until no new one is found: none can start another
    one while its parent, which is what leads to it, is dying.

    Args:
        wanted: which environments.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        held: dict[int, Process] = {}
        for _ in range(_ROUNDS):
            fresh = {p: one for p, one in find(wanted, held).items() if held.get(p) != one}
            if not fresh:
                break
            for one in fresh.values():
                send(one, signal.SIGSTOP)
            held.update(fresh)
        for one in held.values():
            send(one, signal.SIGKILL)
        if not held:
            return 0
        if time.monotonic() >= deadline:
            return len(find(wanted))
        time.sleep(_PAUSE)


def kill_these(pids: Iterable[int]) -> None:
    """Send SIGKILL to processes that are known to belong."""
    for one in filter(None, map(_look, pids)):
        send(one, signal.SIGKILL)


def send(process: Process, number: signal.Signals) -> bool:
    """Signal this very process, whatever becomes of its pid; whether it could be.

    Agents may have begun some by sudo: where we may use it as well, these are signalled too.
    """
    try:
        return _send(process, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return _send_as_root(process, number)


def _send(process: Process, number: signal.Signals) -> bool:
    """Raises: ProcessLookupError, PermissionError."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return _send_plainly(process, number)
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_plainly(process, number)  # a kernel before 5.3
    try:
        if _start(process.pid) != process.start:
            return False
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
    return True


def _send_plainly(process: Process, number: signal.Signals) -> bool:
    if _start(process.pid) != process.start:
        return False
    os.kill(process.pid, number)
    return True


def _send_as_root(process: Process, number: signal.Signals) -> bool:
    if _REFUSED or _start(process.pid) != process.start:
        return False
    command = ["sudo", "-n", "kill", f"-{number.value}", str(process.pid)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SUDO_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        _REFUSED.append(process.pid)
        return False
    if done.returncode != 0 and _start(process.pid) == process.start:
        _REFUSED.append(process.pid)
    return done.returncode == 0


def _table() -> dict[int, Process]:
    """All live processes.  One without any environment may be within execve(2): looked at again."""
    table = {one.pid: one for one in map(_look, _pids()) if one is not None}
    blank = [pid for pid, one in table.items() if not one.environ and not _is_kernels(one)]
    if blank:
        time.sleep(_EXEC_SECONDS)
        for pid in blank:
            again = _look(pid)
            if again is not None:
                table[pid] = again
    return table


def _is_kernels(one: Process) -> bool:
    return 2 in (one.pid, one.parent)  # kthreadd


def _look(pid: int) -> Process | None:
    fields = _stat(pid)
    if fields is None or fields[0] in _DEAD:
        return None
    try:
        data = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        data = b""  # another user's
    pairs = (entry.partition(b"=") for entry in data.split(b"\0"))
    return Process(pid, int(fields[19]), int(fields[1]), {n: v for n, eq, v in pairs if eq})


def _start(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """Fields 3 and following of ``/proc/<pid>/stat`` (proc(5)): state, parent, ..., start time."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 else None


def _pids() -> Iterator[int]:
    with os.scandir(_PROC) as entries:
        yield from [int(entry.name) for entry in entries if entry.name.isdigit()]


def _ancestors(table: Mapping[int, Process]) -> set[int]:
    """We and what we descend from."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = table[pid].parent if pid in table else 0
    return found
