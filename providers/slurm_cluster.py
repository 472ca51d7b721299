"""A Slurm cluster as a place for workers: launched under a lock, seen, ended, removed.

One per login host, user and ``workspaceRoot``.  A worker is found again by its name and its
comment, which hold the swarm's uid; a job's id alone is never trusted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from providers.base import (
    JobState,
    JobStatus,
    LaunchRequest,
    ProviderError,
    SwarmHandle,
)
from providers.slurm_check import chosen, too_small
from providers.slurm_client import SlurmClient
from providers.slurm_host import Folder, Place, SlurmHost
from providers.slurm_query import Partition, Queued, room
from providers.slurm_queue import Queue
from providers.slurm_state import Standing
from providers.slurm_submit import Submission, wanted
from providers.slurm_view import FORGOTTEN, Signs, View, judge, live

_LOG = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
SETTLE_SECONDS = 15.0
"""How long a removal waits for jobs that are about to be gone."""
UNSEEN = 3
"""So often is a worker submitted whose job then cannot be seen: slurmctld may have lost it once."""
PARALLEL = 4
"""Commands of one launch or stop at a time: Slurm itself takes them one by one."""
_RECENT = 60.0
"""A heartbeat of a worker that was never looked at before is no older than this, in seconds by
clocks that may differ a little, if it lives."""
POLL_SECONDS = 0.25
"""Between a worker's looks at its inbox: no FIFO works across a shared file system."""


@dataclass(slots=True)
class _Noticed:
    """What was noticed of one worker over time."""

    beat: float | None
    beat_at: float
    """When it was seen to change; our clock."""
    claimed_at: float | None = None
    """When its claim was first seen."""
    ended: str | None = None
    """What accounting said; None: not asked yet."""


