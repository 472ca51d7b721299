"""Workers submitted to Slurm: once each, under a lock, never more than there can be room for."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from providers.base import (
    JobState,
    LaunchRequest,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from providers.remote_launch import job_files
from providers.slurm_check import chosen, too_small
from providers.slurm_client import SlurmClient
from providers.slurm_host import Folder, Place, SlurmHost
from providers.slurm_query import Partition, Queued, room
from providers.slurm_queue import Queue
from providers.slurm_state import Standing
from providers.slurm_submit import Submission, wanted
from providers.slurm_view import live

T = TypeVar("T")

UNSEEN, UNSEEN_SECONDS = 3, 600.0
"""So often within so long is a worker submitted whose job then cannot be seen: slurmctld may have
lost it, or be slow."""
PARALLEL = 4
"""Commands at a time: Slurm itself takes them one by one."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 120.0
"""Seconds between two submissions of what sbatch refused; the pause doubles."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """sbatch turned a swarm's jobs down."""

    parameters: Mapping[str, Any]
    """What was asked for."""
    error: ProviderError
    until: float
    """It is not asked again before; our clock."""
    pause: float

    def holds(self, swarm: SwarmHandle, now: float) -> bool:
        """Whether the same need not be asked now."""
        return now < self.until and self.parameters == swarm.parameters


