"""The inbox: each record taken once, in order, whatever else is in the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.accept import BadRecord, parse
from worker.mailbox import MAX_LINE_BYTES
from worker.records import ControlRecord, UserRecord

CHUNK_BYTES = 64 << 10


@dataclass(frozen=True)
class Fault:
    """A line that was passed over."""

    offset: int
    """Where it begins in the inbox, bytes."""
    message: str


@dataclass(frozen=True)
class Line:
    """One whole line without its newline; ``data`` is None if it was too long to keep."""

    offset: int
    data: bytes | None


class LineReader:
    """Whole lines of a growing file from its beginning; the rest waits for its newline."""

    def __init__(self, path: Path, limit: int = MAX_LINE_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._offset = 0  # of the next byte to read
        self._start = 0  # of the line that is being collected
        self._length = 0  # of what came of it
        self._part = bytearray()
        self._skipping = False

    def read(self) -> Iterator[Line]:
        """What is new since the last call.

        Raises: OSError; a missing file has simply no lines yet.
        """
        # Opened anew each time: on NFS that is what makes another host's writes visible.
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            if os.fstat(handle).st_size <= self._offset:
                return
            while True:
                chunk = os.pread(handle, CHUNK_BYTES, self._offset)
                if not chunk:
                    return
                self._offset += len(chunk)
                yield from self._split(chunk)
        finally:
            os.close(handle)

    def _split(self, chunk: bytes) -> Iterator[Line]:
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            self._keep(piece)
            line = Line(self._start, None if self._skipping else bytes(self._part))
            self._start += self._length + 1
            self._length = 0
            self._part.clear()
            self._skipping = False
            yield line
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        self._skipping = self._length > self._limit
        if self._skipping:
            self._part.clear()
        else:
            self._part += piece


class Inbox:
    """Accepted records of an inbox file.

    Args:
        path: the file; need not exist yet.
        accepted: injections that were accepted before (by an earlier process of this job).
        reported: offsets of lines that were reported before.
        limit: longest line, bytes.
    """

    def __init__(
        self,
        path: Path,
        accepted: set[str],
        reported: set[int],
        limit: int = MAX_LINE_BYTES,
    ) -> None:
        self._lines = LineReader(path, limit)
        self._limit = limit
        self._accepted = accepted
        self._reported = reported
        self._epoch = 0

    def read(self) -> Iterator[UserRecord | ControlRecord | Fault]:
        """New records and faults, in file order.

        A user record counts as accepted when it is yielded. Ignored without a word: records of
        a lower epoch than one seen before, injections accepted before, empty lines.

        Raises: OSError.
        """
        for line in self._lines.read():
            if line.data is None:
                yield from self._fault(line.offset, f"longer than {self._limit} bytes")
            elif line.data.strip():
                yield from self._record(line.offset, line.data)

    def _record(self, offset: int, data: bytes) -> Iterator[UserRecord | ControlRecord | Fault]:
        try:
            record = parse(data)
        except BadRecord as error:
            yield from self._fault(offset, str(error))
            return
        if record["epoch"] < self._epoch:
            return
        self._epoch = record["epoch"]
        if record["type"] == "user":
            if record["injection_id"] in self._accepted:
                return
            self._accepted.add(record["injection_id"])
        yield record

    def _fault(self, offset: int, message: str) -> Iterator[Fault]:
        if offset not in self._reported:
            self._reported.add(offset)
            yield Fault(offset, f"inbox line at byte {offset} skipped: {message}")
