"""Handling what an agent left, however it is protected, without following a link.

No process of the agent lives when these are called, so nothing changes under them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from worker.walk import remove


def remove_tree(path: Path) -> None:
    """Remove a file, link or whole folder; nothing happens if it is not there.

    Raises: OSError.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove(parent, path.name)
    finally:
        os.close(parent)


def is_below(root: Path, path: Path) -> bool:
    """Whether a path below ``root`` is a folder that can be reached without following a link."""
    current = root
    for part in path.relative_to(root).parts:
        current = current / part
        try:
            if not stat.S_ISDIR(current.lstat().st_mode):
                return False
        except OSError:
            return False
    return True


def write_anew(path: Path, text: str) -> None:
    """Write a file, whatever was there: nothing is written through a link.

    Raises: OSError.
    """
    remove_tree(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def every_name(root: Path, paths: Iterable[str]) -> list[str]:
    """Paths as they are given, and where they lie by their links, should that be elsewhere.

    Args:
        root: what relative paths begin from.
        paths: empty ones are left out.
    """
    names = (name for path in paths if path for name in (path, _lies(root, path)))
    return list(dict.fromkeys(names))


def _lies(root: Path, path: str) -> str:
    """Where a path leads: relative to ``root`` if below it; as it is if that cannot be told."""
    try:
        base, real = root.resolve(), (root / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a null byte
        return path
    return str(real.relative_to(base)) if base in real.parents else str(real)
