"""Times and lengths of time as kubectl prints them."""

from __future__ import annotations

from datetime import UTC, datetime


def parse(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time.

    Raises: ValueError.
    """
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


_UNITS = (
    # up to (seconds), large unit, small unit or none
    (120, (1, "s"), None),
    (600, (60, "m"), (1, "s")),
    (3 * 3600, (60, "m"), None),
    (8 * 3600, (3600, "h"), (60, "m")),
    (48 * 3600, (3600, "h"), None),
    (192 * 3600, (86400, "d"), (3600, "h")),
    (730 * 86400, (86400, "d"), None),
    (8 * 365 * 86400, (365 * 86400, "y"), (86400, "d")),
)


def human(seconds: float) -> str:
    """A length of time, as ``k8s.io/apimachinery/pkg/util/duration.HumanDuration`` writes it."""
    if seconds < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    for limit, (size, unit), small in _UNITS:
        if whole < limit:
            rest = whole % size // small[0] if small else 0
            return f"{whole // size}{unit}" + (f"{rest}{small[1]}" if small and rest else "")
    return f"{whole // (365 * 86400)}y"


def age(timestamp: str | None, now: float) -> str:
    """How long ago an RFC 3339 time was; ``<unknown>`` where there is none."""
    if not timestamp:
        return "<unknown>"
    try:
        return human(now - parse(timestamp))
    except ValueError:
        return "<invalid>"


def clock(seconds: float) -> str:
    """A time of day in this machine's zone, ``14:03:07``."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
