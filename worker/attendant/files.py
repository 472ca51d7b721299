"""The folders of swarms and jobs on a login host: made, looked at, written to.

What a folder holds may be an agent's doing: sizes are bounded, no link is followed.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from worker import claims, notes, paths, walk
from worker.failures import ProviderError
from worker.paths import PRIVATE_FILE, component, inbox_name, is_component, write_private

EXECUTABLE = 0o700
JOB_FILES = {"env": PRIVATE_FILE, "batch.sh": EXECUTABLE, "worker.json": PRIVATE_FILE}
"""What a job's folder begins with, in the order of writing: the last one says that all is there."""
_MAILBOX = (("mailbox",), ("mailbox", "inbox"), ("mailbox", "outbox"), ("secrets",))
SHUT = "cancelled"
"""The claim of a folder that no job may take up any more."""
_AGAIN, _AGAIN_SECONDS = 20, 0.01


def resolve_root(text: str) -> Path:
    """The root as this host knows it: ``~`` filled in, links above it followed.

    Raises: ProviderError (``InvalidParameters``).
    """
    try:
        root = Path(text).expanduser()
        if root.is_absolute():
            return root.resolve()
    except (OSError, RuntimeError, ValueError):
        pass
    raise ProviderError(
        "InvalidParameters",
        f"workspaceRoot: {text!r} is no absolute path here; give one, or one that begins with '~/'",
    )


def prepare(root: Path) -> None:
    """Make the root where it is missing, and prove that it can be written to.

    Raises: ProviderError (``WorkspaceNotWritable``).
    """
    probe = root / f".probe-{os.getpid()}-{threading.get_ident()}"
    try:
        paths.make(root)
        write_private(probe, b"x")
        probe.unlink()
    except OSError as error:
        raise not_writable(root, error) from error


def not_writable(root: Path, error: OSError) -> ProviderError:
    """The error for a root that cannot be used."""
    return ProviderError(
        "WorkspaceNotWritable",
        f"workspaceRoot: {root} cannot be written to: {error.strerror or error}; name a folder on "
        "the cluster's shared file system that the login user owns",
    )


def make_job(
    root: Path, swarm: tuple[str, str], job: str, index: int, files: dict[str, str]
) -> dict[str, object]:
    """Make a job's folder with its mailbox and files; safe to repeat.

    Once a worker has claimed the folder nothing in it is written any more: its environment, which
    it has read and removed, does not come back.

    What others look for is there from the beginning, empty: a network file system remembers for
    up to a minute that a file was not there (nfs(5), ``acdirmax``).

    Args:
        root: below which all is.
        swarm: its two components.
        job: its folder.
        index: of the worker.
        files: texts by name, of ``JOB_FILES``.

    Returns: ``folder`` (absolute), and ``claimed``.

    Raises: ProviderError (``UnsafePath``, ``InvalidName``, ``BadRequest``,
        ``WorkspaceNotWritable``).
    """
    unknown = sorted(set(files) - set(JOB_FILES))
    if unknown:
        raise ProviderError("BadRequest", f"files: a job has no {', '.join(unknown)}")
    for again in range(_AGAIN, -1, -1):
        try:
            return _make_job(root, swarm, component(job), index, files)
        except (FileNotFoundError, FileExistsError) as error:
            if not again:
                raise not_writable(root, error) from error
            time.sleep(_AGAIN_SECONDS)  # somebody else makes the same job now
        except OSError as error:
            raise not_writable(root, error) from error
    raise AssertionError("unreachable")


def _make_job(
    root: Path, swarm: tuple[str, str], job: str, index: int, files: dict[str, str]
) -> dict[str, object]:
    """Raises: OSError, ProviderError."""
    folder = paths.make(root, *swarm, job)
    claimed = os.path.lexists(folder / "claim")
    if not claimed:
        for below in _MAILBOX:
            paths.make(root, *swarm, job, *below)
        _leave_empty(folder / "heartbeat")
        for box in ("inbox", "outbox"):
            _leave_empty(folder / "mailbox" / box / inbox_name(job, index))
        for name, mode in JOB_FILES.items():
            if name in files:
                write_private(folder / name, files[name].encode(), mode)
    return {"folder": str(folder), "claimed": claimed}


