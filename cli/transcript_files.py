"""Transcripts of a file home: which files belong to a swarm or a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_FOLDER = re.compile(r"^(?P<swarm>.+)-[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class TranscriptFile:
    """One file ``<root>/<namespace>/<swarm>-<uid8>/<job>.jsonl``."""

    path: Path

    @property
    def job(self) -> str:
        """Name of the job."""
        return self.path.stem

    def size(self) -> int:
        """Bytes so far; 0 when it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset``."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(limit)
        except FileNotFoundError:
            return b""


def order_of(job: str) -> tuple[str, int, int]:
    """Sort key of ``<swarm>-<uid8>-<index>-<incarnation>``: worker, then incarnation."""
    parts = job.rsplit("-", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return parts[0], int(parts[1]), int(parts[2])
    return job, 0, 0


def swarm_of(folder: str) -> str | None:
    """The swarm of a folder ``<swarm>-<uid8>``; None if it is none."""
    match = _FOLDER.match(folder)
    return match["swarm"] if match else None


def find(
    root: Path, namespace: str, *, swarm: str | None, jobs: Sequence[str] | None
) -> list[TranscriptFile]:
    """Files of a swarm (the newest of that name), of some jobs, or of a whole namespace."""
    folders = list(_folders(root, namespace, swarm))
    if swarm is not None:
        folders = folders[-1:]
    wanted = None if jobs is None else set(jobs)
    files = [
        TranscriptFile(path)
        for folder in folders
        for path in folder.glob("*.jsonl")
        if wanted is None or path.stem in wanted
    ]
    return sorted(files, key=lambda file: order_of(file.job))


def _folders(root: Path, namespace: str, swarm: str | None) -> Iterator[Path]:
    """Folders of a namespace, those that changed last at the end; names are never joined in."""
    try:
        space = next((p for p in root.iterdir() if p.name == namespace and p.is_dir()), None)
    except OSError:
        return
    if space is None:
        return
    found = []
    for path in space.iterdir():
        found_swarm = swarm_of(path.name)
        if found_swarm is not None and swarm in (None, found_swarm):
            found.append((path.stat().st_mtime_ns, path))
    yield from (path for _, path in sorted(found))
