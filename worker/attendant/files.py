"""The folders of swarms and jobs on a login host: made, looked at, written to.

What a folder holds may be an agent's doing: sizes are bounded, no link is followed.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

from worker import paths
from worker.failures import ProviderError
from worker.paths import PRIVATE_FILE, component, is_component, write_private

EXECUTABLE = 0o700
JOB_FILES = {"env": PRIVATE_FILE, "batch.sh": EXECUTABLE, "worker.json": PRIVATE_FILE}
"""What a job's folder begins with, in the order of writing: the last one says that all is there."""
_MAILBOX = (("mailbox",), ("mailbox", "inbox"), ("mailbox", "outbox"), ("secrets",))
_MAX_NOTE = 8192
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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
    root: Path, swarm: tuple[str, str], job: str, files: dict[str, str]
) -> dict[str, object]:
    """Make a job's folder with its mailbox and files; safe to repeat.

    Once a worker has claimed the folder nothing in it is written any more: its environment, which
    it has read and removed, does not come back.

    Args:
        root: below which all is.
        swarm: its two components.
        job: its folder.
        files: texts by name, of ``JOB_FILES``.

    Returns: ``folder`` (absolute), and ``claimed``.

    Raises: ProviderError (``UnsafePath``, ``InvalidName``, ``BadRequest``,
        ``WorkspaceNotWritable``).
    """
    unknown = sorted(set(files) - set(JOB_FILES))
    if unknown:
        raise ProviderError("BadRequest", f"files: a job has no {', '.join(unknown)}")
    try:
        folder = paths.make(root, *swarm, component(job))
        claimed = os.path.lexists(folder / "claim")
        if not claimed:
            for below in _MAILBOX:
                paths.make(root, *swarm, job, *below)
            for name, mode in JOB_FILES.items():
                if name in files:
                    write_private(folder / name, files[name].encode(), mode)
    except OSError as error:
        raise not_writable(root, error) from error
    return {"folder": str(folder), "claimed": claimed}


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
    begun = os.path.lexists(folder / "worker.pid")
    claim = _note(folder / "claim")
    return {
        "job": job,
        "prepared": os.path.lexists(folder / "worker.json"),
        "claim": None if claim is None else claim.strip()[:200],
        "failure": _failure(folder / "failure"),
        "begun": begun,
        "heartbeat": modified(folder / "heartbeat"),
    }


def _failure(path: Path) -> dict[str, str] | None:
    """What a batch script says went wrong."""
    text = _note(path)
    if text is None:
        return None
    try:
        told = json.loads(text)
        reason, message = told["reason"], told["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {"reason": "StartFailed", "message": text.strip()[:2000]}
    return {"reason": str(reason)[:64], "message": str(message)[:4000]}


def modified(path: Path) -> float | None:
    """When a file was written last; it is opened for that, since a network file system asks the
    server only then (close-to-open consistency, nfs(5))."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError:
        return None
    try:
        seen = os.fstat(descriptor)
        return seen.st_mtime if stat.S_ISREG(seen.st_mode) else None
    finally:
        os.close(descriptor)


def _note(path: Path) -> str | None:
    """The beginning of a small file; None if it is not there, or no file."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, _MAX_NOTE).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