class SlurmCluster:
    """One cluster.

    Args:
        host: the login host.
        client: Slurm's commands there.
        queue: looks at the queue; those of one host and user share it.
        epoch: of this controller, for what it says to workers.
        left: seconds for which we may still act.
        beat_seconds: a worker that Slurm does not know counts as alive while its heart has beaten
            so lately.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        host: SlurmHost,
        client: SlurmClient,
        queue: Queue,
        *,
        epoch: int = 0,
        left: Callable[[], float] = lambda: math.inf,
        beat_seconds: float = BEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.queue = queue
        self._client = client
        self._epoch = epoch
        self._left = left
        self._beat_seconds = beat_seconds
        self._clock = clock
        self._noticed: dict[str, dict[str, _Noticed]] = {}
        """By swarm uid and worker."""
        self._unseen: dict[str, int] = {}
        """Submissions of workers that no look at the queue has shown since."""
        self._limit = asyncio.Semaphore(PARALLEL)

    # --- launching ---------------------------------------------------------------------------

    async def launch(self, swarm: SwarmHandle, requests: Sequence[LaunchRequest]) -> None:
        """Submit workers that were not submitted yet.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        want = wanted(swarm.parameters)
        place = await self.host.place()
        known = {folder.job: folder for folder in await self.host.folders(swarm)}
        there = (await self.queue.look()).of(swarm.uid)
        todo = {
            r.job: r for r in requests if r.job not in there and not _taken_up(known.get(r.job))
        }
        if not todo:
            return
        partitions = chosen(want, await self._client.partitions())
        tools = await self.host.tools(swarm.parameters)
        folders = {job: await self._make(place, request) for job, request in todo.items()}
        async with self.host.locked(swarm) as lock:
            there = (await self.queue.look(fresh=True)).of(swarm.uid)
            missing = [one for job, one in todo.items() if job not in there]
            new = [
                Submission(
                    uid=swarm.uid,
                    job=one.job,
                    index=one.index,
                    token=secrets.token_hex(4),
                    folder=folders[one.job],
                    worker=place.worker,
                    wanted=want,
                    path=tools.path,
                    python=tools.python,
                )
                for one in missing
            ]
            await self._submit_all(swarm, new, lock, partitions)

    async def _make(self, place: Place, request: LaunchRequest) -> str:
        identity = {
            "job": request.job,
            "index": request.index,
            "namespace": request.swarm.namespace,
            "swarm": request.swarm.name,
            "swarm_uid": request.swarm.uid,
            "stores": f"{place.root}/stores",
            "hint": None,
            "pollSeconds": POLL_SECONDS,
        }
        chosen = {name: value for name, value in request.config.items() if value is not None}
        files = {
            "env": json.dumps(dict(request.env)),
            "worker.json": json.dumps({**chosen, **identity}),
        }
        async with self._limit:
            return await self.host.make_job(request.swarm, request.job, request.index, files)

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
        if not new:
            return
        there = (await self.queue.look()).of(swarm.uid)
        alive = [one for jobs in there.values() for one in jobs if live(one)]
        rest = list(new)
        if not alive:
            await self._submit(rest.pop(0), lock, partitions)
            if not rest:
                return
            there = (await self.queue.look(fresh=True)).of(swarm.uid)
            alive = [one for jobs in there.values() for one in jobs if live(one)]
        like = next((one for one in reversed(alive) if one.cpus), None)
        holds = None
        if like is not None:
            facts, nodes = await self._client.facts(), await self._client.nodes(partitions)
            holds = room(nodes, facts, partitions, like)
        short = holds is not None and len(alive) + len(rest) > holds
        now = rest[: max(0, (holds or 0) - len(alive))] if short else rest
        for at in range(0, len(now), PARALLEL):
            await _all(self._submit(one, lock, partitions) for one in now[at : at + PARALLEL])
        if short and like is not None:
            raise too_small(partitions, holds or 0, len(alive) + len(rest), like.cpus)

    async def _submit(self, one: Submission, lock: str, partitions: Sequence[Partition]) -> None:
        unseen = self._unseen.get(one.job, 0)
        if unseen >= UNSEEN:
            raise ProviderError(
                "SubmissionUnclear",
                f"{one.job} was submitted {unseen} times, and squeue shows none of these jobs to "
                f"{self.host.name}: nothing more is submitted; look at `squeue -t all`, and start "
                "the controller anew when they can be seen there",
            )
        self._unseen[one.job] = unseen + 1
        limit = partitions[0].default_time or partitions[0].max_time
        try:
            id = await self._client.submit(one, lock, limit)
        except ProviderError:
            self._client.forget_partitions()
            self.queue.wish()
            raise
        waits = Standing(JobState.PENDING, "Submitted")
        self.queue.note(Queued(id, one.uid, one.job, one.token, waits))

    # --- looking -----------------------------------------------------------------------------

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every worker that left a trace; what can never become one is cancelled.

        Raises: ProviderUnreachable.
        """
        views = await self._views(swarm)
        surplus = [one for view in views.values() for one in view.surplus]
        if surplus:
            await self._cancel_surplus(surplus)
        return [view.status for view in views.values() if view.status is not None]

    async def _views(self, swarm: SwarmHandle, *, fresh: bool = False) -> dict[str, View]:
        folders = {folder.job: folder for folder in await self.host.folders(swarm)}
        noticed = self._notice(swarm, folders)
        snapshot = await self.queue.look(fresh=fresh)
        there = snapshot.of(swarm.uid)
        for job in [job for job in self._unseen if job in there]:
            if any(one.cpus for one in there[job]):  # not merely noted by ourselves
                del self._unseen[job]
        await self._ask_accounting(folders, there, noticed)
        now = self._clock()
        views = {}
        for job in sorted({*folders, *there}):
            seen = noticed.get(job)
            signs = Signs()
            if seen is not None:
                claimed = seen.claimed_at
                signs = Signs(
                    beats=now - seen.beat_at < self._beat_seconds,
                    newer=claimed is None or snapshot.begun >= claimed,
                    ended=seen.ended or "",
                )
            views[job] = judge(folders.get(job), there.get(job, ()), job, signs)
        return views

    def _notice(self, swarm: SwarmHandle, folders: Mapping[str, Folder]) -> dict[str, _Noticed]:
        now, before = self._clock(), self._noticed.get(swarm.uid, {})
        noticed = {}
        for job, folder in folders.items():
            seen = before.get(job)
            if seen is None:
                fresh = folder.heartbeat is None or abs(time.time() - folder.heartbeat) < _RECENT
                seen = _Noticed(folder.heartbeat, now if fresh else now - self._beat_seconds)
            elif seen.beat != folder.heartbeat:
                seen.beat, seen.beat_at = folder.heartbeat, now
            if folder.claim is not None and seen.claimed_at is None:
                seen.claimed_at = now
            noticed[job] = seen
        if noticed:
            self._noticed[swarm.uid] = noticed
        else:
            self._noticed.pop(swarm.uid, None)
        return noticed

    async def _ask_accounting(
        self,
        folders: Mapping[str, Folder],
        there: Mapping[str, Sequence[Queued]],
        noticed: Mapping[str, _Noticed],
    ) -> None:
        """Learn, once, how jobs ended that slurmctld has forgotten."""
        names = {}
        for job, folder in folders.items():
            if folder.claim is None or job in there or noticed[job].ended is not None:
                continue
            number = folder.claim.partition(" ")[0]
            noticed[job].ended = ""
            if number.isascii() and number.isdigit() and len(number) <= 10:
                names[int(number)] = job
        for id, standing in (await self._client.ended(names)).items():
            if standing.state is JobState.ENDED:
                noticed[names[id]].ended = standing.reason

    async def _cancel_surplus(self, surplus: Sequence[Queued]) -> None:
        """Cancel jobs that would only find their worker's place taken."""
        if self._left() <= 0:
            return  # whoever may act sees them as well
        try:
            await self._cancel(surplus, force=False)
        except ProviderError as error:
            _LOG.info("%s: surplus jobs are left for the next look: %s", self.host.name, error)

    # --- ending ------------------------------------------------------------------------------

    async def stop(self, swarm: SwarmHandle, jobs: Collection[str], *, force: bool) -> None:
        """End workers: their jobs are cancelled; those without a job are told to leave.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        views, there = await self._views(swarm), (await self.queue.look()).of(swarm.uid)
        if any(not _has_ended(views.get(job), there.get(job, ())) for job in jobs):
            views = await self._views(swarm, fresh=True)
            there = (await self.queue.look()).of(swarm.uid)
        alive = [one for job in jobs for one in there.get(job, ()) if not _gone(one)]
        await self._cancel(alive, force=force)
        for job in jobs:
            view = views.get(job)
            if view is not None and view.status is not None and view.status.reason == FORGOTTEN:
                await self._tell_to_leave(swarm, job)

    async def _tell_to_leave(self, swarm: SwarmHandle, job: str) -> None:
        """A worker whose job Slurm has forgotten hears of its end by its mailbox alone."""
        number = job.rpartition("-")[0].rpartition("-")[2]
        record = {"type": "control", "epoch": self._epoch, "payload": {"action": "shutdown"}}
        index = int(number) if number.isascii() and number.isdigit() else 0
        await self.host.deliver(swarm, job, index, record, {})

    async def _cancel(self, jobs: Sequence[Queued], *, force: bool) -> None:
        async def one_of(one: Queued) -> None:
            async with self._limit:
                await self._client.cancel(one, force=force)

        if jobs:
            try:
                await _all(one_of(one) for one in jobs)
            finally:
                self.queue.wish()

    async def remove(self, swarm: SwarmHandle, jobs: Collection[str] | None) -> None:
        """Remove what ended workers left; waits a little for jobs that are about to be gone.

        Raises: ProviderError (``StillRunning``), ProviderUnreachable, OutcomeUnknown.
        """
        async with self.host.locked(swarm):
            until = self._clock() + SETTLE_SECONDS
            while True:
                views = await self._views(swarm, fresh=True)
                mine = {job: view for job, view in views.items() if jobs is None or job in jobs}
                alive = sorted(job for job, view in mine.items() if _alive(view))
                settling = sorted(job for job, view in mine.items() if view.settling)
                if alive or (settling and self._clock() >= until):
                    raise ProviderError(
                        "StillRunning", f"still running: {', '.join(alive or settling)}"
                    )
                if not settling:
                    break
            if jobs is not None:
                await self.host.remove(swarm, jobs)
        if jobs is None:
            await self.host.remove(swarm, None)
            self._noticed.pop(swarm.uid, None)


def _taken_up(folder: Folder | None) -> bool:
    """Whether a job has had its worker's folder: then no other is submitted for it."""
    return folder is not None and (folder.claim is not None or folder.begun)


def _gone(one: Queued) -> bool:
    return one.standing.state is JobState.ENDED


def _alive(view: View) -> bool:
    return bool(view.surplus) or (
        view.status is not None and view.status.state in (JobState.RUNNING, JobState.PENDING)
    )


def _has_ended(view: View | None, jobs: Sequence[Queued]) -> bool:
    """Whether there is surely nothing to end."""
    ended = view is not None and view.status is not None and view.status.state is JobState.ENDED
    return ended and all(_gone(one) for one in jobs)


async def _all(calls: Iterable[Awaitable[None]]) -> None:
    """Do all of these at once. Raises: what the first that failed raised, after all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
