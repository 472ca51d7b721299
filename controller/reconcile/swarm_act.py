"""What a swarm's plan comes to: workers started, drained, stopped, and their folders removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.domain.fleet import Entry, FleetPlan
from controller.reconcile.context import Context
from controller.reconcile.swarm_spec import Launchable
from controller.store.base import Key, Resource
from providers.base import (
    InProgress,
    JobState,
    JobStatus,
    LaunchRequest,
    Provider,
    ProviderError,
    SwarmHandle,
)

KEEP_LOST = 5
"""Folders of lost workers that are kept until the swarm goes, for a person to look at."""
DRAIN_AGAIN_SECONDS = 10.0
WARN_AGAIN_SECONDS = 60.0
"""Between two events of one and the same refusal."""
FOLLOW_UP_SECONDS = 0.05


class Actor:
    """Acts on plans that are in status already."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._drained: dict[str, float] = {}
        self.trouble: dict[Key, ProviderError] = {}
        """Why a swarm's last launch failed; nothing once one has succeeded."""
        self._warned: dict[Key, tuple[tuple[str, str], float]] = {}

    def trouble_with(self, key: Key, plan: FleetPlan) -> ProviderError | None:
        """Why a swarm's last launch failed, or what it waits for, if it does."""
        if not plan.launch and isinstance(self.trouble.get(key), InProgress):
            del self.trouble[key]  # what was under way has come
        return self.trouble.get(key)

    def forget(self, jobs: Iterable[str]) -> None:
        """These workers are gone."""
        for job in jobs:
            self._drained.pop(job, None)

    async def act(
        self,
        obj: Resource,
        handle: SwarmHandle,
        provider: Provider,
        want: Launchable,
        *,
        plan: FleetPlan,
        jobs: Mapping[str, JobStatus],
    ) -> None:
        """Stop, remove, drain and launch, in this order. Raises: ProviderError."""
        for entry in plan.left:
            text = f"worker {entry.index} ({entry.job}): {entry.reason}; another one follows"
            self._ctx.event(obj, "WorkerLeft", text)
        for entry in plan.lost:
            told = f": {entry.message}" if entry.message else ""
            text = f"worker {entry.index} ({entry.job}): {entry.reason}{told}"
            self._ctx.event(obj, "WorkerLost", text, warning=True)
        ended = [e.job for e in plan.lost] + plan.drained
        extras = _extras(plan, jobs)
        if plan.kill or ended or extras.running:
            with contextlib.suppress(InProgress):  # the next look asks again
                await provider.stop(handle, [*plan.kill, *ended, *extras.running], force=True)
        settled = [j for j in plan.drained if j in jobs and j not in self._ctx.world.open_jobs]
        unseen = [j for j in ended if j not in jobs]  # what was made ready for them, if anything
        if settled or unseen or extras.old:
            with contextlib.suppress(InProgress):
                await provider.remove(handle, settled + unseen + extras.old)
        await self._drain(handle, provider, plan, jobs)
        if plan.launch:
            await self._launch(obj, handle, provider, want, plan)

    async def _drain(
        self,
        handle: SwarmHandle,
        provider: Provider,
        plan: FleetPlan,
        jobs: Mapping[str, JobStatus],
    ) -> None:
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": {"action": "drain"}}
        info = self._ctx.world.swarms.get(Key("Swarm", handle.namespace, handle.name))
        now = self._ctx.clock.now()
        for job in plan.drain:
            worker = info.workers.get(job) if info else None
            last = self._drained.get(job)
            if worker is None or not self._ctx.world.is_free(worker):
                continue  # it was given a task while this was decided: after that turn
            if last is None or now - last >= DRAIN_AGAIN_SECONDS:
                self._drained[job] = now
                if is_queued(jobs.get(job)):
                    await provider.stop(handle, [job], force=False)
                else:
                    await provider.deliver(handle, job, worker.index, record)

    async def _launch(
        self,
        obj: Resource,
        handle: SwarmHandle,
        provider: Provider,
        want: Launchable,
        plan: FleetPlan,
    ) -> None:
        key = Key("Swarm", handle.namespace, handle.name)
        try:
            await provider.launch([_request(obj, handle, want, e) for e in plan.launch])
        except ProviderError as error:
            self.trouble[key] = error
            if not isinstance(error, InProgress):
                self._warn(key, obj, error)
            return
        self.trouble.pop(key, None)
        self._warned.pop(key, None)
        self._ctx.queue.add(key, after=FOLLOW_UP_SECONDS)

    def _warn(self, key: Key, obj: Resource, error: ProviderError) -> None:
        """An event; not one for each time that a provider is asked in vain again."""
        now, text = self._ctx.clock.now(), (error.reason, str(error))
        said = self._warned.get(key)
        if said is None or said[0] != text or now - said[1] >= WARN_AGAIN_SECONDS:
            self._warned[key] = (text, now)
            self._ctx.event(obj, error.reason, str(error), warning=True)


def _request(obj: Resource, handle: SwarmHandle, want: Launchable, entry: Entry) -> LaunchRequest:
    config = {
        **want.worker_config,
        "job": entry.job,
        "index": entry.index,
        "namespace": handle.namespace,
        "swarm": handle.name,
        "swarm_uid": obj["metadata"]["uid"],
    }
    return LaunchRequest(
        swarm=handle, job=entry.job, index=entry.index, config=config, env=want.env
    )


def is_queued(status: JobStatus | None) -> bool:
    """Whether a worker has not begun: nobody is there to read that it is to leave."""
    return status is not None and status.state is JobState.PENDING


@dataclass(frozen=True, slots=True)
class Extras:
    """Jobs with a trace that the table does not know (any more)."""

    running: list[str]
    """To be stopped."""
    old: list[str]
    """To be removed: of those that ended all but the newest few."""


def _extras(plan: FleetPlan, jobs: Mapping[str, JobStatus]) -> Extras:
    known = {e.job for e in plan.entries} | set(plan.drained) | {e.job for e in plan.lost}
    unknown = [status for job, status in jobs.items() if job not in known]
    running = [s.job for s in unknown if s.state in (JobState.RUNNING, JobState.PENDING)]
    ended = sorted((s.job for s in unknown if s.state is JobState.ENDED), key=_incarnation)
    return Extras(running, ended[: max(0, len(ended) - KEEP_LOST)])


def _incarnation(job: str) -> int:
    """The number at the end of a job's name; 0 for a folder that somebody else made."""
    number = job.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 12 else 0
