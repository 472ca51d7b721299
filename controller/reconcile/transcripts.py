"""Transcripts: what came out of outboxes, kept byte for byte beyond the worker's own life.

A transcript is a copy of its outbox with the same offsets, so its size says how far it was
copied; beside it stands the offset up to which every turn is settled in status, which is where
a restarted controller begins to read again.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from providers.base import RecordBatch

LOG = logging.getLogger(__name__)

TAIL_BYTES = 256 * 1024
_SEQ = re.compile(rb'^\{"seq":([0-9]{1,15}),', re.MULTILINE)


class Transcripts:
    """Files under ``<root>/<namespace>/<swarm>-<uid8>/<job>.jsonl``, mode 0600."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, int] = {}
        self._paths: dict[str, Path] = {}
        self._ends: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._unsaved: set[str] = set()

    def open(self, namespace: str, swarm: str, uid: str, job: str) -> int:
        """Begin a job's transcript; returns the settled offset, bytes."""
        folder = self._root / namespace / f"{swarm}-{uid[:8]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._paths[job] = folder / f"{job}.jsonl"
        settled = self._settled_of(self._paths[job])
        self._settled[job] = settled
        self._ends[job] = settled
        return settled

    def place(self, job: str) -> tuple[str, str]:
        """Namespace and swarm of a job whose transcript is open; empty if it is not."""
        path = self._paths.get(job)
        if path is None:
            return "", ""
        return path.parent.parent.name, path.parent.name.rpartition("-")[0]

    def last_seq(self, job: str) -> int:
        """The highest number of the last settled records; 0 if that cannot be told."""
        path, end = self._paths[job], self._settled[job]
        try:
            with path.open("rb") as file:
                file.seek(max(0, end - TAIL_BYTES))
                tail = file.read(min(end, TAIL_BYTES))
        except OSError:
            return 0
        return max((int(number) for number in _SEQ.findall(tail)), default=0)

    def recall(self, namespace: str, swarm: str, job: str) -> list[bytes]:
        """The lines of a job's transcript that were not settled, whoever wrote it."""
        uid = job.rsplit("-", 3)[-3] if job.count("-") >= 3 else ""
        path = self._root / namespace / f"{swarm}-{uid}" / f"{job}.jsonl"
        try:
            with path.open("rb") as file:
                file.seek(self._settled_of(path))
                return file.read().split(b"\n")
        except OSError:
            return []

    @staticmethod
    def _settled_of(path: Path) -> int:
        try:
            return max(0, int(path.with_suffix(".settled").read_text()))
        except (OSError, ValueError):
            return 0

    def append(self, batch: RecordBatch) -> None:
        """Copy a batch, or the part of it that is not there yet. Raises: OSError."""
        path = self._paths.get(batch.job)
        if path is None or not batch.lines:
            return
        handle = self._files.get(batch.job)
        if handle is None:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._files[batch.job] = handle
        data = b"\n".join(batch.lines) + b"\n"
        begin = batch.end - len(data)
        size = os.fstat(handle).st_size
        if begin > size:  # lines that were no records were left out
            data = b"\n" * (begin - size) + data
            begin = size
        rest = memoryview(data)[max(0, size - begin) :] if batch.end > size else memoryview(b"")
        while rest:
            written = os.pwrite(handle, rest, size)
            rest, size = rest[written:], size + written
        self._ends[batch.job] = max(self._ends.get(batch.job, 0), batch.end)

    def end(self, job: str) -> int:
        """How far a job's outbox has been read, bytes."""
        return self._ends.get(job, 0)

    def settle(self, job: str, end: int) -> None:
        """All turns up to ``end`` are in status: a restart need not read them again.

        Noted by the next ``flush``; losing the note only makes a restart read more.
        """
        if job in self._paths and end > self._settled.get(job, 0):
            self._settled[job] = end
            self._unsaved.add(job)

    def flush(self) -> None:
        """Save how far each job's turns are settled; what cannot be saved now is tried again."""
        for job in list(self._unsaved):
            path = self._paths.get(job)
            try:
                if path is not None:
                    path.with_suffix(".settled").write_text(str(self._settled[job]))
            except OSError as error:
                LOG.warning("%s: %s", path, error)
                return
            self._unsaved.discard(job)

    def close(self, job: str) -> None:
        """A job is gone; its transcript stays."""
        self.flush()
        handle = self._files.pop(job, None)
        if handle is not None:
            os.close(handle)
        self._unsaved.discard(job)
        self._paths.pop(job, None)
        self._ends.pop(job, None)
        self._settled.pop(job, None)

    def close_all(self) -> None:
        """Close every file."""
        for job in list(self._paths):
            self.close(job)
