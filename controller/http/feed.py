"""Live records for whoever listens: bounded for each listener, and free while nobody does."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_STREAMS = 64
MAX_WAITING = 2000
"""Records kept for one listener that does not take them; the oldest go first."""
MAX_WAITING_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Item:
    """One record, ready to be sent."""

    namespace: str
    swarm: str
    task: str
    """Name of the Task object; empty for what belongs to none."""
    text: bytes
    """JSON on one line."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a listener wants; None: any."""

    namespace: str
    swarm: str | None = None
    task: str | None = None

    def takes(self, item: Item) -> bool:
        """Whether an item is among it."""
        return (
            item.namespace == self.namespace
            and self.swarm in (None, item.swarm)
            and self.task in (None, item.task)
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What came since the last look."""

    texts: tuple[bytes, ...] = ()
    missed: int = 0
    """Records that came before these and were not kept."""
    closed: bool = False
    """Nothing more will come."""


class Listener:
    """One client's place in the feed."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._missed = 0
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, text: bytes) -> int:
        """Keep a record until it is taken; how many were given up for it."""
        self._waiting.append(text)
        self._bytes += len(text)
        before = self._missed
        while len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
            self._bytes -= len(self._waiting.popleft())
            self._missed += 1
        self._wake.set()
        return self._missed - before

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._wake.set()

    async def take(self, seconds: float) -> Taken:
        """What has come, as soon as there is something; nothing after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return Taken()
        self._wake.clear()
        taken = Taken(tuple(self._waiting), self._missed, self._closed)
        self._waiting.clear()
        self._bytes = self._missed = 0
        return taken


class Feed:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._closed = False
        self.missed = 0
        """Records that listeners were too slow for, since the start."""

    def __len__(self) -> int:
        return len(self._listeners)

    @property
    def full(self) -> bool:
        """Whether nobody else may listen."""
        return len(self._listeners) >= MAX_STREAMS

    def publish(self, item: Item) -> None:
        """Give a record to those who want it."""
        for listener in self._listeners:
            if listener.wanted.takes(item):
                self.missed += listener.offer(item.text)

    def listen(self, wanted: Filter) -> Listener:
        """Begin to listen; ``leave`` ends it."""
        listener = Listener(wanted)
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Listen no more."""
        self._listeners.discard(listener)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
