"""A Slurm cluster as a place for workers: launched under a lock, seen, ended, removed.

One per login host, user and ``workspaceRoot``.  A worker is found again by its name and its
comment, which hold the swarm's uid; a job's id alone is never trusted.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from providers.base import (
    JobState,
    JobStatus,
    LaunchRequest,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from providers.slurm_client import SlurmClient
from providers.slurm_host import Folder, SlurmHost
from providers.slurm_launch import SlurmLaunch, at_once
from providers.slurm_query import Queued
from providers.slurm_queue import Queue
from providers.slurm_view import FORGOTTEN, Signs, View, judge

_LOG = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
LIVELY_SECONDS = 3.0
"""A worker whose job is completing still works if its heart has beaten so lately."""
SETTLE_SECONDS = 15.0
"""How long a removal waits for jobs that are about to be gone."""
CANCEL_AGAIN_SECONDS = 10.0
"""Between two cancellations of a job in the same way: Slurm itself follows TERM up by KILL."""
_RECENT = 60.0
"""A heartbeat of a worker that was never looked at before is no older than this, in seconds by
clocks that may differ a little, if it lives."""


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
        least: seconds for which a look at a swarm's folders is good enough.
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
        least: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.queue = queue
        self._client = client
        self._epoch = epoch
        self._left = left
        self._beat_seconds = beat_seconds
        self._least = least
        self._clock = clock
        self._listed: dict[str, tuple[float, list[Folder]]] = {}
        """By swarm uid: its folders, and when they were looked at."""
        self._cancelled: dict[tuple[int, str, bool], float] = {}
        """By id, token and force: when jobs were cancelled last."""
        self._noticed: dict[str, dict[str, _Noticed]] = {}
        """By swarm uid and worker."""
        self._launch = SlurmLaunch(host, client, queue, clock)

    async def launch(self, swarm: SwarmHandle, requests: Sequence[LaunchRequest]) -> None:
        """Submit workers that were not submitted yet.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        await self._launch.launch(swarm, requests)

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
        folders = {folder.job: folder for folder in await self._folders(swarm, fresh=fresh)}
        noticed = self._notice(swarm, folders)
        snapshot = await self.queue.look(fresh=fresh)
        there = snapshot.of(swarm.uid)
        self._launch.seen(there)
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
                    lively=now - seen.beat_at < LIVELY_SECONDS,
                    newer=claimed is None or snapshot.begun >= claimed,
                    ended=seen.ended or "",
                )
            views[job] = judge(folders.get(job), there.get(job, ()), job, signs)
        return views

    async def _folders(self, swarm: SwarmHandle, *, fresh: bool) -> list[Folder]:
        """The swarm's folders; workers that come or go are asked for several times a second."""
        now = self._clock()
        listed = self._listed.get(swarm.uid)
        if fresh or listed is None or now - listed[0] >= self._least:
            listed = self._listed[swarm.uid] = (now, await self.host.folders(swarm))
        return listed[1]

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
        """End workers: their jobs are cancelled, and no later one becomes them; those without a
        job are told to leave.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        views, there = await self._views(swarm), (await self.queue.look()).of(swarm.uid)
        ended = [job for job in jobs if _has_ended(views.get(job), there.get(job, ()))]
        # Before the queue is looked at for the last time: what it does not show yet, or any more,
        # begins in vain.
        await self._shut(swarm, jobs, ended)
        if len(ended) < len(jobs):
            views = await self._views(swarm, fresh=True)
            there = (await self.queue.look()).of(swarm.uid)
        alive = [
            one
            for job in jobs
            for one in there.get(job, ())
            if not _gone(one) or (force and one.standing.completing)
        ]
        await self._cancel(alive, force=force)
        for job in jobs:
            view = views.get(job)
            if view is not None and view.status is not None and view.status.reason == FORGOTTEN:
                await self._tell_to_leave(swarm, job)

    async def _shut(
        self, swarm: SwarmHandle, jobs: Collection[str], ended: Collection[str]
    ) -> None:
        """Where a full disk does not let us, no job can claim a folder either.

        Raises: ProviderUnreachable, OutcomeUnknown.
        """
        try:
            await self.host.shut(swarm, jobs, ended)
        except (ProviderUnreachable, OutcomeUnknown):
            raise
        except ProviderError as error:
            _LOG.warning("%s: %s", self.host.name, error)

    async def _tell_to_leave(self, swarm: SwarmHandle, job: str) -> None:
        """A worker whose job Slurm has forgotten hears of its end by its mailbox alone."""
        number = job.rpartition("-")[0].rpartition("-")[2]
        record = {"type": "control", "epoch": self._epoch, "payload": {"action": "shutdown"}}
        index = int(number) if number.isascii() and number.isdigit() else 0
        await self.host.deliver(swarm, job, index, record, {})

    async def _cancel(self, jobs: Sequence[Queued], *, force: bool) -> None:
        since = self._clock() - CANCEL_AGAIN_SECONDS
        self._cancelled = {key: at for key, at in self._cancelled.items() if at > since}
        due = [one for one in jobs if (one.id, one.token, force) not in self._cancelled]
        if due:
            try:
                await at_once(self._cancel_one(one, force=force) for one in due)
            finally:
                self.queue.wish()

    async def _cancel_one(self, one: Queued, *, force: bool) -> None:
        await self._client.cancel(one, force=force)
        self._cancelled[one.id, one.token, force] = self._clock()

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
            self._listed.pop(swarm.uid, None)
            if jobs is not None:
                await self.host.remove(swarm, jobs)
                self._listed.pop(swarm.uid, None)
        if jobs is None:
            await self.host.remove(swarm, None)
            self._noticed.pop(swarm.uid, None)
            self._listed.pop(swarm.uid, None)


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
