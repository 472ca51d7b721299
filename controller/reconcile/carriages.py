"""Work that takes longer than a pass may: begun once for all who need it, its end wakes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from controller.store.base import Key

FAILED_SECONDS = 5.0
"""For so long all who ask get the last failure instead of another try."""
LANDED_SECONDS = 60.0
"""For so long a result waits for those who have asked for it."""
SLOW_SECONDS = 10.0
"""What takes longer is told of."""
BRIEF_SECONDS = 0.3
"""Most of it is quick: who asks waits so long for it."""


class NotYet(Exception):
    """It is still on its way; who asked is woken when it has come.

    Args:
        message: what is on its way, for people; empty as long as that is not worth a word.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "a repository is on its way")
        self.message = message


@dataclass(slots=True)
class _Carriage:
    """One that is under way, or has ended with a failure or a result."""

    began: float
    what: str
    askers: set[Key] = field(default_factory=set)
    ended: float | None = None
    failure: Exception | None = None
    result: str = ""
    task: asyncio.Task[None] | None = None

    def is_old_to(self, asker: Key) -> bool:
        """Whether it has ended well, and this asker did not wait for that."""
        return self.ended is not None and self.failure is None and asker not in self.askers


class Carriages:
    """All that are under way, by name.

    Args:
        wake: asks for a pass.
        tell: tells of one that took long (an object, a reason, a message).
    """

    def __init__(self, wake: Callable[[Key], None], tell: Callable[[Key, str, str], None]) -> None:
        self._wake = wake
        self._tell = tell
        self._all: dict[Hashable, _Carriage] = {}

    async def result(
        self,
        name: Hashable,
        what: str,
        work: Callable[[], Coroutine[Any, Any, str]],
        asker: Key,
    ) -> str:
        """What came of a carriage that this asker has waited for, that has failed a moment ago, or
        that begins now.

        Args:
            name: the same for those who want the same.
            what: is carried where, for people.
            work: carries it; whatever it raises is raised here, for all who ask.
            asker: is woken at the end.

        Raises: NotYet.
        """
        self._tidy()
        carriage = self._all.get(name)
        if carriage is None or carriage.is_old_to(asker):
            waiting = set(carriage.askers) if carriage is not None else set()
            carriage = self._all[name] = _Carriage(_now(), what, waiting)
            carriage.task = asyncio.get_running_loop().create_task(self._run(carriage, work()))
        carriage.askers.add(asker)
        if carriage.ended is None and carriage.task is not None:
            await asyncio.wait([carriage.task], timeout=BRIEF_SECONDS)
        if carriage.ended is None:
            slow = _now() - carriage.began > SLOW_SECONDS
            raise NotYet(f"carrying {what}" if slow else "")
        if carriage.failure is not None:
            raise carriage.failure
        carriage.askers.discard(asker)
        return carriage.result

    async def end(self, matches: Callable[[Hashable], bool] = lambda _: True) -> None:
        """Leave off what is under way."""
        names = [name for name in self._all if matches(name)]
        tasks = [task for name in names if (task := self._all.pop(name).task) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, carriage: _Carriage, work: Coroutine[Any, Any, str]) -> None:
        try:
            carriage.result = await work
        except Exception as error:
            carriage.failure = error
        carriage.ended = _now()
        took = carriage.ended - carriage.began
        for asker in sorted(carriage.askers):
            if took > SLOW_SECONDS and carriage.failure is None:
                self._tell(asker, "RepositoryCarried", f"{carriage.what}: {took:.0f} s")
            self._wake(asker)

    def _tidy(self) -> None:
        """Drop what has ended a while ago."""
        now = _now()
        for name, carriage in list(self._all.items()):
            kept = LANDED_SECONDS if carriage.failure is None else FAILED_SECONDS
            if carriage.ended is not None and now - carriage.ended > kept:
                del self._all[name]


def _now() -> float:
    return asyncio.get_running_loop().time()
