"""Removing what ended workers and projects that are gone left behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from worker import paths, walk
from worker.paths import component


def remove_jobs(root: Path, swarm: tuple[str, ...], jobs: Iterable[str] | None) -> list[str]:
    """Remove folders of jobs; None: of all, and the swarm's own.

    Args:
        root: below which all is.
        swarm: components of the swarm's folder below the root.
        jobs: their names; those that are not there are fine.

    Returns: the names of those that were removed, or were not there.

    Raises: ProviderError (``UnsafePath``, ``InvalidName``); OSError.
    """
    asked = None if jobs is None else sorted({component(job) for job in jobs})
    folder = paths.open_folder(root, *swarm)
    if folder is None:
        return asked or []
    try:
        names = _names(folder) if asked is None else asked
        for name in names:
            walk.remove(folder, name)
    finally:
        os.close(folder)
    if jobs is None:
        top = root.joinpath(*swarm)
        with contextlib.suppress(FileNotFoundError):
            top.rmdir()
        with contextlib.suppress(OSError):  # other swarms of the namespace live there
            top.parent.rmdir()
    return names


def remove_store(store: Path) -> None:
    """Remove a shared git store and its lock; one that is not there is fine. Raises: OSError."""
    try:
        folder = os.open(store.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        walk.remove(folder, store.name)
        walk.remove(folder, f"{store.name}.lock")
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)
