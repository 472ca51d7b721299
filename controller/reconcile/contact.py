"""Contact with providers: who cannot be heard now, and what then is not known.

Without contact nothing is concluded.  No limit in time of a turn fires, nothing is started,
assigned or stopped for that swarm; after two minutes what depends on it is ``Unknown``.  When
contact returns, all that its workers wrote meanwhile is read before anything is decided.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable

from controller.reconcile.clock import seconds_of
from controller.reconcile.context import Context
from controller.reconcile.end_status import is_forced
from controller.reconcile.infos import Silence, TaskInfo, project_key
from controller.reconcile.outboxes import Outboxes
from controller.resources.conditions import find
from controller.store.base import Key, Resource
from providers.base import (
    JobStatus,
    Provider,
    ProviderError,
    ProviderUnreachable,
    SchedulerUnreachable,
    SwarmHandle,
)

OBSERVE_SECONDS = 60.0
"""A provider that has not answered by then does not answer."""
AT_ONCE = 64
"""Looks that wait for one provider at a time: hosts that are away must not take up all passes."""
CROWDED_SECONDS = 1.0
GLANCE_SECONDS = 1.0
"""Between two glances, while a look goes on, whether it is still wanted."""
FORGOTTEN_SECONDS = 10.0
"""Who has not asked again for so long has lost its place in line."""


class Crowded(Exception):
    """So many looks wait for answers of one provider that another one would keep others waiting,
    or this one would keep waiting who wants no answer any more."""


class Contact:
    """Notes for every swarm since when it is not heard of, and wakes whom that concerns."""

    def __init__(self, ctx: Context, outboxes: Outboxes) -> None:
        self._ctx = ctx
        self._outboxes = outboxes
        self._asking: Counter[str] = Counter()
        self._lines: defaultdict[str, dict[str, float]] = defaultdict(dict)
        """By provider: swarms that wait for their turn to look, and when they asked last."""

    async def observe(self, provider: Provider, handle: SwarmHandle) -> list[JobStatus]:
        """All jobs of a swarm, in bounded time.

        Raises: ProviderUnreachable, ProviderError; Crowded (again after ``CROWDED_SECONDS``), also
            where the answer is not wanted any more.
        """
        if not self._has_turn(provider.name, handle.uid):
            raise Crowded
        self._asking[provider.name] += 1
        try:
            async with asyncio.timeout(OBSERVE_SECONDS):
                return await self._unless_forced(provider, handle)
        except TimeoutError:
            raise ProviderUnreachable(
                "NoAnswer", f"provider {provider.name} has not answered for {OBSERVE_SECONDS:g} s"
            ) from None
        finally:
            self._asking[provider.name] -= 1

    async def _unless_forced(self, provider: Provider, handle: SwarmHandle) -> list[JobStatus]:
        """Raises: Crowded, once a person wants machines that cost to end at once."""
        if not provider.rents:
            return await provider.observe(handle)
        look = asyncio.ensure_future(provider.observe(handle))
        try:
            while not look.done():
                await asyncio.wait({look}, timeout=GLANCE_SECONDS)
                if not look.done() and self._is_forced(handle):
                    raise Crowded
            return look.result()
        finally:
            look.cancel()

    def _is_forced(self, handle: SwarmHandle) -> bool:
        obj = self._ctx.store.get(Key("Swarm", handle.namespace, handle.name))
        return obj is not None and "deletionTimestamp" in obj["metadata"] and is_forced(obj)

    def _has_turn(self, provider: str, swarm: str) -> bool:
        """Whether a swarm may look now; those who have waited longer come first."""
        line, now = self._lines[provider], asyncio.get_running_loop().time()
        for left in [uid for uid, at in line.items() if now - at > FORGOTTEN_SECONDS]:
            del line[left]
        ahead = list(line).index(swarm) if swarm in line else len(line)
        if ahead < AT_ONCE - self._asking[provider]:
            line.pop(swarm, None)
            return True
        line[swarm] = now
        return False

    def lost(self, obj: Resource, error: ProviderError) -> Silence:
        """A swarm's provider could not be asked."""
        meta = obj["metadata"]
        key, now = Key("Swarm", meta["namespace"], meta["name"]), self._ctx.clock.now()
        info = self._ctx.world.swarms.get(key)
        before, stored = info.silence if info else None, _stored_since(obj)
        if before is None and stored is None:
            self._ctx.event(obj, error.reason, str(error), warning=True)
        since = before.since if before else stored or now
        silence = Silence(since, error.reason, str(error))
        if isinstance(error, SchedulerUnreachable):
            return silence  # turns go on, end and begin: their workers are heard
        if info is not None:
            info.silence = silence
        if before is None:
            self._outboxes.wake_waiting(key)
        was_unknown = before is not None and info is not None and info.unknown_told
        if silence.is_long(now) and not was_unknown:
            if info is not None:
                info.unknown_told = True
            self._wake_open(key)
        return silence

    async def found(self, key: Key, provider: Provider, jobs: Iterable[str], *, now: float) -> None:
        """A swarm's provider has answered; what its workers wrote meanwhile is read first.

        Args:
            jobs: those that are followed.

        Raises: ProviderError.
        """
        info = self._ctx.world.swarms.get(key)
        if info is None or info.silence is None:
            return
        await asyncio.gather(
            *(provider.flush(job) for job in jobs if job in self._ctx.world.open_jobs)
        )
        info.silence, info.unknown_told, info.contact_since = None, False, now
        self._ctx.store.record_event(key, "Normal", "Reachable", "its provider answers again")
        self._wake_open(key)
        self._outboxes.wake_waiting(key)
        self._ctx.wake_dispatch()

    def _wake_open(self, swarm: Key) -> None:
        """Tasks whose open attempt is there, and their projects, have something else to say."""
        world = self._ctx.world
        for task in list(world.open_jobs.values()):
            info = world.tasks.get(task)
            if info is not None and _is_there(info, swarm):
                self._ctx.queue.add(task)
                if info.project:
                    self._ctx.queue.add(project_key(info), after=1.0)


def _is_there(info: TaskInfo, swarm: Key) -> bool:
    return info.key.namespace == swarm.namespace and info.open_swarm == swarm.name


def _stored_since(obj: Resource) -> float | None:
    """Since when status says that the provider is out of reach: a restart changes nothing."""
    known = find((obj.get("status") or {}).get("conditions") or [], "ProviderReachable") or {}
    return seconds_of(known["lastTransitionTime"]) if known.get("status") == "False" else None
