"""Writing an agent's file inside the checkout and nowhere else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from worker.errors import TurnError


def confined(root: Path, path: str) -> Path:
    """The file that a relative path names below ``root``.

    Raises: TurnError (task) if it leads out of it, by ``..``, an absolute path or a symlink, or
        into git's own folder.
    """
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
        raise _outside(path)
    if any(part.lower() == ".git" for part in parts):
        raise TurnError("task", f"write: {path!r} is git's own")
    target = root.joinpath(*parts)
    real_root = root.resolve()
    try:
        inside = real_root in target.resolve().parents
    except (OSError, RuntimeError):  # a loop of symlinks
        inside = False
    if not inside:
        raise _outside(path)
    return target


def write_file(root: Path, path: str, content: str) -> str:
    """Write a file below ``root``, folders included; ``add`` or ``update``.

    Raises: TurnError (task).
    """
    target = confined(root, path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        kind = "update" if target.exists() else "add"
        target.write_bytes(content.encode())
    except OSError as error:
        raise TurnError("task", f"write: {path!r}: {error.strerror}") from error
    return kind


def _outside(path: str) -> TurnError:
    return TurnError(
        "task", f"write: {path!r} leads out of the checkout; give a relative path without '..'"
    )
