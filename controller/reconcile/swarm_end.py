"""The end of a Swarm: drain within its grace, archive, let every process and file go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.reconcile.carriages import NotYet
from controller.reconcile.clock import seconds_of
from controller.reconcile.contact import Contact
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.outboxes import Outboxes
from controller.reconcile.places import leave, unsettled
from controller.reconcile.swarm_act import is_queued
from controller.reconcile.swarm_spec import place_of
from controller.reconcile.swarm_status import FINALIZER, entries_of
from controller.resources.effective import effective
from controller.store.base import Key, Resource, key_of
from providers.base import (
    JobState,
    JobStatus,
    Provider,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)

FORCE_ANNOTATION = "codeswarm.dev/force"
ABANDON_ANNOTATION = "codeswarm.dev/abandon"
TERM_SECONDS = 10.0
"""Between SIGTERM at the end of the grace period and SIGKILL."""


def _forced(obj: Resource) -> bool:
    """Whether a person has asked for the end at once (``--force``)."""
    return FORCE_ANNOTATION in (obj["metadata"].get("annotations") or {})


class SwarmEnd:
    """One step at a time towards nothing left."""

    def __init__(self, ctx: Context, outboxes: Outboxes, contacts: Contact) -> None:
        self._ctx = ctx
        self._outboxes = outboxes
        self._contacts = contacts
        self._drained: set[str] = set()
        self._ended: set[str] = set()

    async def step(self, obj: Resource, providers: Mapping[str, Provider]) -> float | None:
        """One pass over a Swarm that is being deleted; seconds until the next."""
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            return None
        spec = (obj.get("status") or {}).get("effective") or effective(obj["spec"], None)
        name, parameters = place_of(self._ctx, obj)
        provider = providers.get(name)
        if provider is None:
            await self._release(obj)
            return None
        obj = await self._mark(obj)
        try:
            return await self._wind_up(obj, spec, provider, parameters)
        except ProviderUnreachable as error:
            return await self._out_of_reach(obj, error)
        except ProviderError as error:
            return await self._stuck(obj, "ProviderReachable", error)

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
        await self._reached(obj, provider, parameters)
        if running:
            return await self._wind_down(obj, spec, provider, handle, running)
        await provider.stop(handle, [j.job for j in jobs], force=True)
        archived = await self._archive(obj, spec, provider, handle, jobs)
        waits = await self._leave(obj, handle, provider) if archived else 10.0
        if waits is not None:
            return waits
        await self._release(obj)
        self._drained.difference_update(j.job for j in jobs)
        self._ended.difference_update(j.job for j in jobs)
        return None

    async def _leave(self, obj: Resource, handle: SwarmHandle, provider: Provider) -> float | None:
        """Remove what is where the workers were; seconds until that can go on, or None."""
        key = key_of(obj)
        left = unsettled(self._ctx, key, provider) if not _forced(obj) else 0
        if left:
            text = (
                f"{left} {'task has' if left == 1 else 'tasks have'} work that is still to be "
                f"brought home; `codeswarm delete swarm {key.name} --force` gives it up"
            )
            await self._say(obj, "Ready", "BringingHome", text)
            return 0.5
        await provider.remove(handle)
        try:
            await leave(self._ctx, key, handle, provider)
        except NotYet:
            return 0.5
        except ProviderError:
            if not _forced(obj):
                raise
        return None

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

    async def _reached(
        self, obj: Resource, provider: Provider, parameters: Mapping[str, Any] | None
    ) -> None:
        """Say that there is contact (again), and by which way."""
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        if writer.status_of("ProviderReachable")[0] == "False":
            writer.set("ProviderReachable", True, "Reachable")
            status.update(conditions=writer.conditions, reason="Terminating")
        if status.get("effective"):
            way = {provider.name: dict(parameters or {})}
            status["effective"] = {**status["effective"], "provider": way}
        obj.update(await self._ctx.write_status(obj, status))

    async def _mark(self, obj: Resource) -> Resource:
        status = dict(obj.get("status") or {})
        if status.get("phase") == "Terminating":
            return obj
        writer = ConditionWriter(obj, self._ctx.now())
        for type in ("Available", "Ready"):
            writer.set(type, False, "Terminating", "the swarm is being deleted")
        status.update(
            phase="Terminating",
            reason="Terminating",
            terminatingSince=self._ctx.now(),
            conditions=writer.conditions,
            observedGeneration=obj["metadata"]["generation"],
        )
        self._ctx.event(obj, "Terminating", "draining the workers")
        return await self._ctx.write_status(obj, status)

    async def _wind_down(
        self,
        obj: Resource,
        spec: Mapping[str, Any],
        provider: Provider,
        handle: SwarmHandle,
        running: list[JobStatus],
    ) -> float:
        since = seconds_of((obj.get("status") or {}).get("terminatingSince")) or 0.0
        waited = self._ctx.clock.now() - since
        grace = float((spec.get("termination") or {}).get("gracePeriodSeconds", 45))
        jobs = [job.job for job in running]
        if _forced(obj) or waited >= grace + TERM_SECONDS:
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
        """True when there is nothing (more) to archive, or a person gave it up (``--force``)."""
        termination = spec.get("termination") or {}
        status = dict(obj.get("status") or {})
        if not termination.get("archive") or status.get("archivePath") or not jobs:
            return True
        target = termination.get("archivePath")
        destination = self._ctx.archives / target if target else self._ctx.archives
        try:
            path = await provider.archive(handle, destination)
        except ProviderError as error:
            await self._stuck(obj, "Ready", error)
            return _forced(obj)
        status["archivePath"] = str(path)
        self._ctx.event(obj, "Archived", f"workspaces and mailboxes are in {path}")
        obj.update(await self._ctx.write_status(obj, status))
        return True

    async def _out_of_reach(self, obj: Resource, error: ProviderUnreachable) -> float | None:
        """Wait for the provider; let go if nothing was ever started there, or a person says so."""
        status = obj.get("status") or {}
        if not status.get("incarnations"):
            await self._release(obj)
            return None
        if ABANDON_ANNOTATION in (obj["metadata"].get("annotations") or {}):
            rows = status.get("workers") or ()
            jobs = ", ".join(row["job"] for row in rows[:20])
            more = f" and {len(rows) - 20} more" if len(rows) > 20 else ""
            left = f"may still be there: {jobs or 'its files'}{more}"
            root = place_of(self._ctx, obj)[1].get("workspaceRoot")
            below = f"; its folders are below {root}" if root else ""
            text = f"let go without contact ({error}); {left}{below}"
            self._ctx.event(obj, "Abandoned", text, warning=True)
            await self._release(obj, told=True)
            return None
        self._contacts.lost(obj, error)
        return await self._stuck(obj, "ProviderReachable", error)

    async def _stuck(self, obj: Resource, condition: str, error: ProviderError) -> float:
        """Say what keeps the swarm from going; nothing is removed before that is put right."""
        await self._say(obj, condition, error.reason, str(error))
        return 2.0

    async def _say(self, obj: Resource, condition: str, reason: str, message: str) -> None:
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        writer.set(condition, False, reason, message)
        status["conditions"], status["reason"] = writer.conditions, reason
        obj.update(await self._ctx.write_status(obj, status))

    async def _release(self, obj: Resource, *, told: bool = False) -> None:
        current = self._ctx.store.get(
            Key("Swarm", obj["metadata"]["namespace"], obj["metadata"]["name"])
        )
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            return
        current["metadata"]["finalizers"] = [
            f for f in current["metadata"].get("finalizers") or () if f != FINALIZER
        ]
        if not told:
            self._ctx.event(obj, "Terminated", "every worker is gone")
        await self._ctx.store.update(current)
