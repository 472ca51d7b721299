"""Time for the reconcilers: wall-clock stamps that never jump while the controller runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the reconcilers know of time."""

    def now(self) -> float:
        """Seconds since the epoch; only ever rises within one controller."""
        ...


class SystemClock:
    """The wall clock as it was at the start, carried on by the monotonic clock.

    Deadlines are kept in status as wall-clock stamps so that they survive a restart; a clock
    set forward or back while the controller runs must neither fire nor postpone them.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + time.monotonic()


def stamp(seconds: float) -> str:
    """RFC 3339 with microseconds, e.g. ``2026-01-02T03:04:05.000006Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(text: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 stamp; None for none or for one not readable."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
