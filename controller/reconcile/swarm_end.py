"""The end of a Swarm: drain within its grace, archive, let every process, file and machine go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.reconcile.accounts import Accounts, bare_handle, books_of
from controller.reconcile.carriages import NotYet
from controller.reconcile.clock import stamp
from controller.reconcile.contact import Contact
from controller.reconcile.context import Context
from controller.reconcile.end_status import (
    EndStatus,
    grace_of,
    is_abandoned,
    is_forced,
    is_letting_go,
    keeps_volume,
    lacks_archive,
    let_go_since,
    listed,
    patience_of,
    since_of,
    tasks_have,
)
from controller.reconcile.outboxes import Outboxes
from controller.reconcile.places import leave, unsettled
from controller.reconcile.swarm_act import is_queued
from controller.reconcile.swarm_spec import last_settings, place_of
from controller.reconcile.swarm_status import FINALIZER, entries_of
from controller.store.base import Key, Resource, key_of
from providers.base import (
    InProgress,
    JobState,
    JobStatus,
    OutcomeUnknown,
    Provider,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)

TERM_SECONDS = 10.0
"""Between SIGTERM at the end of the grace period and SIGKILL."""
NOTHING_TO_ARCHIVE = "NothingToArchive"
ABANDON_SECONDS = 60.0
"""So long the end of abandoned machines is tried though their provider refuses it."""
ARCHIVE_TRIES = 2
"""As often, at least, machines that cost wait for their archive."""
RETRY_SECONDS = 2.0
SOON_SECONDS = 0.05
RENTING = frozenset({"aws"})
"""Kinds whose machines cost, known also where such a provider is not at hand."""


class SwarmEnd:
    """One step at a time towards nothing left."""

    def __init__(
        self, ctx: Context, outboxes: Outboxes, contacts: Contact, accounts: Accounts
    ) -> None:
        self._ctx = ctx
        self._accounts = accounts
        self._outboxes = outboxes
        self._contacts = contacts
        self._status = EndStatus(ctx)
        self._drained: set[str] = set()
        self._ended: set[str] = set()
        self._failed: dict[str, int] = {}
        """By uid: how often the archive has failed."""
        self._given_up: dict[str, str] = {}
        """By uid: why there will be no archive; empty, where there is nothing to be in one."""

    async def step(self, obj: Resource, providers: Mapping[str, Provider]) -> float | None:
        """One pass over a Swarm that is being deleted; seconds until the next."""
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            return None
        spec = last_settings(self._ctx, obj)
        name, parameters = place_of(self._ctx, obj)
        provider = providers.get(name)
        if provider is None:
            return await self._not_here(obj, name)
        return await self._end(await self._status.mark(obj), spec, provider, parameters)

    async def _end(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        parameters: Mapping[str, Any] | None,
    ) -> float | None:
        obj = await self._accounts.look(obj, provider, parameters)
        try:
            if provider.rents and (is_forced(obj) or is_letting_go(obj)):
                return await self._give_back(obj, spec, provider, parameters)
            return await self._wind_up(obj, spec, provider, parameters)
        except InProgress as error:
            await self._status.under_way(obj, error)
            return RETRY_SECONDS
        except ProviderUnreachable as error:
            return await self._out_of_reach(obj, spec, provider, parameters, error)
        except OutcomeUnknown as error:
            return await self._stuck(obj, "ProviderReachable", error)
        except ProviderError as error:
            return await self._refused(obj, spec, provider, error)

    async def _wind_up(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        parameters: Mapping[str, Any] | None,
    ) -> float | None:
        """Raises: ProviderError."""
        handle = self._ctx.handle_to(obj, parameters)
        jobs = await self._contacts.observe(provider, handle)
        running = [j for j in jobs if j.state in (JobState.RUNNING, JobState.PENDING)]
        await self._read(obj, handle, provider, jobs, running)
        await self._status.reached(obj, provider, parameters)
        if running:
            return await self._wind_down(obj, spec, provider, handle, running)
        await provider.stop(handle, [j.job for j in jobs], force=True)
        archived = await self._archive(obj, spec, provider, handle, jobs)
        if not archived:
            return RETRY_SECONDS if provider.rents else 10.0
        waits = await self._leave(obj, spec, handle, provider)
        if waits is not None:
            return waits
        self._drained.difference_update(j.job for j in jobs)
        self._ended.difference_update(j.job for j in jobs)
        await self._accounts.settle(obj, provider, parameters)
        await self._release(obj)
        return None

    async def _release(self, obj: Resource, *, told: bool = False) -> None:
        await self._status.release(obj, told=told)
        self._failed.pop(obj["metadata"]["uid"], None)
        self._given_up.pop(obj["metadata"]["uid"], None)
        self._accounts.forget(obj["metadata"]["uid"])
        self._ctx.let_in.pop(obj["metadata"]["uid"], None)

    async def _leave(
        self, obj: Resource, spec: Mapping[str, Any], handle: SwarmHandle, provider: Provider
    ) -> float | None:
        """Remove what is where the workers were; seconds until that can go on, or None."""
        key = key_of(obj)
        left = unsettled(self._ctx, key, provider) if not is_forced(obj) else 0
        if left and not (provider.rents and self._out_of_patience(obj, spec)):
            text = (
                f"{tasks_have(left)} work that is still to be "
                f"brought home; `codeswarm delete swarm {key.name} --force` gives it up"
            )
            await self._status.say(obj, "Ready", "BringingHome", text)
            return 0.5
        if provider.rents:
            why = self._given_up.get(handle.uid, "")
            if left:
                why = f"{tasks_have(left)} work that could not be brought home in time"
            keep = bool(why) or (lacks_archive(obj, spec) and handle.uid not in self._given_up)
            await self._status.let_go(obj, keep_volume=keep, why=why)
        await provider.remove(handle, keep=keeps_volume(obj))
        try:
            await leave(self._ctx, key, handle, provider)
        except NotYet:
            return 0.5
        except ProviderError:
            if not is_forced(obj):
                raise
        return None

    async def _give_back(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        parameters: Mapping[str, Any] | None,
    ) -> float | None:
        """End the machines without another word to them. Raises: ProviderError."""
        key, handle = key_of(obj), bare_handle(obj, parameters)
        keep = lacks_archive(obj, spec)
        await self._status.let_go(
            obj, keep_volume=keep, why="ended at once, no archive was made" if keep else ""
        )
        try:
            await provider.remove(handle, keep=keeps_volume(obj))
        except InProgress:
            self._outboxes.publish(key, [], open=False)
            raise
        self._outboxes.publish(key, [], open=False)
        try:
            await leave(self._ctx, key, handle, provider)
        except NotYet:
            return 0.5
        await self._accounts.settle(obj, provider, parameters)
        await self._release(obj)
        return None

    def _out_of_patience(self, obj: Resource, spec: Mapping[str, Any]) -> bool:
        """Whether machines that cost have waited long enough."""
        waited = self._ctx.clock.now() - since_of(obj)
        return waited >= patience_of(spec)

    async def _read(
        self,
        obj: Resource,
        handle: SwarmHandle,
        provider: Provider,
        jobs: list[JobStatus],
        running: list[JobStatus],
    ) -> None:
        """Take in what the workers say to the last; their tasks learn when they are gone."""
        alive = {j.job for j in running}
        entries = [e for e in entries_of(obj) if e.job not in self._ended]
        self._outboxes.attach(obj, handle, provider, entries, {j.job for j in jobs})
        followed, now = [e.job for e in entries], self._ctx.clock.now()
        await self._contacts.found(key_of(obj), provider, followed, now=now)
        for entry in entries:
            if entry.job not in alive:
                await provider.flush(entry.job)
                self._ended.add(entry.job)
        key = Key("Swarm", handle.namespace, handle.name)
        self._outboxes.publish(key, [e for e in entries if e.job in alive], open=False)

    async def _wind_down(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        handle: SwarmHandle,
        running: list[JobStatus],
    ) -> float:
        waited = self._ctx.clock.now() - since_of(obj)
        grace = grace_of(spec)
        jobs = [job.job for job in running]
        if is_forced(obj) or waited >= grace + TERM_SECONDS:
            await provider.stop(handle, jobs, force=True)
        elif waited >= grace:
            await provider.stop(handle, jobs, force=False)
        else:
            await self._drain(obj, provider, handle, running)
        return 0.25

    async def _drain(
        self, obj: Resource, provider: Provider, handle: SwarmHandle, running: list[JobStatus]
    ) -> None:
        known = {e.job: e.index for e in entries_of(obj)}
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": {"action": "drain"}}
        for status in running:
            job = status.job
            if job not in known:
                await provider.stop(handle, [job], force=True)
            elif job not in self._drained:
                if is_queued(status):
                    await provider.stop(handle, [job], force=False)
                else:
                    await provider.deliver(handle, job, known[job], record)
                self._drained.add(job)

    async def _archive(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        handle: SwarmHandle,
        jobs: list[JobStatus],
    ) -> bool:
        """True when there is nothing (more) to archive, or it was given up.

        A person does that (``--force``); where machines cost, the end of the grace period does.
        """
        termination = spec.get("termination") or {}
        status = dict(obj.get("status") or {})
        there = bool(jobs) or provider.rents
        if not (lacks_archive(obj, spec) and there) or handle.uid in self._given_up:
            return True
        target = termination.get("archivePath")
        destination = self._ctx.archives / target if target else self._ctx.archives
        try:
            path = await provider.archive(handle, destination)
        except InProgress:
            raise
        except ProviderError as error:
            if provider.rents and error.reason == NOTHING_TO_ARCHIVE:
                self._given_up[handle.uid] = ""
                return True
            if provider.rents:
                return await self._archive_failed(obj, spec, error)
            await self._stuck(obj, "Ready", error)
            return is_forced(obj)
        status["archivePath"] = str(path)
        self._ctx.event(obj, "Archived", f"workspaces and mailboxes are in {path}")
        obj.update(await self._ctx.write_status(obj, status))
        return True

    async def _archive_failed(
        self, obj: Resource, spec: Mapping[str, Any], error: ProviderError
    ) -> bool:
        """Whether the archive is given up: machines cost as long as it is tried."""
        uid, now = obj["metadata"]["uid"], self._ctx.clock.now()
        self._failed[uid] = self._failed.get(uid, 0) + 1
        # One that is not at hand yet has not failed: machines may be on their way to read it.
        away = isinstance(error, ProviderUnreachable)
        until = since_of(obj) + (patience_of(spec) if away else grace_of(spec))
        if now >= until and self._failed[uid] >= ARCHIVE_TRIES:
            self._given_up[uid] = f"the archive failed: {error}"
            self._ctx.event(obj, "ArchiveFailed", f"given up: {error}", warning=True)
            return True
        end = f"until {stamp(until)}" if now < until else "for another try"
        text = f"{error}; the machines stay {end}, then they go and the volume is kept"
        await self._status.say(obj, "Ready", error.reason, text)
        return False

    async def _out_of_reach(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        parameters: Mapping[str, Any] | None,
        error: ProviderUnreachable,
    ) -> float | None:
        """Wait for the provider; let go if nothing was ever started there, or a person says so.

        Machines that cost are ended when that has taken long enough: they may be known to their
        provider though nobody there answers.
        """
        started = bool((obj.get("status") or {}).get("incarnations"))
        if provider.rents and not is_letting_go(obj):
            if not started:
                await self._status.let_go(obj, keep_volume=False)
                return SOON_SECONDS
            if is_abandoned(obj) or self._out_of_patience(obj, spec):
                await self._status.let_go(obj, keep_volume=True, why=f"no contact: {error}")
                return SOON_SECONDS
        if not started:
            await self._release(obj)
            return None
        if is_abandoned(obj):
            await self._abandon(obj, str(error))
            return None
        self._contacts.lost(obj, error)
        return await self._stuck(obj, "ProviderReachable", error)

    async def _refused(
        self, obj: Resource, spec: Mapping[str, Any], provider: Provider, error: ProviderError
    ) -> float | None:
        """Its provider answers that something cannot be done, which may be so for ever."""
        enough = is_abandoned(obj) or self._out_of_patience(obj, spec)
        if provider.rents and enough and not is_letting_go(obj):
            await self._status.let_go(obj, keep_volume=True, why=str(error))
            return SOON_SECONDS
        tried = self._ctx.clock.now() - let_go_since(obj)
        if is_letting_go(obj) and is_abandoned(obj) and tried >= ABANDON_SECONDS:
            await self._abandon(obj, str(error))
            return None
        return await self._stuck(obj, "ProviderReachable", error)

    async def _not_here(self, obj: Resource, name: str) -> float | None:
        """Nobody here can end what was started: that is no reason to forget it."""
        if not (obj.get("status") or {}).get("incarnations"):
            await self._release(obj)
            return None
        if is_abandoned(obj):
            await self._abandon(obj, f"no provider {name!r} here")
            return None
        obj = await self._status.mark(obj)
        text = (
            f"provider {name!r} is not available here, and what it has started may run on; "
            f"`codeswarm delete swarm {obj['metadata']['name']} --abandon` lets go of it"
        )
        await self._status.say(obj, "ProviderReachable", "ProviderNotAvailable", text)
        return 30.0

    async def _abandon(self, obj: Resource, why: str) -> None:
        """Let go of the object, and say what may be left."""
        jobs = [row["job"] for row in (obj.get("status") or {}).get("workers") or ()]
        left = f"may still be there: {listed(jobs) or 'its files'}"
        kind, parameters = place_of(self._ctx, obj)
        root = parameters.get("workspaceRoot")
        below = f"; its folders are below {root}" if root else ""
        costs = ""
        if kind in RENTING:
            machines = listed([row.id for row in books_of(obj).running]) or "that it has"
            costs = f"; machines {machines} may go on costing: `codeswarm doctor --{kind}`"
        text = f"let go without contact ({why}); {left}{below}{costs}"
        self._ctx.event(obj, "Abandoned", text, warning=True)
        await self._release(obj, told=True)

    async def _stuck(self, obj: Resource, condition: str, error: ProviderError) -> float:
        """Say what keeps the swarm from going; nothing is removed before that is put right."""
        await self._status.say(obj, condition, error.reason, str(error))
        return RETRY_SECONDS
