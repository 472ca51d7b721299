"""One queue of keys for all reconcilers: each key once, never two passes of one key at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable

from controller.store.base import Key

Handler = Callable[[Key], Awaitable[float | None]]

PASSES = 128
"""Passes at a time: some may wait long for a remote, and must not keep the others waiting."""
LEISURELY = 2
"""Of them at most so many for keys without hurry, begun only while no other key is ready."""
FIRST_BACKOFF = 0.1
MAX_BACKOFF = 60.0


class WorkQueue:
    """Keys that want a pass, at once or later.

    A key added while its pass runs gets another pass after it; a later time never displaces
    an earlier one.  Failures back off by key, from 0.1 s doubling to 60 s.

    A wish without hurry is for what only people read.  Its key waits aside until nothing else is
    ready; the one asked for last comes first, since those before it may be over it by themselves.
    """

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._queued: dict[Key, float] = {}
        self._aside: dict[Key, float] = {}
        self._active: set[Key] = set()
        self._leisurely: set[Key] = set()
        self._again: set[Key] = set()
        self._later: list[tuple[float, int, Key, bool]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._serial = itertools.count()
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.waited: Callable[[Key, float], None] = lambda key, seconds: None
        """Told how long a key was ready before its pass (set by the manager)."""

    def add(self, key: Key, after: float = 0.0, *, leisurely: bool = False) -> None:
        """Ask for a pass of ``key`` in ``after`` seconds (0: as soon as possible).

        Args:
            leisurely: from then on there is no hurry.
        """
        if after > 0:
            self._add_later(key, after, leisurely)
            return
        self._due.pop(key, None)
        if key in self._active:
            self._again.add(key)
        elif key in self._queued or (leisurely and key in self._aside):
            return
        else:
            self._aside.pop(key, None)
            line = self._aside if leisurely else self._queued
            line[key] = asyncio.get_running_loop().time()
            if not leisurely:
                self._ready.append(key)
            self._wake.set()

    def _add_later(self, key: Key, after: float, leisurely: bool) -> None:
        if key in self._queued or key in self._again or (leisurely and key in self._aside):
            return
        at = asyncio.get_running_loop().time() + after
        due = self._due.get(key)
        if due is not None and due <= at:
            return
        self._due[key] = at
        heapq.heappush(self._later, (at, next(self._serial), key, leisurely))
        self._arm()

    def _arm(self) -> None:
        while self._later and self._due.get(self._later[0][2]) != self._later[0][0]:
            heapq.heappop(self._later)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._later[0][0], self._release)

    def _release(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() + 0.001
        while self._later and self._later[0][0] <= now:
            at, _, key, leisurely = heapq.heappop(self._later)
            if self._due.get(key) == at:
                self.add(key, leisurely=leisurely)
        self._arm()

    def oldest(self) -> float:
        """Seconds that the longest-waiting ready key has waited."""
        if not self._ready:
            return 0.0
        return asyncio.get_running_loop().time() - self._queued[self._ready[0]]

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def running(self) -> int:
        """Passes under way."""
        return len(self._active)

    @property
    def scheduled(self) -> int:
        """Keys that want a pass later."""
        return len(self._due)

    @property
    def busy(self) -> bool:
        """True while a pass runs or a key is ready."""
        return bool(self._ready or self._aside or self._active)

    async def run(self, handler: Handler, limit: int = PASSES) -> None:
        """Take keys for ever; ``handler`` returns seconds until it wants another pass, or None.

        An exception of the handler backs the key off; the handler reports it. At most ``limit``
        passes run at a time; when this is cancelled, they are.
        """
        running: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            self._wake.set()

        loop = asyncio.get_running_loop()
        try:
            while True:
                while (key := self._take() if len(running) < limit else None) is None:
                    self._wake.clear()
                    await self._wake.wait()
                task = loop.create_task(self._pass(key, handler))
                running.add(task)
                task.add_done_callback(ended)
        finally:
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _take(self) -> Key | None:
        if self._ready:
            key = self._ready.popleft()
            since = self._queued.pop(key)
        elif self._aside and len(self._leisurely) < LEISURELY:
            key, since = self._aside.popitem()
            self._leisurely.add(key)
        else:
            return None
        self.waited(key, asyncio.get_running_loop().time() - since)
        self._due.pop(key, None)  # this pass sees whatever that wish was for
        self._active.add(key)
        return key

    async def _pass(self, key: Key, handler: Handler) -> None:
        delay: float | None
        try:
            delay = await handler(key)
            self._failures.pop(key, None)
        except Exception:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            delay = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 20))
        finally:
            self._active.discard(key)
            self._leisurely.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif delay is not None:
            self.add(key, after=max(delay, 0.001))

    def close(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
