"""One swarm's machines, volume and workers on EC2: looked at, decided about, acted on.

A site runs as one background task, as long as its swarm is asked for.  All that it must know after
a crash is in EC2's tags and in the workers' folders; what it remembers besides only spares looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from providers.aws_acting import Acting
from providers.aws_launching import Launching
from providers.aws_lookout import MISSING_SECONDS
from providers.aws_plan import Ages, Demand, Plan, chosen, coordinator_of, decide
from providers.aws_ready import Readiness
from providers.aws_seating import Seating
from providers.aws_silence import Silence
from providers.aws_state import SiteState, Surroundings
from providers.aws_stuck import Stuck
from providers.aws_values import Instance, Inventory, Volume, Wish
from providers.aws_view import judge, nodes_of
from providers.base import (
    InProgress,
    JobState,
    JobStatus,
    LaunchRequest,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Since:
    """When things began to be as they are; our clock."""

    wanted: float
    idle: dict[str, float] = field(default_factory=dict)
    unready: dict[str, float] = field(default_factory=dict)


class Site:
    """What one swarm has on EC2.

    Args:
        swarm: whose.
        around: what is shared with others.
    """

    def __init__(self, swarm: SwarmHandle, around: Surroundings) -> None:
        self.state = SiteState.of(swarm, around)
        self.readiness = Readiness(self.state)
        self.seating = Seating(self.state, self.readiness.doubt)
        self._stuck = Stuck(self.state)
        self._silence = Silence(self.state, self.readiness)
        self.launching = Launching(around.ec2, swarm.uid, around.clock)
        self._acting = Acting(self.state, self.readiness, self.seating, self.launching)
        self._since = _Since(wanted=around.clock())
        self._wanted_until = -math.inf
        self._alive: dict[str, int] = {}
        self._plan = Plan()
        self._changing = True
        self._stepped = asyncio.Condition()
        self._holders = 0
        self._began = around.clock()
        self._ending = False
        self.told_gone: dict[str, str] = {}
        """Jobs that a machine, here by its id, says are gone, though it is not written down."""
        self.deaf: dict[str, float] = {}
        """Since when workers cannot be ended on a machine; our clock."""
        self._task: asyncio.Task[None] | None = None
        around.lookout.add(swarm.uid)

    # --- life ------------------------------------------------------------------------------------

    def update(self, swarm: SwarmHandle) -> None:
        """The swarm as it is asked for now: its wish and the way in may be others."""
        state = self.state
        if swarm.parameters != state.swarm.parameters:
            self.launching.retry()
            state.wake()
        state.swarm, state.wish = swarm, Wish.of(swarm)
        if self._task is None and not self._ending:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def end(self) -> None:
        """Take no step any more, whoever asks: everything is about to be removed."""
        self._ending = True

    async def close(self) -> None:
        """Do nothing any more; what is there stays as it is."""
        await self.halt()
        await self.state.host.leave()
        await self.state.nodes.close()

    async def halt(self) -> None:
        """Take no further step."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.readiness.close()

    async def _run(self) -> None:
        state, times = self.state, self.state.around.times
        while True:
            state.woken.clear()
            try:
                await self._step()
                state.trouble.pop("step", None)
            except InProgress as wait:
                state.trouble["step"] = wait
            except ProviderError as error:
                if str(error) != str(state.trouble.get("step")):
                    _LOG.info("swarm %s on AWS: %s: %s", state.swarm.name, error.reason, error)
                state.trouble["step"] = error
            except Exception:
                _LOG.exception("swarm %s on AWS", state.swarm.name)
            async with self._stepped:
                self._stepped.notify_all()
            pause = times.busy if self._changing or state.trouble else times.steady
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await state.woken.wait()

    async def stepped(self, seconds: float) -> None:
        """Wait for the end of the next step, a while."""
        self.state.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._stepped:
                await self._stepped.wait()

    # --- looking ---------------------------------------------------------------------------------

    async def look(self, *, fresh: bool = False) -> Inventory:
        """Instances and volume. Raises: ProviderUnreachable."""
        state, times = self.state, self.state.around.times
        age = 0.0 if fresh else 0.9 * (times.busy if self._changing else times.steady)
        volumes_age = age if self._changing or fresh else times.volumes
        found = await state.around.lookout.look(state.swarm.uid, age=age, volumes_age=volumes_age)
        self.launching.seen(found.instances)
        return found

    async def statuses(self, found: Inventory, *, fresh: bool = False) -> dict[str, JobStatus]:
        """Workers that left a trace on the volume, by job.

        Raises: ProviderUnreachable, ProviderError.
        """
        host = self.state.host
        folders = await host.folders(self.state.swarm, fresh=fresh)
        instances = {i.id: i for i in found.instances}
        if self.state.now() - self._began < MISSING_SECONDS:
            # The first looks of a controller may leave out what was long there.
            for node in nodes_of(folders) - instances.keys():
                instances[node] = Instance(node, "running")
        judged = (judge(folder, instances, host.coordinator) for folder in folders)
        return {status.job: status for status in judged if status is not None}

    async def _demand(self, found: Inventory, volume: Volume | None) -> Demand:
        """Raises: ProviderError."""
        state, now = self.state, self.state.now()
        unused = volume is None or not volume.in_use
        known = unused and not state.host.coordinator
        if known:
            self._alive = {}
        if state.host.coordinator:
            try:
                statuses = await self.statuses(found)
            except ProviderUnreachable as error:
                state.trouble["volume"] = error
                # It may have rebooted, and has nothing mounted.
                self.readiness.doubt(state.host.coordinator)
            else:
                state.trouble.pop("volume", None)
                known = True
                self._alive = _per_instance(statuses.values())
                self.seating.seen(statuses)
        self.seating.expire(now - state.around.times.expiry)
        unread = not unused and not state.host.coordinator
        live, seats = {i.id for i in found.instances if i.live}, state.wish.workers_per_instance
        full = {id: max(seats, self._alive.get(id, 0)) for id in self.seating.leaving & live}
        return Demand(
            waiting=len(self.seating.waiting),
            alive={**self._alive, **full},  # others are launched in place of those that leave
            known=known,
            volume_needed=self._holders > 0 or now < self._wanted_until or unread,
        )

    def _ages(self, found: Inventory, demand: Demand) -> Ages:
        now, since = self.state.now(), self._since
        live = {i.id: i for i in found.instances if i.live}
        idle = {id for id in live if demand.known and not demand.alive.get(id)}
        since.idle = {id: since.idle.get(id, now) for id in idle}
        unready = {i.id for i in live.values() if i.running and not self.readiness.is_ready(i.id)}
        since.unready = {id: since.unready.get(id, now) for id in unready}
        if demand.workers or demand.volume_needed or not demand.known:
            since.wanted = now
        return Ages(
            idle={id: now - at for id, at in since.idle.items()},
            unready={id: now - at for id, at in since.unready.items()},
            unwanted=now - since.wanted,
        )

    # --- one step --------------------------------------------------------------------------------

    async def _step(self) -> None:
        """Raises: ProviderError."""
        state = self.state
        found = await self.look()
        volume = chosen(found.volumes)
        coordinator = coordinator_of(found.instances, volume)
        if state.host.coordinator and (
            coordinator is None or coordinator.id != state.host.coordinator
        ):
            text = "swarm %s: instance %s has lost the shared volume"
            _LOG.warning(text, state.swarm.name, state.host.coordinator)
            await state.host.leave()
            await self.readiness.coordinator_lost()
            state.trouble.pop("volume", None)
        demand = await self._demand(found, volume)
        plan = self._plan = decide(
            state.wish,
            found.instances,
            found.volumes,
            demand,
            ages=self._ages(found, demand),
            patience=state.around.times.patience,
            deaf=[
                *await self._silence.deaf(coordinator, list(found.instances)),
                *await self._stuck.look(volume, list(found.instances)),
            ],
        )
        self._note(plan)
        early = self.launching.ended(found.instances)
        if early is not None:
            state.trouble["launch"] = early
        acted = await self._acting.act(plan, volume)
        await state.nodes.keep_only([i.id for i in found.instances if i.live])
        self.readiness.advance(found, volume, coordinator)
        if state.host.coordinator and volume is not None and coordinator is not None:
            ready = [i for i in found.instances if i.running and self.readiness.is_ready(i.id)]
            leaving = set(plan.terminate)
            ready = [i for i in ready if i.id not in leaving]
            if await self.seating.begin(volume, coordinator, ready, demand.alive):
                self.launching.settled()
                acted = True
        self._changing = acted or self._unsettled(found, plan, demand)

    def _note(self, plan: Plan) -> None:
        state = self.state
        if plan.short:
            state.trouble["short"] = ProviderError(
                "InstanceCountTooSmall",
                f"aws.instanceCount: {state.wish.instance_count} instances with "
                f"{state.wish.workers_per_instance} workers each leave no room for {plan.short} "
                "of the workers: raise it or workersPerInstance, or leave it out",
            )
        else:
            state.trouble.pop("short", None)

    def _unsettled(self, found: Inventory, plan: Plan, demand: Demand) -> bool:
        moving = any(i.state not in ("running", "terminated") for i in found.instances)
        volumes = any(
            v.attachment not in ("", "attached") or v.state == "creating" for v in found.volumes
        )
        ready = all(self.readiness.is_ready(i.id) for i in found.instances if i.running)
        # What EC2 has refused is asked for again in its own time: nobody need watch it till then.
        wants = bool(demand.waiting or plan.launch) and not self.launching.waits
        return moving or volumes or not ready or wants

    # --- for the provider ------------------------------------------------------------------------

    def want_volume(self) -> None:
        """Somebody needs what is on the volume: have it ready, and keep it so a while."""
        now = self.state.now()
        if self._wanted_until < now and not self.state.host.coordinator:
            self.state.wake()
        self._wanted_until = now + self.state.around.times.wanted

    @contextlib.contextmanager
    def holding_volume(self) -> Iterator[None]:
        """The same, for as long as something goes on there."""
        self.want_volume()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self.want_volume()

    async def observe(self) -> list[JobStatus]:
        """As ``Provider.observe``. Raises: ProviderUnreachable, ProviderError."""
        if self._ending:
            return []
        if not await self.at_hand():
            return []
        found = await self.look()
        coordinator = coordinator_of(found.instances, chosen(found.volumes))
        if coordinator is None or coordinator.id != self.state.host.coordinator:
            await self.stepped(self.state.around.times.busy)
            if not await self.at_hand():
                return []
        return list((await self.statuses(found)).values())

    async def at_hand(self) -> bool:
        """Wait a little until what is on the volume can be read; whether there is anything.

        Raises: ProviderUnreachable.
        """
        host = self.state.host
        if host.coordinator:
            return True
        found = await self.look()
        volume = chosen(found.volumes)
        if volume is None or not volume.in_use or self._ending:
            return False
        if not await self.reading(volume):
            raise self.missing(await self.look())
        return True

    async def reading(self, volume: Volume) -> bool:
        """Wait a little for the coordinator, if one runs already that has yet to be looked at."""
        state, until = self.state, self.state.now() + self.state.around.times.adopting
        while volume.in_use and not state.host.coordinator and state.now() < until:
            await self.stepped(state.around.times.busy)
            instance = coordinator_of((await self.look()).instances, volume)
            if instance is None or f"set-up {instance.id}" in state.trouble:
                break
        return bool(state.host.coordinator)

    def missing(self, found: Inventory) -> ProviderUnreachable:
        """Why what is on the volume cannot be read now."""
        for error in self.state.trouble.values():
            return ProviderUnreachable(error.reason, str(error))
        text = f"the shared volume is not at hand yet: {self.progress(found)}"
        return ProviderUnreachable("CoordinatorBooting", text)

    def progress(self, found: Inventory) -> str:
        """How far the machines are, in words that stand still while nothing changes."""
        live = [i for i in found.instances if i.live]
        if not live:
            return "instances are being launched" if self._plan.launch else "there is no instance"
        booting = sum(i.state == "pending" for i in live)
        ready = sum(self.readiness.is_ready(i.id) for i in live)
        words = [f"{len(live)} {'instance' if len(live) == 1 else 'instances'}"]
        counts = {
            "booting": booting, "being set up": len(live) - booting - ready, "ready": ready,
        }  # fmt: skip
        return ", ".join(words + [f"{count} {what}" for what, count in counts.items() if count])

    async def launch(self, requests: Collection[LaunchRequest]) -> None:
        """As ``Provider.launch``: notes what is wanted, and says how far that is.

        Raises: InProgress, ProviderError.
        """
        self.seating.want(requests)
        await self.stepped(1.0)
        if not self.seating.lacks(requests):
            return
        for error in self.state.trouble.values():
            raise type(error)(error.reason, str(error))
        found = self.state.around.lookout.known(self.state.swarm.uid)
        coming = any(i.state == "pending" for i in found.instances) or not found.instances
        reason = "InstancesStarting" if coming else "InstancesSettingUp"
        raise InProgress(reason, self.progress(found))


def _per_instance(statuses: Collection[JobStatus]) -> dict[str, int]:
    """Living workers by instance."""
    alive: dict[str, int] = {}
    for status in statuses:
        if status.state in (JobState.RUNNING, JobState.PENDING):
            alive[status.handle] = alive.get(status.handle, 0) + 1
    return alive


def instance_of(found: Inventory, id: str) -> Instance | None:
    """One of them."""
    return next((i for i in found.instances if i.id == id), None)
