"""Is the worker of this job alive? Answered by proof, never by a pid alone.

Four things must agree: ``worker.pid`` names a process, that process began when the file says,
``worker.lock`` is held, and the process's environment names this job and folder.  A process
that merely got the number of a dead worker fails the second, a forged file one of the others.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from worker.identity import boot_id

JOB_VARIABLE = "CODESWARM_JOB_ID"
FOLDER_VARIABLE = "CODESWARM_BASE_DIR"

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ENDED_STATES = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a worker wrote of itself in ``worker.pid``."""

    pid: int
    start: int
    """Clock ticks since boot (proc_pid_stat(5), field 22), which no change of the wall clock
    moves; 0 on systems without ``/proc``, where the lock and the marker have to do."""
    boot: str = ""
    """The kernel's id of the boot in which it ran; empty where unknown."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Which job a process belongs to, by the environment it was started with."""

    job: str
    folder: str
    """Empty if the environment does not say."""

    def means(self, job: str, folder: Path) -> bool:
        """Whether this is the marker of that job (and of no namesake in another home)."""
        return self.job == job and self.folder in ("", str(folder))


def read_identity(folder: Path) -> Identity | None:
    """What ``worker.pid`` in a job's folder says; None if it is missing or not readable."""
    try:
        descriptor = os.open(folder / "worker.pid", _READ_FLAGS)
    except OSError:
        return None
    try:
        data = json.loads(os.read(descriptor, 1024))
        identity = Identity(int(data["pid"]), int(data["start"]), str(data.get("boot", "")))
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ):
        return None  # anybody may have written it
    finally:
        os.close(descriptor)
    return identity if identity.pid > 1 else None


def has_begun(folder: Path) -> bool:
    """Whether a worker ever took up this job: then no other is started for it."""
    return os.path.lexists(folder / "worker.pid")


def runs(identity: Identity) -> bool:
    """Whether that very process runs (a zombie does not)."""
    if sys.platform == "linux":
        fields = _stat_fields(identity.pid)
        if fields is None or fields[0] in _ENDED_STATES or int(fields[19]) != identity.start:
            return False
        return identity.boot in ("", boot_id())
    else:  # noqa: RET505 - mypy knows the platform only so
        try:
            return psutil.Process(identity.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def lock_is_held(folder: Path) -> bool:
    """Whether somebody holds ``worker.lock`` in a job's folder.

    Asks by trying for a shared lock without waiting, so it is only for folders whose worker has
    written its pid (and thus holds the lock): there the try cannot be in a worker's way.
    """
    try:
        descriptor = os.open(folder / "worker.lock", _READ_FLAGS)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def marker_of(pid: int) -> Marker | None:
    """The marker of a process; None if it has none or it cannot be read."""
    try:
        return marker_in(psutil.Process(pid).environ())
    except (psutil.Error, OSError):
        return None


def marker_in(environment: dict[str, str]) -> Marker | None:
    """The marker in an environment; None if there is none."""
    job = environment.get(JOB_VARIABLE)
    return Marker(job, environment.get(FOLDER_VARIABLE, "")) if job else None


def live_worker(folder: Path, job: str) -> int | None:
    """The pid of the job's worker, if all proofs agree that it is alive."""
    identity = read_identity(folder)
    if identity is None or not runs(identity):
        return None
    if not lock_is_held(folder):
        return None
    marker = marker_of(identity.pid)
    return identity.pid if marker is not None and marker.means(job, folder) else None


def dead_child(identity: Identity) -> bool:
    """Whether this very process is a zombie that only we can reap (an adopted worker's)."""
    if sys.platform != "linux":
        return False
    fields = _stat_fields(identity.pid)
    return (
        fields is not None
        and fields[0] == "Z"
        and int(fields[1]) == os.getpid()
        and int(fields[19]) == identity.start
    )


def _stat_fields(pid: int) -> list[str] | None:
    """Fields 3 and following of ``/proc/<pid>/stat``: state, parent, ..., start time."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 else None
