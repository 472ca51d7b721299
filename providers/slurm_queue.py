"""One look at a cluster's queue, shared by all swarms that have workers there.

However many swarms and workers there are, squeue runs once per interval, and never more often
than once a second; whoever needs a look that is newer than his own doings waits for the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from providers.base import ProviderError
from providers.slurm_query import Queued

Ask = Callable[[], Awaitable[list[Queued]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The jobs of ours that slurmctld knew at one time."""

    begun: float
    """When it was asked for."""
    jobs: Mapping[tuple[str, str], tuple[Queued, ...]] = field(default_factory=dict)
    """By swarm uid and worker; several for a worker that was submitted more than once."""

    def of(self, uid: str) -> dict[str, tuple[Queued, ...]]:
        """The jobs of one swarm, by worker."""
        return {job: found for (owner, job), found in self.jobs.items() if owner == uid}


def grouped(found: Iterable[Queued]) -> dict[tuple[str, str], tuple[Queued, ...]]:
    """Jobs by swarm and worker, each worker's in the order of their submission."""
    groups: dict[tuple[str, str], list[Queued]] = defaultdict(list)
    for one in found:
        groups[one.uid, one.job].append(one)
    return {
        key: tuple(sorted(jobs, key=lambda one: (one.submitted, one.id)))
        for key, jobs in groups.items()
    }


class Queue:
    """The queue of one cluster as one user sees it.

    Args:
        ask: runs squeue. Raises: ProviderError.
        interval: seconds for which a look is good enough.
        least: seconds between two looks, at least.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        interval: float = 5.0,
        least: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._interval = interval
        self._least = least
        self._clock = clock
        self._last: Snapshot | None = None
        self._failed: tuple[float, ProviderError] | None = None
        self._begun = -1e9
        self._stale_at = -1e9
        self._flight: asyncio.Task[Snapshot] | None = None
        self._noted: dict[tuple[str, str], tuple[float, Queued]] = {}
        self.requests = 0
        """How many times squeue was run."""

    async def look(self, *, fresh: bool = False) -> Snapshot:
        """The queue.

        Args:
            fresh: it must have been asked for after this call began.

        Raises: ProviderError.
        """
        now = self._clock()
        if not fresh:
            if self._failed is not None and now - self._failed[0] < self._least:
                error = self._failed[1]
                raise type(error)(error.reason, str(error))
            if self._last is not None and not self._outdated(self._last, now):
                return self._with_noted(self._last)
        while True:
            flight = self._flight
            if flight is None or flight.done():
                flight = self._flight = asyncio.create_task(self._fetch())
            snapshot = await asyncio.shield(flight)
            if not fresh or snapshot.begun >= now:
                return self._with_noted(snapshot)

    def wish(self) -> None:
        """Something was changed: what was looked at before is not good enough any more."""
        self._stale_at = self._clock()

    def note(self, one: Queued) -> None:
        """A job that was just submitted: it counts as there until a later look tells."""
        self._noted[one.uid, one.job] = (self._clock(), one)
        self.wish()

    def _outdated(self, snapshot: Snapshot, now: float) -> bool:
        age = now - snapshot.begun
        return age >= self._interval or (snapshot.begun <= self._stale_at and age >= self._least)

    async def _fetch(self) -> Snapshot:
        pause = self._begun + self._least - self._clock()
        if pause > 0:
            await asyncio.sleep(pause)
        begun = self._begun = self._clock()
        self.requests += 1
        try:
            found = await self._ask()
        except ProviderError as error:
            self._failed = (self._clock(), error)
            raise
        self._failed = None
        self._noted = {key: item for key, item in self._noted.items() if item[0] >= begun}
        self._last = Snapshot(begun, grouped(found))
        return self._last

    def _with_noted(self, snapshot: Snapshot) -> Snapshot:
        missing = {key: (one,) for key, (_, one) in self._noted.items() if key not in snapshot.jobs}
        return Snapshot(snapshot.begun, {**snapshot.jobs, **missing}) if missing else snapshot
