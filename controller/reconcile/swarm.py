"""Swarm: converge the workers of one swarm, and take all of it away when it is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controller.domain.fleet import Entry, FleetPlan, Limits, plan_fleet
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.health import Heartbeats, look
from controller.reconcile.infos import WorkerInfo
from controller.reconcile.swarm_end import SwarmEnd
from controller.reconcile.swarm_spec import Launchable, Problem, resolve_swarm
from controller.reconcile.swarm_status import (
    FINALIZER,
    entries_of,
    handle_of,
    swarm_status,
)
from controller.resources.names import job_prefix
from controller.store.base import Key, Resource
from providers.base import JobStatus, LaunchRequest, Provider, ProviderError, ProviderUnreachable

LOOKS_PER_TIMEOUT = 6
"""Looks at heartbeats within one heartbeat timeout."""
UNKNOWN_AFTER_SECONDS = 120.0
KEEP_LOST = 5
"""Folders of lost workers that are kept until the swarm goes, for a person to look at."""


class SwarmReconciler:
    """One pass: resolve, observe, decide, write the intent, act."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._heartbeats = Heartbeats(ctx.clock)
        self._end = SwarmEnd(ctx)
        self._contact: dict[Key, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Swarm; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None:
            self._gone(key)
            return None
        provider_of = self._ctx.providers
        if "deletionTimestamp" in obj["metadata"]:
            self._retire(key)
            return await self._end.step(obj, provider_of)
        resolved = resolve_swarm(self._ctx, obj)
        if isinstance(resolved, Problem):
            return await self._refuse(obj, resolved)
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            obj["metadata"].setdefault("finalizers", []).append(FINALIZER)
            obj = await self._ctx.write(obj)
        return await self._converge(key, obj, resolved, provider_of[resolved.provider])

    # --- the way down ------------------------------------------------------------------------

    def _gone(self, key: Key) -> None:
        info = self._ctx.world.forget_swarm(key)
        for job in info.workers if info else ():
            self._let_go(job)
        self._ctx.wake_dispatch()
        for task in self._ctx.world.targeting(key):
            if not task.finished:
                self._ctx.queue.add(task.key)
        self._wake_orphans(list(self._ctx.world.open_jobs))

    def _retire(self, key: Key) -> None:
        info = self._ctx.world.swarms.get(key)
        if info is not None:
            for worker in info.workers.values():
                worker.ready = False

    def _let_go(self, job: str) -> None:
        self._ctx.turns.forget_worker(job)
        self._ctx.transcripts.close(job)
        self._heartbeats.forget(job)

    def _wake_orphans(self, jobs: Iterable[str]) -> None:
        """Tasks whose worker is gone want a pass."""
        for job in jobs:
            task = self._ctx.world.open_jobs.get(job)
            if task is not None:
                self._ctx.queue.add(task)

    # --- refusing --------------------------------------------------------------------------

    async def _refuse(self, obj: Resource, problem: Problem) -> float | None:
        """The world or the spec must be put right first; live workers are left as they are."""
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        writer.set("Accepted", False, problem.reason, problem.message)
        for type in ("Available", "Ready"):
            writer.set(type, False, problem.reason, problem.message)
        for type in ("ProviderReachable", "RolledOut", "QuotaAvailable", "WithinBudget"):
            if writer.missing(type):
                writer.set(type, None, "NotAccepted", "")
        status.update(
            observedGeneration=obj["metadata"]["generation"],
            conditions=writer.conditions,
            phase=status.get("phase") or "Pending",
            reason=problem.reason,
        )
        await self._ctx.write_status(obj, status)
        return 30.0

    # --- converging ------------------------------------------------------------------------

    async def _converge(
        self, key: Key, obj: Resource, want: Launchable, provider: Provider
    ) -> float | None:
        handle = handle_of(obj, want.parameters)
        try:
            jobs = {job.job: job for job in await provider.observe(handle)}
        except ProviderUnreachable as error:
            return await self._unreachable(key, obj, want, error)
        now = self._ctx.clock.now()
        self._contact[key] = now
        entries = entries_of(obj)
        self._attach(obj, provider, entries, jobs, want)
        plan = self._plan(obj, want, entries, jobs, now)
        for job in [e.job for e in plan.lost] + plan.drained:
            if job in jobs:
                await provider.flush(job)
        status = swarm_status(self._ctx, obj, want, plan, now)
        stored = await self._ctx.write_status(obj, status)
        self._publish(key, plan)
        await self._act(stored, provider, want, plan, jobs)
        return self._next_look(plan, want, now)

    def _plan(
        self,
        obj: Resource,
        want: Launchable,
        entries: list[Entry],
        jobs: Mapping[str, JobStatus],
        now: float,
    ) -> FleetPlan:
        status = obj.get("status") or {}
        seen = {
            job: look(self._ctx, want, job, jobs.get(job), self._heartbeats)
            for job in {e.job for e in entries}
            if job in jobs
        }
        return plan_fleet(
            desired=want.allowed,
            spec_hash=want.hash,
            entries=entries,
            seen=seen,
            limits=Limits(want.soft_timeout, want.hard_timeout),
            incarnations=status.get("incarnations", 0),
            launch_failures=status.get("launchFailures", 0),
            next_launch_at=seconds_of(status.get("nextLaunchAt")),
            prefix=job_prefix(obj["metadata"]["name"], obj["metadata"]["uid"]),
            now=now,
        )

    def _attach(
        self,
        obj: Resource,
        provider: Provider,
        entries: list[Entry],
        jobs: Mapping[str, JobStatus],
        want: Launchable,
    ) -> None:
        """Follow the outboxes of workers that are in the table (each once)."""
        for entry in entries:
            if entry.job in self._ctx.turns.workers or entry.job not in jobs:
                continue
            meta = obj["metadata"]
            settled = self._ctx.transcripts.open(
                meta["namespace"], meta["name"], meta["uid"], entry.job
            )
            facts = self._ctx.turns.worker(entry.job)
            facts.ready = entry.ready_at is not None
            begin = settled if facts.ready else 0
            provider.follow(handle_of(obj, want.parameters), entry.job, entry.index, begin)

    def _publish(self, key: Key, plan: FleetPlan) -> None:
        """Tell the world which workers may be given tasks."""
        info = self._ctx.world.swarms.get(key)
        if info is None:
            return
        before = info.workers
        info.workers = {}
        for entry in plan.entries:
            info.workers[entry.job] = WorkerInfo(
                swarm=key,
                index=entry.index,
                job=entry.job,
                ready=entry.phase in ("Idle", "Busy"),
            )
        first, info.observed = not info.observed, True
        gone = set(before) - set(info.workers)
        for job in gone:
            self._let_go(job)
        self._wake_orphans(list(self._ctx.world.open_jobs) if first else gone)
        if any(w.ready and not (j in before and before[j].ready) for j, w in info.workers.items()):
            self._ctx.wake_dispatch()

    async def _act(
        self,
        obj: Resource,
        provider: Provider,
        want: Launchable,
        plan: FleetPlan,
        jobs: Mapping[str, JobStatus],
    ) -> None:
        handle = handle_of(obj, want.parameters)
        for entry in plan.lost:
            self._ctx.event(
                obj, "WorkerLost", f"worker {entry.index} ({entry.job}): {entry.reason}",
                warning=True,
            )  # fmt: skip
        ended = [e.job for e in plan.lost] + plan.drained
        extras = self._extras(plan, jobs)
        if plan.kill or ended or extras.running:
            await provider.stop(handle, [*plan.kill, *ended, *extras.running], force=True)
        removable = [job for job in plan.drained if job in jobs] + extras.old
        if removable:
            await provider.remove(handle, removable)
        for job in plan.drain:
            index = next(e.index for e in plan.entries if e.job == job)
            record = {"type": "control", "epoch": self._ctx.epoch, "payload": {"action": "drain"}}
            await provider.deliver(handle, job, index, record)
        if plan.launch:
            await provider.launch([self._request(obj, want, e) for e in plan.launch])
            self._ctx.queue.add(Key("Swarm", handle.namespace, handle.name), after=0.05)

    def _extras(self, plan: FleetPlan, jobs: Mapping[str, JobStatus]) -> Extras:
        known = {e.job for e in plan.entries} | set(plan.drained) | {e.job for e in plan.lost}
        return Extras.of([job for name, job in jobs.items() if name not in known])

    def _request(self, obj: Resource, want: Launchable, entry: Entry) -> LaunchRequest:
        meta = obj["metadata"]
        config = {
            **want.worker_config,
            "job": entry.job,
            "index": entry.index,
            "namespace": meta["namespace"],
            "swarm": meta["name"],
            "swarm_uid": meta["uid"],
        }
        return LaunchRequest(
            swarm=handle_of(obj, want.parameters),
            job=entry.job,
            index=entry.index,
            config=config,
            env=want.env,
        )

    async def _unreachable(
        self, key: Key, obj: Resource, want: Launchable, error: ProviderError
    ) -> float:
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        writer.set("ProviderReachable", False, error.reason, str(error))
        since = self._contact.setdefault(key, self._ctx.clock.now())
        if self._ctx.clock.now() - since > UNKNOWN_AFTER_SECONDS:
            for type in ("Available", "Ready"):
                writer.set(type, None, "ProviderUnreachable", str(error))
        status["conditions"] = writer.conditions
        await self._ctx.write_status(obj, status)
        return 5.0

    @staticmethod
    def _next_look(plan: FleetPlan, want: Launchable, now: float) -> float:
        if any(e.phase in ("Launching", "Starting", "Draining", "Stopping") for e in plan.entries):
            return 0.25
        if plan.next_launch_at is not None and plan.next_launch_at > now:
            return min(2.0, plan.next_launch_at - now + 0.01)
        return want.heartbeat_timeout / LOOKS_PER_TIMEOUT


class Extras:
    """Jobs with a trace that the table does not know (any more)."""

    def __init__(self, running: list[str], old: list[str]) -> None:
        self.running, self.old = running, old

    @classmethod
    def of(cls, jobs: list[JobStatus]) -> Extras:
        """Those that run are stopped; of those that ended all but the newest few are removed."""
        running = [j.job for j in jobs if j.state in ("Running", "Pending")]
        ended = sorted(
            (j.job for j in jobs if j.state == "Ended"),
            key=lambda job: int(job.rsplit("-", 1)[-1]),
        )
        return cls(running, ended[: max(0, len(ended) - KEEP_LOST)])