def _leave_empty(path: Path) -> None:
    """Make a file of size and time 0, unless it is there. Raises: OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, PRIVATE_FILE)
    except FileExistsError:
        return
    try:
        os.utime(descriptor, (0, 0))
    finally:
        os.close(descriptor)


def shut(root: Path, swarm: tuple[str, str], jobs: list[str], ended: list[str]) -> None:
    """Have no job take up these workers' folders any more, and remove secrets that nobody reads.

    A job that is still being submitted, or that the batch system has lost sight of, finds the
    folder taken when it begins.

    Args:
        root: below which all is.
        swarm: its two components.
        jobs: the workers; those without a folder are fine.
        ended: those of them that have ended.

    Raises: ProviderError (``UnsafePath``, ``InvalidName``, ``WorkspaceNotWritable``).
    """
    for job in jobs:
        folder = paths.existing(root, *swarm, component(job))
        if folder is None:
            continue
        try:
            if claims.take(folder, SHUT) == SHUT or job in ended:
                _forget_secrets(root, swarm, job)
        except OSError as error:
            raise not_writable(root, error) from error


def _forget_secrets(root: Path, swarm: tuple[str, str], job: str) -> None:
    """Remove a worker's environment and secrets, whatever is there. Raises: OSError."""
    folder = paths.open_folder(root, *swarm, job)
    if folder is None:
        return
    try:
        for name in ("env", ".env.part", "secrets"):
            walk.remove(folder, name)
    finally:
        os.close(folder)


def jobs(root: Path, swarm: tuple[str, str]) -> list[dict[str, Any]]:
    """What the folder of each job of a swarm tells, by name.

    Raises: ProviderError (``UnsafePath``); OSError.
    """
    top = paths.existing(root, *swarm)
    if top is None:
        return []
    with os.scandir(top) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if is_component(entry.name) and entry.is_dir(follow_symlinks=False)
        )
    return [_look(top / name, name) for name in names]


def _look(folder: Path, job: str) -> dict[str, Any]:
    # Listing the folder first has a network file system ask its server what is there now.
    try:
        there = frozenset(path.name for path in folder.iterdir())
    except OSError:
        there = frozenset()
    begun = "worker.pid" in there
    claim = notes.read(folder / "claim") if "claim" in there else None
    ended = notes.read(folder / "ended") if "ended" in there else None
    beat = modified(folder / "heartbeat") if "heartbeat" in there else None
    if beat is not None and "env" in there:  # it was written again while a worker took it up
        with suppress(OSError):
            (folder / "env").unlink()
    return {
        "job": job,
        "prepared": "worker.json" in there,
        "claim": None if claim is None else claim.strip()[:200],
        "failure": _failure(folder / "failure") if "failure" in there else None,
        "begun": begun,
        "ended": None if ended is None else ended.strip()[:200],
        "heartbeat": beat,
    }


def _failure(path: Path) -> dict[str, str] | None:
    """What a batch script says went wrong."""
    text = notes.read(path)
    if text is None:
        return None
    try:
        told = json.loads(text)
        reason, message = told["reason"], told["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"reason": "StartFailed", "message": text.strip()[:2000]}
    return {"reason": str(reason)[:64], "message": str(message)[:4000]}


def modified(path: Path) -> float | None:
    """When a file was written last; None: it is not there, or of time 0 (never yet).

    It is opened for that, since a network file system asks the server only then (close-to-open
    consistency, nfs(5)).
    """
    try:
        descriptor = os.open(path, notes.READ_FLAGS)
    except OSError:
        return None
    try:
        seen = os.fstat(descriptor)
        return seen.st_mtime or None if stat.S_ISREG(seen.st_mode) else None
    finally:
        os.close(descriptor)
