"""Transcripts as files, read for strangers: by checked names, without following any link.

On one machine agents run as the controller's own user and could plant anything below the root;
so every step down is opened relative to the one before, and only regular files are read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controller.domain.machine_logs import is_machine
from controller.http.inputs import is_folder, is_job

MAX_LISTED = 10_000
_DOWN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Listed:
    """One transcript."""

    folder: str
    """``<swarm>-<uid8>``."""
    job: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A transcript to be read; ``file`` is unbuffered and the caller's to close."""

    file: BinaryIO
    size: int
    """Bytes, as it was opened."""

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset``."""
        return os.pread(self.file.fileno(), limit, offset)


class TranscriptFiles:
    """What is below the folder of transcripts: ``<namespace>/<swarm>-<uid8>/<job>.jsonl``.

    All methods may wait for the disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def list(
        self, namespace: str, *, swarm: str | None = None, jobs: Collection[str] | None = None
    ) -> list[Listed]:
        """Transcripts of a namespace by folder and job, at most ``MAX_LISTED``.

        Args:
            swarm: only those of the newest Swarm of this name.
            jobs: only these.
        """
        found: list[Listed] = []
        with self._down(self._root, namespace) as space:
            if space is None:
                return found
            for folder in _folders(space, swarm):
                with self._down(folder, within=space) as inside:
                    if inside is not None:
                        found += _transcripts(inside, folder, jobs)
        return sorted(found, key=_order)[:MAX_LISTED]

    def open(self, namespace: str, folder: str, job: str) -> Opened | None:
        """A transcript by names that were checked before; None if there is none."""
        with self._down(self._root, namespace) as space:
            if space is None:
                return None
            with self._down(folder, within=space) as inside:
                if inside is None:
                    return None
                try:
                    handle = os.open(job + _SUFFIX, _READ, dir_fd=inside)
                except OSError:
                    return None
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            os.close(handle)
            return None
        return Opened(os.fdopen(handle, "rb", buffering=0), about.st_size)

    @contextmanager
    def _down(self, *parts: str | Path, within: int | None = None) -> Iterator[int | None]:
        """A folder's handle, or None; the root itself may be reached by a link."""
        handles: list[int] = []
        try:
            for part in parts:
                flags = _DOWN & ~os.O_NOFOLLOW if part is self._root else _DOWN
                try:
                    within = os.open(part, flags, dir_fd=within)
                except OSError:
                    yield None
                    return
                handles.append(within)
            yield within
        finally:
            for handle in handles:
                os.close(handle)


def _folders(space: int, swarm: str | None) -> list[str]:
    found = []
    with os.scandir(space) as entries:
        for entry in entries:
            if not is_folder(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            if swarm is None or entry.name[:-9] == swarm:
                with suppress(FileNotFoundError):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    found.sort()
    return [name for _, name in (found if swarm is None else found[-1:])]


def _transcripts(inside: int, folder: str, jobs: Collection[str] | None) -> Iterator[Listed]:
    with os.scandir(inside) as entries:
        for entry in entries:
            job = entry.name.removesuffix(_SUFFIX)
            if job == entry.name or not is_job(job) or (jobs is not None and job not in jobs):
                continue
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    yield Listed(folder, job, entry.stat(follow_symlinks=False).st_size)


def _order(listed: Listed) -> tuple[str, str, int, int]:
    if is_machine(listed.job):
        return listed.folder, listed.job, 0, 0
    swarm, index, incarnation = listed.job.rsplit("-", 2)
    return listed.folder, swarm, int(index), int(incarnation)
