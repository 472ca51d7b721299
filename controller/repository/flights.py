"""One call for many askers: shared flights and a short memory of what they brought."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Flights(Generic[T]):
    """Calls by key; failures are shared and remembered like results.

    Args:
        max_age: seconds for which a result is good enough for ``recent``.
        keys: results that are remembered at most.
    """

    def __init__(self, *, max_age: float, keys: int = 1000) -> None:
        self._max_age = max_age
        self._keys = keys
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._waiting: dict[Hashable, asyncio.Task[T]] = {}
        self._landed: dict[Hashable, tuple[float, asyncio.Task[T]]] = {}

    async def recent(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that runs now or ended a moment ago, else of a new one."""
        landed = self._landed.get(key)
        now = asyncio.get_running_loop().time()
        if landed is not None and now - landed[0] <= self._max_age and not landed[1].cancelled():
            return landed[1].result()
        running = self._running.get(key)
        if running is not None:
            return await asyncio.shield(running)
        return await self.fresh(key, call)

    async def fresh(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call that begins after this one was made.

        Those who ask while a call is under way share the one after it.
        """
        flight = self._waiting.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, call))
            self._waiting[key] = flight
            flight.add_done_callback(_look)
        return await asyncio.shield(flight)

    def forget(self, matches: Callable[[Hashable], bool]) -> None:
        """Let ``recent`` look again for these keys, whatever is known or under way."""
        for key in [key for key in self._landed if matches(key)]:
            del self._landed[key]
        for key in [key for key in self._running if matches(key)]:
            del self._running[key]

    async def _fly(self, key: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        before = self._running.get(key)
        if before is not None:
            await asyncio.wait([before])
        me = self._waiting.pop(key)
        self._running[key] = me
        try:
            return await call()
        finally:
            if self._running.get(key) is me:
                del self._running[key]
                self._remember(key, me)

    def _remember(self, key: Hashable, flight: asyncio.Task[T]) -> None:
        self._landed.pop(key, None)
        self._landed[key] = (asyncio.get_running_loop().time(), flight)
        while len(self._landed) > self._keys:
            del self._landed[next(iter(self._landed))]


def _look(flight: asyncio.Task[T]) -> None:
    """Take note of a failure, so that asyncio does not report it where nobody waited for it."""
    if not flight.cancelled():
        flight.exception()
