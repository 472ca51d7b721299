"""Time for the reconcilers: wall-clock stamps that never jump while the controller runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol


class Clock(Protocol):
    """What the reconcilers know of time."""

    def now(self) -> float:
        """Seconds since the epoch; only ever rises within one controller."""
        ...

    def not_before(self, seconds: float) -> None:
        """Go on from here if the clock is behind: this time has been written down already."""
        ...


class SystemClock:
    """The wall clock as it was at the start, carried on by the monotonic clock.

    Deadlines are kept in status as wall-clock stamps so that they survive a restart; a clock
    set forward or back while the controller runs must neither fire nor postpone them.  One that
    was set back between two controllers goes on from the newest stamp (``newest_stamp``), so
    that nothing which is due in a second waits for an hour.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + time.monotonic()

    def not_before(self, seconds: float) -> None:
        """As ``Clock.not_before``."""
        self._offset = max(self._offset, seconds - time.monotonic())


def stamp(seconds: float) -> str:
    """RFC 3339 with microseconds, e.g. ``2026-01-02T03:04:05.000006Z``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def newest_stamp(obj: Mapping[str, Any]) -> float:
    """The latest time that an object's status says something happened at; 0 if it says none.

    Times that are still to come (``nextAttemptAt``) are not among them.
    """
    status = obj.get("status") or {}
    found = [c.get("lastTransitionTime") for c in status.get("conditions") or ()]
    for attempt in (status.get("attempts") or ())[-1:]:
        found += [attempt.get(name) for name in ("assignedAt", "startedAt", "finishedAt")]
        found.append((attempt.get("interrupt") or {}).get("at"))
    found += [worker.get("launchedAt") for worker in status.get("workers") or ()]
    found.append(status.get("terminatingSince"))
    found.append((status.get("quota") or {}).get("since"))
    # Stamps sort as texts: they are all written alike.
    return seconds_of(max(filter(None, found), default=None)) or 0.0


def seconds_of(text: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 stamp; None for none or for one not readable."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