class SlurmLaunch:
    """Launches on one cluster.

    Args:
        host: the login host.
        client: Slurm's commands there.
        queue: looks at the queue.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        host: SlurmHost,
        client: SlurmClient,
        queue: Queue,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._host = host
        self._client = client
        self._queue = queue
        self._unseen: dict[str, list[float]] = {}
        """When workers were submitted that no look at the queue has shown since; our clock."""
        self._refused: dict[str, _Refusal] = {}
        """By swarm uid."""

    def seen(self, there: Mapping[str, Sequence[Queued]]) -> None:
        """A look at the queue has shown these workers' jobs."""
        for job in [job for job in self._unseen if job in there]:
            if any(one.cpus for one in there[job]):  # not merely noted by ourselves
                del self._unseen[job]

    async def launch(self, swarm: SwarmHandle, requests: Sequence[LaunchRequest]) -> None:
        """Submit workers that were not submitted yet.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        want = wanted(swarm.parameters)
        place = await self._host.place()
        known = {folder.job: folder for folder in await self._host.folders(swarm)}
        there = (await self._queue.look()).of(swarm.uid)
        todo = {
            r.job: r for r in requests if r.job not in there and not _taken_up(known.get(r.job))
        }
        if not todo:
            return
        refusal = self._refused.get(swarm.uid)
        if refusal is not None and refusal.holds(swarm, self._clock()):
            raise ProviderError(refusal.error.reason, str(refusal.error))
        partitions = chosen(want, await self._client.partitions())
        alive = _alive(there)
        holds = await self._holds(partitions, alive)
        if holds is not None and len(alive) >= holds:
            raise too_small(partitions, holds, len(alive) + len(todo), _like(alive))
        tools = await self._host.tools(swarm.parameters)
        folders = dict(zip(todo, await self._make_all(place, todo.values()), strict=True))
        async with self._host.locked(swarm) as lock:
            there = (await self._queue.look(fresh=True)).of(swarm.uid)
            self.seen(there)
            new = [
                Submission(
                    uid=swarm.uid,
                    job=job,
                    index=one.index,
                    token=secrets.token_hex(4),
                    folder=folders[job],
                    worker=place.worker,
                    wanted=want,
                    path=tools.path,
                    python=tools.python,
                )
                for job, one in todo.items()
                if job not in there
            ]
            if new:
                await self._submit_all(swarm, new, lock, partitions)
                self._refused.pop(swarm.uid, None)

    async def _make_all(self, place: Place, requests: Iterable[LaunchRequest]) -> list[str]:
        """The workers' folders."""
        return await at_once(self._make(place, request) for request in requests)

    async def _make(self, place: Place, request: LaunchRequest) -> str:
        files = job_files(place.root, request)
        return await self._host.make_job(request.swarm, request.job, request.index, files)

    async def _submit_all(
        self,
        swarm: SwarmHandle,
        new: Sequence[Submission],
        lock: str,
        partitions: Sequence[Partition],
    ) -> None:
        """Submit the first, see what its like takes, then as many as there can ever be room for.

        Raises: ProviderError of the first that failed; those after it were not tried.
        """
        rest = list(new)
        alive = _alive((await self._queue.look()).of(swarm.uid))
        if not alive:
            await self._submit(swarm, rest.pop(0), lock, partitions)
            if not rest:
                return
            alive = _alive((await self._queue.look(fresh=True)).of(swarm.uid))
        holds = await self._holds(partitions, alive)
        wanted_now = len(alive) + len(rest)
        now = rest if holds is None else rest[: max(0, holds - len(alive))]
        await at_once(self._submit(swarm, one, lock, partitions) for one in now)
        if holds is not None and wanted_now > holds:
            raise too_small(partitions, holds, wanted_now, _like(alive))

    async def _holds(self, partitions: Sequence[Partition], alive: Sequence[Queued]) -> int | None:
        """How many workers like these there can ever be; None: that cannot be told."""
        like = _like(alive)
        if like is None:
            return None
        nodes = await self._client.nodes(partitions)
        return room(nodes, await self._client.facts(), partitions, like)

    def _refuse(self, swarm: SwarmHandle, error: ProviderError) -> None:
        """Have the same wish wait: each refused one is a job in Slurm's books as well."""
        before, now = self._refused.get(swarm.uid), self._clock()
        pause = FIRST_PAUSE
        if before is not None and before.parameters == swarm.parameters:
            # Those beside it in one launch are refused for the same reason, and count once.
            pause = before.pause if before.holds(swarm, now) else before.pause * 2
        pause = min(pause, LONGEST_PAUSE)
        self._refused[swarm.uid] = _Refusal(dict(swarm.parameters), error, now + pause, pause)

    async def _submit(
        self, swarm: SwarmHandle, one: Submission, lock: str, partitions: Sequence[Partition]
    ) -> None:
        since = self._clock() - UNSEEN_SECONDS
        unseen = [at for at in self._unseen.get(one.job, ()) if at > since]
        if len(unseen) >= UNSEEN:
            raise ProviderError(
                "SubmissionUnclear",
                f"{one.job} was submitted {len(unseen)} times, and squeue shows none of these jobs "
                f"to {self._host.name}: it is not submitted again for {UNSEEN_SECONDS / 60:.0f} "
                "min; look at `squeue -t all` there, and at slurmctld's log",
            )
        limit = partitions[0].default_time or partitions[0].max_time
        try:
            id = await self._client.submit(one, lock, limit)
        except ProviderError as error:
            if isinstance(error, OutcomeUnknown):
                self._unseen[one.job] = [*unseen, self._clock()]
            elif not isinstance(error, ProviderUnreachable):
                self._refuse(swarm, error)
            self._client.forget_partitions()
            self._queue.wish()
            raise
        self._unseen[one.job] = [*unseen, self._clock()]
        waits = Standing(JobState.PENDING, "Submitted")
        self._queue.note(Queued(id, one.uid, one.job, one.token, waits))


def _alive(there: Mapping[str, Sequence[Queued]]) -> list[Queued]:
    return [one for jobs in there.values() for one in jobs if live(one)]


def _like(alive: Sequence[Queued]) -> Queued | None:
    """The newest job of which it is known what Slurm made of the wish."""
    return next((one for one in reversed(alive) if one.cpus), None)


def _taken_up(folder: Folder | None) -> bool:
    """Whether a job has had its worker's folder: then no other is submitted for it."""
    return folder is not None and (folder.claim is not None or folder.begun)


async def at_once(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Make these calls, a few at a time, and none after one that failed.

    Raises: what the first that failed raised, once those beside it have ended.
    """
    waiting, done = list(calls), list[T]()
    while waiting:
        now, waiting = waiting[:PARALLEL], waiting[PARALLEL:]
        for result in await asyncio.gather(*now, return_exceptions=True):
            if isinstance(result, BaseException):
                for call in waiting:
                    if asyncio.iscoroutine(call):
                        call.close()
                raise result
            done.append(result)
    return done
