"""Swarm: converge the workers of one swarm, and take all of it away when it is deleted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.domain.fleet import COMING, LOST, Entry, FleetPlan, Limits, plan_fleet
from controller.reconcile.accounts import Accounts
from controller.reconcile.budget import halted, has_idled
from controller.reconcile.carriages import NotYet
from controller.reconcile.clock import seconds_of
from controller.reconcile.contact import CROWDED_SECONDS, Contact, Crowded
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.health import Heartbeats, look
from controller.reconcile.infos import wanted_retry
from controller.reconcile.outboxes import Outboxes
from controller.reconcile.places import leave, unsettled
from controller.reconcile.swarm_act import Actor
from controller.reconcile.swarm_credential import SwarmCredential
from controller.reconcile.swarm_end import SwarmEnd
from controller.reconcile.swarm_spec import (
    Launchable,
    Problem,
    allowed,
    held,
    place_of,
    placed_elsewhere,
    resolve_swarm,
)
from controller.reconcile.swarm_status import (
    FINALIZER,
    entries_of,
    progress,
    refusal,
    swarm_status,
)
from controller.resources.names import job_prefix
from controller.store.base import Key, Resource
from providers.base import (
    InProgress,
    JobState,
    JobStatus,
    Provider,
    ProviderError,
    SwarmHandle,
)

LOOKS_PER_TIMEOUT = 6
"""Looks at heartbeats within one heartbeat timeout."""
REFUSED_SECONDS = 30.0
SOON_SECONDS = 0.25
RETRY_SECONDS = 2.0


class SwarmReconciler:
    """One pass: resolve, observe, decide, write the intent, act."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._heartbeats = Heartbeats(ctx.clock)
        self._outboxes = Outboxes(ctx)
        self._actor = Actor(ctx)
        self._contacts = Contact(ctx, self._outboxes)
        self._accounts = Accounts(ctx)
        self._end = SwarmEnd(ctx, self._outboxes, self._contacts, self._accounts)
        self._credentials = SwarmCredential(ctx)
        self._contact: dict[Key, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Swarm; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None:
            self._contact.pop(key, None)
            self._actor.trouble.pop(key, None)
            self._forget(self._outboxes.gone(key))
            return None
        try:
            return await self._step(key, obj)
        except Crowded:
            return CROWDED_SECONDS

    async def _step(self, key: Key, obj: Resource) -> float | None:
        if "deletionTimestamp" in obj["metadata"]:
            return await self._end.step(obj, self._ctx.providers)
        resolved = resolve_swarm(self._ctx, obj)
        if isinstance(resolved, Problem):
            return await self._refuse(key, obj, resolved)
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            obj["metadata"].setdefault("finalizers", []).append(FINALIZER)
            obj = await self._ctx.write(obj)
        if placed_elsewhere(obj, resolved):
            return await self._move(key, obj, resolved)
        return await self._converge(key, obj, resolved)

    def _forget(self, jobs: list[str]) -> None:
        self._actor.forget(jobs)
        for job in jobs:
            self._heartbeats.forget(job)

    # --- refusing --------------------------------------------------------------------------

    async def _refuse(self, key: Key, obj: Resource, problem: Problem) -> float | None:
        """The world or the spec must be put right first; live workers are only minded."""
        want = held(self._ctx, obj)
        provider = self._ctx.providers.get(want.provider) if want is not None else None
        # Machines without a worker cost all the same, and end by themselves only if looked at.
        if want and provider and (entries_of(obj) or provider.rents):
            return await self._converge(key, obj, want, problem)
        await self._ctx.write_status(obj, refusal(self._ctx, obj, problem))
        return REFUSED_SECONDS

    # --- moving ------------------------------------------------------------------------------

    async def _move(self, key: Key, obj: Resource, want: Launchable) -> float | None:
        """Its workers shall live elsewhere: all leave the old place before the first at the new."""
        kind, old = place_of(self._ctx, obj)
        provider = self._ctx.providers.get(kind)
        if provider is None:
            return await self._converge(key, obj, want)
        if entries_of(obj):
            effective = {**want.effective, "provider": {kind: dict(old)}}
            there = replace(want, provider=kind, parameters=old, effective=effective, allowed=0)
            return await self._converge(key, obj, there)
        try:
            obj = await self._accounts.look(obj, provider, old)
            handle = self._ctx.handle_to(obj, old)
            jobs = await self._contacts.observe(provider, handle)
        except ProviderError as error:
            return await self._unreachable(key, obj, error)
        try:
            waits = await self._clear(key, handle, provider, jobs)
        except InProgress as error:
            return await self._moving(obj, error)
        obj = await self._accounts.look(obj, provider, old)
        return waits or await self._converge(key, obj, want)

    async def _clear(
        self, key: Key, handle: SwarmHandle, provider: Provider, jobs: list[JobStatus]
    ) -> float | None:
        """Leave a place; seconds until that can go on, or None. Raises: ProviderError."""
        alive = [j.job for j in jobs if j.state in (JobState.RUNNING, JobState.PENDING)]
        if alive:
            await provider.stop(handle, alive, force=True)
            return SOON_SECONDS
        if unsettled(self._ctx, key, provider):
            return RETRY_SECONDS  # by way of the new place it would not be found
        await provider.remove(handle)
        with contextlib.suppress(ProviderError, NotYet):  # the Project remembers the place
            await leave(self._ctx, key, handle, provider)
        return None

    async def _moving(self, obj: Resource, error: InProgress) -> float:
        """The old place is being left, which takes a while."""
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        for type in ("Available", "Ready"):
            writer.set(type, False, error.reason, str(error))
        status.update(conditions=writer.conditions, reason=error.reason, progress=progress(error))
        await self._ctx.write_status(obj, status)
        return RETRY_SECONDS

    # --- converging ------------------------------------------------------------------------

    async def _converge(
        self, key: Key, obj: Resource, want: Launchable, problem: Problem | None = None
    ) -> float | None:
        provider = self._ctx.providers[want.provider]
        try:
            obj = await self._accounts.look(obj, provider, want.parameters)
            handle = self._ctx.handle_to(obj, want.parameters)
            jobs = {job.job: job for job in await self._contacts.observe(provider, handle)}
            entries = entries_of(obj)
            self._outboxes.attach(obj, handle, provider, entries, jobs)
            await self._contacts.found(key, provider, jobs, now=self._ctx.clock.now())
        except ProviderError as error:
            return await self._unreachable(key, obj, error, problem)
        now = self._ctx.clock.now()
        for entry in entries:
            if entry.job in jobs and self._must_be_read(entry, jobs[entry.job], want, now):
                await provider.flush(entry.job)
        self._credentials.look(key, want, entries, jobs, accepted=problem is None)
        room = allowed(self._ctx, obj, want.provider)
        if provider.rents and has_idled(self._ctx.world, obj, now):
            room = 0
        want = replace(want, allowed=min(want.allowed, room))
        plan = self._plan(key, obj, want, entries, jobs, now=now, hold=problem is not None)
        self._outboxes.promise(key, want.provider, len(plan.entries))
        trouble = self._actor.trouble_with(key, plan)
        status = swarm_status(self._ctx, obj, want, plan, problem=problem, trouble=trouble)
        token = wanted_retry(obj)
        if token:
            status["observedRetry"] = token
        stored = await self._ctx.write_status(obj, status)
        self._contact[key] = now
        if token:
            self._ctx.event(obj, "RetryRequested", "a person asked to try again at once")
            self._credentials.lift(key)
        self._forget(self._outboxes.publish(key, plan.entries, spec_hash=want.hash))
        await self._actor.act(stored, handle, provider, want, plan=plan, jobs=jobs)
        await self._outboxes.end_strays(handle, provider)
        return self._next_look(key, plan, want, now)

    def _must_be_read(self, entry: Entry, job: JobStatus, want: Launchable, now: float) -> bool:
        """Whether what a worker has said so far decides what becomes of it now."""
        if job.state is JobState.ENDED:
            return entry.phase != LOST  # its last words say why
        # Nobody may have listened for long: it may have become ready in time.
        late = now - entry.launched_at > want.hard_timeout
        unheard = not self._ctx.turns.worker(entry.job).ready
        return job.state is JobState.RUNNING and entry.phase in COMING and late and unheard

    def _plan(
        self,
        key: Key,
        obj: Resource,
        want: Launchable,
        entries: list[Entry],
        jobs: Mapping[str, JobStatus],
        *,
        now: float,
        hold: bool,
    ) -> FleetPlan:
        status: dict[str, Any] = obj.get("status") or {}
        later = seconds_of(status.get("nextLaunchAt"))
        asked = bool(wanted_retry(obj))
        if asked or (key not in self._contact and any(e.phase == LOST for e in entries)):
            later = None  # a controller that was started anew may have what was missing
        wait_until, renew = self._credentials.launches(key, want, now, asked=asked)
        info = self._ctx.world.swarms.get(key)
        if want.begins_with_a_turn and info is not None and halted(self._ctx.world, info):
            wait_until = math.inf  # a budget that is raised asks for a pass
        seen = {
            entry.job: look(self._ctx, want, entry.job, jobs.get(entry.job), self._heartbeats)
            for entry in entries
            if entry.job in jobs
        }
        return plan_fleet(
            desired=want.allowed,
            spec_hash=want.hash,
            entries=entries,
            seen=seen,
            limits=Limits(want.soft_timeout, want.hard_timeout),
            incarnations=status.get("incarnations", 0),
            launch_failures=0 if asked else status.get("launchFailures", 0),
            next_launch_at=later,
            prefix=job_prefix(obj["metadata"]["name"], obj["metadata"]["uid"]),
            now=now,
            hold=hold,
            wait_until=wait_until,
            renew=renew,
        )

    async def _unreachable(
        self, key: Key, obj: Resource, error: ProviderError, problem: Problem | None = None
    ) -> float:
        """Nothing is known: what is in status stays, and after a while becomes Unknown."""
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        silence = self._contacts.lost(obj, error)
        if problem is None:
            writer.set("Accepted", True, "Accepted")
        else:
            writer.set("Accepted", False, problem.reason, problem.message)
        writer.set("ProviderReachable", False, error.reason, str(error))
        if silence.is_long(self._ctx.clock.now()):
            for type in ("Available", "Ready"):
                writer.set(type, None, "ProviderUnreachable", str(error))
        for type in ("Available", "RolledOut", "QuotaAvailable", "WithinBudget", "Ready"):
            if writer.missing(type):
                writer.set(type, None, "ProviderUnreachable", str(error))
        status.update(
            conditions=writer.conditions,
            observedGeneration=obj["metadata"]["generation"],
            phase=status.get("phase") or "Pending",
            reason=problem.reason if problem else error.reason,
        )
        status.setdefault("ready", f"0/{obj['spec'].get('replicas', 1)}")
        await self._ctx.write_status(obj, status)
        return 5.0

    def _next_look(self, key: Key, plan: FleetPlan, want: Launchable, now: float) -> float:
        usual = want.heartbeat_timeout / LOOKS_PER_TIMEOUT
        if plan.launch and key in self._actor.trouble:
            return RETRY_SECONDS
        if plan.soon:
            return SOON_SECONDS
        opens = self._credentials.opens(key, now)
        due = [at for at in (plan.next_launch_at, *opens) if at is not None and at > now]
        return min(usual, min(due, default=now + usual) - now + 0.01)
