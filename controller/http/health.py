"""Is the controller alive, and is it ready: the figures behind the probes.

Liveness is a dead-man's switch.  It asks what stops when the controller is stuck: bytes from
watches, turns of the event loop, passes of the oldest key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

BEAT_SECONDS = 1.0

Ready = Callable[[], tuple[bool, str]]


@dataclass(frozen=True, slots=True)
class Limits:
    """From which age on something counts as stuck, seconds."""

    contact: float = 300.0
    lag: float = 10.0
    oldest: float = 120.0


@dataclass(frozen=True, slots=True)
class Report:
    """One look. Times in seconds; None where the home has nothing of the kind."""

    contact: float | None
    lag: float
    oldest: float
    stale: tuple[str, ...]
    """What is over its limit, in words; empty when all is well."""


class Heartbeat:
    """How late the event loop is, measured by a timer that should go off every second."""

    def __init__(self) -> None:
        self._due = 0.0
        self._late = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure, in the running event loop."""
        if self._timer is None:
            self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + BEAT_SECONDS
        self._timer = loop.call_at(self._due, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._late = max(0.0, loop.time() - self._due)
        self._arm(loop)

    def lag(self) -> float:
        """Seconds: how late the last beat was, or how late the next one is by now."""
        if self._timer is None:
            return 0.0
        return max(self._late, asyncio.get_running_loop().time() - self._due)


class Health:
    """What the probes ask. The callables may be set anew while the home comes up.

    Args:
        ready: whether the home converges, and if not, what it waits for.
        contact: seconds since the last byte of a watch or the last resync; None: has no watches.
        oldest: seconds that the longest-waiting key of the work queue has waited.
    """

    def __init__(
        self,
        ready: Ready,
        *,
        contact: Callable[[], float] | None = None,
        oldest: Callable[[], float] = lambda: 0.0,
        limits: Limits = Limits(),
    ) -> None:
        self.ready = ready
        self.contact = contact
        self.oldest = oldest
        self.limits = limits
        self.heartbeat = Heartbeat()

    def look(self) -> Report:
        """The figures now, and which of them are over their limits."""
        contact = self.contact() if self.contact is not None else None
        lag, oldest, limits = self.heartbeat.lag(), self.oldest(), self.limits
        stale = []
        if contact is not None and contact > limits.contact:
            stale.append(f"no word from the API server for {contact:.0f} s ({limits.contact:g})")
        if lag > limits.lag:
            stale.append(f"the event loop is {lag:.0f} s late ({limits.lag:g})")
        if oldest > limits.oldest:
            stale.append(f"the oldest key has waited {oldest:.0f} s ({limits.oldest:g})")
        return Report(contact, lag, oldest, tuple(stale))
