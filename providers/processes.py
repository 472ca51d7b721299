"""Finding and ending all processes of a job: its tree, its session, and who left both.

An agent's commands may daemonise (new session, parent gone).  What they cannot easily shed is
the environment they were started with, so that is searched too.  Beyond reach is only a process
that cleared its environment *and* lost its parent before the job was ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from providers.base import ProviderError
from providers.identity import (
    Marker,
    dead_child,
    live_worker,
    marker_in,
    read_identity,
)

_MAX_ROUNDS = 50
_EXEC_SECONDS = 0.003
_REAP_ATTEMPTS = 100
_KERNEL_PARENT = 2  # kthreadd; kernel threads have no environment ever


@dataclass(frozen=True, slots=True)
class Entry:
    """One process of this machine, as one look at the process table showed it."""

    pid: int
    parent: int
    session: int
    marker: Marker | None = None
    blank: bool = False
    """It has no environment at all, as during an instant of execve(2): look again."""


@dataclass(frozen=True, slots=True)
class Target:
    """A job whose processes are looked for."""

    job: str
    folder: Path
    worker: int | None = None
    """Pid of its proven worker, if that lives."""


def belonging(
    entries: Mapping[int, Entry],
    targets: Collection[Target],
    *,
    known: Iterable[int] = (),
    spared: Collection[int] = (),
) -> set[int]:
    """Which processes belong to these jobs.

    Args:
        entries: the process table, by pid.
        targets: the jobs.
        known: pids that were found to belong before; their children belong too.
        spared: pids that never do (we ourselves and our ancestors).
    """
    folders = {target.job: target.folder for target in targets}
    workers = {target.worker for target in targets if target.worker is not None}
    children: dict[int, list[int]] = {}
    for entry in entries.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    waiting = [pid for pid in known if pid in entries]
    for entry in entries.values():
        marked = entry.marker is not None and (
            (folder := folders.get(entry.marker.job)) is not None
            and entry.marker.means(entry.marker.job, folder)
        )
        if marked or entry.pid in workers or entry.session in workers:
            waiting.append(entry.pid)
    found: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in found and pid not in spared:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def snapshot() -> tuple[dict[int, Entry], dict[int, psutil.Process]]:
    """The process table without zombies, and a handle for each process in it."""
    handles = {process.pid: process for process in psutil.process_iter()}
    looks = {pid: _look(process) for pid, process in handles.items()}
    blank = [pid for pid, entry in looks.items() if entry is not None and entry.blank]
    if blank:
        time.sleep(_EXEC_SECONDS)
        looks.update({pid: _look(handles[pid]) for pid in blank})
    return {pid: entry for pid, entry in looks.items() if entry is not None}, handles


def _look(process: psutil.Process) -> Entry | None:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            parent = process.ppid()
        session = os.getsid(process.pid)
    except (psutil.Error, OSError):
        return None
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return Entry(process.pid, parent, session)  # another user's: not ours to judge
    blank = not environment and _KERNEL_PARENT not in (process.pid, parent)
    return Entry(process.pid, parent, session, marker_in(environment), blank)


def find(targets: Collection[Target]) -> dict[str, int]:
    """The first process of each job that carries its marker (by pid), by job."""
    entries, _ = snapshot()
    folders = {target.job: target.folder for target in targets}
    found: dict[str, int] = {}
    for pid in sorted(entries):
        marker = entries[pid].marker
        folder = folders.get(marker.job) if marker is not None else None
        if marker is not None and folder is not None and marker.means(marker.job, folder):
            found.setdefault(marker.job, pid)
    return found


def signal_worker(folder: Path, job: str, number: signal.Signals) -> bool:
    """Signal a job's worker, if it is proven alive; whether it was.

    Raises: ProviderError (``StopFailed``) if this user may not.
    """
    identity = read_identity(folder)
    if identity is None:
        return False
    return _send(identity.pid, number, lambda: live_worker(folder, job) == identity.pid)


def signal_marked(targets: Collection[Target], number: signal.Signals) -> None:
    """Signal the processes that carry these jobs' markers (workers that have no pid file yet).

    Raises: ProviderError (``StopFailed``) if this user may not.
    """
    entries, handles = snapshot()
    for pid in belonging(entries, targets, spared=_spared()):
        _send(pid, number, handles[pid].is_running)


def kill_all(targets: Collection[Target]) -> None:
    """Kill everything that belongs to these jobs; returns when all of it has got its SIGKILL.

    All are frozen first, and looked for again until no new one is found, so that none can
    start another while its parent (the link to it) dies.

    Raises: ProviderError (``StopFailed``) if some may not be signalled, or do not stop to
        multiply.
    """
    spared = _spared()
    killed: dict[int, psutil.Process] = {}
    for _ in range(_MAX_ROUNDS):
        frozen = _freeze(targets, killed, spared)
        for pid, process in frozen.items():
            _send(pid, signal.SIGKILL, process.is_running)
        killed.update(frozen)
        targets = [replace(target, worker=None) for target in targets]  # its pid is free again
        if not frozen:
            for process in killed.values():
                reap(process)
            return
    jobs = ", ".join(sorted(target.job for target in targets))
    raise ProviderError("StopFailed", f"processes of {jobs} multiply faster than they are ended")


def _freeze(
    targets: Collection[Target], killed: Mapping[int, psutil.Process], spared: Collection[int]
) -> dict[int, psutil.Process]:
    """Stop (SIGSTOP) all that belongs and was not killed yet, until a look shows no new one."""
    frozen: dict[int, psutil.Process] = {}
    for _ in range(_MAX_ROUNDS):
        entries, handles = snapshot()
        found = belonging(entries, targets, known=frozen, spared=spared)
        fresh = {pid for pid in found if killed.get(pid) != handles[pid]} - frozen.keys()
        if not fresh:
            break
        for pid in fresh:
            _send(pid, signal.SIGSTOP, handles[pid].is_running)
            frozen[pid] = handles[pid]
    return frozen


def reap(process: psutil.Process) -> None:
    """Take a killed process's exit status if it is a zombie child of ours (orphans come to us
    where we are the init process of a container)."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE and process.ppid() == os.getpid():
            os.waitpid(process.pid, os.WNOHANG)
    except (psutil.Error, OSError):
        return


def reap_adopted(folder: Path) -> str | None:
    """Reap a dead worker that is our child though we did not start it; its exit, if known."""
    identity = read_identity(folder)
    if identity is None or not dead_child(identity):
        return None
    for _ in range(_REAP_ATTEMPTS):
        try:
            pid, status = os.waitpid(identity.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid:
            return exit_text(os.waitstatus_to_exitcode(status))
        time.sleep(0.001)  # its other threads are still on their way out
    return None


def exit_text(code: int) -> str:
    """``exit N`` or ``signal N`` from a return code as ``subprocess`` gives it."""
    return f"signal {-code}" if code < 0 else f"exit {code}"


def _send(pid: int, number: signal.Signals, proven: Callable[[], bool]) -> bool:
    """Signal a process of which ``proven`` holds after it was taken hold of.

    The pidfd makes the check and the signal concern the same process, whatever becomes of its
    number meanwhile (pidfd_open(2)).
    """
    try:
        if sys.platform == "linux":
            descriptor = os.pidfd_open(pid)
            try:
                if not proven():
                    return False
                signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)
        else:
            if not proven():
                return False
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise ProviderError(
            "StopFailed", f"process {pid} runs as another user and cannot be ended from here"
        ) from error
    return True


def _spared() -> set[int]:
    """We and our ancestors."""
    ourselves = psutil.Process()
    return {ourselves.pid, *(parent.pid for parent in ourselves.parents())}
