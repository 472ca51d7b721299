"""Reading transcripts: what is there in the order of time, then what is added."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cli.client import Transcript

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a transcript."""

    job: str
    record: dict[str, Any]
    raw: bytes

    @property
    def at(self) -> float:
        """Seconds since the epoch, by the worker's clock."""
        ts = self.record.get("ts")
        return float(ts) if isinstance(ts, int | float) else 0.0

    @property
    def injection(self) -> str:
        """The turn that it belongs to; empty for the worker's own."""
        value = self.record.get("injection_id")
        return value if isinstance(value, str) else ""


Accept = Callable[[Line], bool]


class Tail:
    """One transcript, read from where the last read ended; torn lines wait for their end."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._offset = 0

    def read(self) -> Iterator[Line]:
        """Whole lines since the last call; what is no record is left out."""
        rest = b""
        while chunk := self._transcript.read(self._offset + len(rest), _CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                self._offset += len(raw) + 1
                line = self._parsed(raw)
                if line is not None:
                    yield line

    def _parsed(self, raw: bytes) -> Line | None:
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError):
            return None
        return Line(self._transcript.job, record, raw) if isinstance(record, dict) else None


class Reader:
    """Several transcripts as one stream; transcripts may be added at any time."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._tails: dict[str, Tail] = {}

    def add(self, transcripts: Iterable[Transcript]) -> None:
        """Take more transcripts in; known ones are left as they are."""
        for transcript in transcripts:
            if transcript.job not in self._tails:
                self._tails[transcript.job] = Tail(transcript)

    def read(self) -> Iterator[Line]:
        """What is new, merged by time (each transcript in its own order)."""
        streams = [filter(self._accept, tail.read()) for tail in self._tails.values()]
        return heapq.merge(*streams, key=lambda line: line.at)
