"""A limit on what runs at a time on one connection; whoever is beyond it waits for its turn."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slot:
    """The right to one session, given back once."""

    def __init__(self, slots: Slots, unused: Callable[[], None]) -> None:
        self._slots: Slots | None = slots
        self._unused = unused

    def release(self) -> None:
        """Give it back; again does nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()
            if not slots.used:
                self._unused()


class Slots:
    """So many at a time, first come, first served."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.used = 0

    async def take(self, unused: Callable[[], None]) -> Slot:
        """Wait for a slot; ``unused`` is called when it is given back and none is used."""
        if self.used < self._limit and not self._waiting:
            self.used += 1
            return Slot(self, unused)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled():
                self.give_back()  # it had just become ours
            raise
        return Slot(self, unused)

    def give_back(self) -> None:
        """One slot is free again."""
        self.used -= 1
        self._grant()

    def shrink(self) -> None:
        """The other side does not take more than are used now: only one more tries it at a time.

        Not fewer: a session that has just ended may still have counted there.
        """
        self._limit = max(2, min(self._limit, self.used + 1))

    def reset(self) -> None:
        """Another connection: nothing is known of its limit."""
        self._limit = self._most
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self.used < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.used += 1
                turn.set_result(None)
