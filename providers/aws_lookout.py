"""Looks at EC2 for all swarms at once: few requests, shared by whoever asks.

What we did ourselves is known before EC2 shows it: its answers lag behind by seconds (eventual
consistency), so an instance that was just launched counts as there, and one that a look leaves
out is not gone before it has been left out for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from providers.aws_port import Ec2
from providers.aws_values import ENDED, Instance, Inventory, Volume
from providers.base import ProviderUnreachable

MISSING_SECONDS = 60.0
"""An instance that EC2 leaves out for so long, look after look, is gone, if its id is too."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds between looks that fail; the pause doubles."""


class Lookout:
    """Looks at the instances and volumes of swarms of one account and region.

    Args:
        ec2: whom to ask.
        before: called before each look; raises ProviderUnreachable, if nothing may be concluded
            from what EC2 shows.
        missing_seconds: see ``MISSING_SECONDS``.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        ec2: Ec2,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
        missing_seconds: float = MISSING_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ec2 = ec2
        self._before = before
        self._missing_seconds = missing_seconds
        self._clock = clock
        self._uids: set[str] = set()
        self._instances: dict[str, Instance] = {}
        self._missing: dict[str, float] = {}
        """Since when looks leave out an instance that was there."""
        self._told: dict[str, float] = {}
        """When we asked for an instance's end."""
        self._volumes: dict[str, Volume] = {}
        self._created: dict[str, tuple[Volume, float]] = {}
        """Volumes that EC2 does not show yet, and when we made them."""
        self._at: float | None = None
        self._volumes_at: float | None = None
        self._failure: tuple[ProviderUnreachable, float, float] | None = None
        """Why the last look failed, until when nobody asks again, and the pause."""
        self._lock = asyncio.Lock()

    def add(self, uid: str) -> None:
        """Look at a swarm's machines from now on."""
        if uid not in self._uids:
            self._uids.add(uid)
            self._at = self._volumes_at = None

    def drop(self, uid: str) -> None:
        """Look at them no more."""
        self._uids.discard(uid)
        self._instances = {i.id: i for i in self._instances.values() if i.uid != uid}
        self._volumes = {v.id: v for v in self._volumes.values() if v.uid != uid}

    async def look(self, uid: str, *, age: float, volumes_age: float | None = None) -> Inventory:
        """What is known of a swarm.

        Args:
            uid: of the swarm, which was added.
            age: of what is told of instances, at most, seconds.
            volumes_age: the same for volumes; None: as ``age``.

        Raises: ProviderUnreachable.
        """
        wanted = self._clock()
        async with self._lock:
            await self._refresh(
                wanted - age, wanted - (age if volumes_age is None else volumes_age)
            )
            return self.known(uid)

    def known(self, uid: str) -> Inventory:
        """The same without asking anybody."""
        return Inventory(
            [i for i in self._instances.values() if i.uid == uid],
            [v for v in self._volumes.values() if v.uid == uid],
            self._at if self._at is not None else 0.0,
        )

    @property
    def age(self) -> float:
        """Seconds since EC2 last showed its instances; infinite, if it never did."""
        return float("inf") if self._at is None else self._clock() - self._at

    async def _refresh(self, since: float, volumes_since: float) -> None:
        """Raises: ProviderUnreachable."""
        stale = self._at is None or self._at < since
        volumes_stale = self._volumes_at is None or self._volumes_at < volumes_since
        if not (stale or volumes_stale):
            return
        if self._failure is not None and self._clock() < self._failure[1]:
            error = self._failure[0]
            raise type(error)(error.reason, str(error))
        begun, uids = self._clock(), set(self._uids)
        try:
            if self._before is not None:
                await self._before()
            if stale:
                shown = await self.ec2.instances(uids)
                self._take([*shown, *await self._hidden(shown, begun)], begun)
                self._at = begun
            if volumes_stale:
                self._take_volumes(await self.ec2.volumes(uids), begun)
                self._volumes_at = begun
        except ProviderUnreachable as error:
            before = self._failure
            pause = FIRST_PAUSE if before is None else min(2 * before[2], LONGEST_PAUSE)
            self._failure = error, self._clock() + pause, pause
            raise
        self._failure = None

    async def _hidden(self, shown: Iterable[Instance], begun: float) -> list[Instance]:
        """Instances that were left out for long, and of which EC2 knows all the same."""
        seen = {i.id for i in shown}
        long = [
            known for id, known in self._instances.items()
            if id not in seen and known.uid in self._uids and known.state not in ENDED
            and begun - self._missing.get(id, begun) >= self._missing_seconds
        ]  # fmt: skip
        return [known for known in long if await self.ec2.exists(known.id)]

    def _take(self, shown: Iterable[Instance], begun: float) -> None:
        now = {i.id: self._adjusted(i) for i in shown}
        missing: dict[str, float] = {}
        for id, known in self._instances.items():
            if id in now or known.uid not in self._uids or known.state in ENDED:
                continue
            since = self._missing.get(id, begun)
            if begun - since < self._missing_seconds:
                missing[id], now[id] = since, known
        self._instances, self._missing = now, missing
        self._told = {id: at for id, at in self._told.items() if id in now}

    def _take_volumes(self, shown: Iterable[Volume], begun: float) -> None:
        now = {v.id: v for v in shown}
        self._created = {
            id: (volume, at)
            for id, (volume, at) in self._created.items()
            if id not in now and begun - at < self._missing_seconds
        }
        self._volumes = {**{id: volume for id, (volume, _) in self._created.items()}, **now}

    def _adjusted(self, instance: Instance) -> Instance:
        """EC2's word, but for an end that we asked for and that it does not show yet."""
        told = self._told.get(instance.id)
        if told is not None and instance.live and self._clock() - told < self._missing_seconds:
            return replace(instance, state="shutting-down")
        return instance

    # --- what we did ourselves ---------------------------------------------------------------

    def launched(self, instances: Iterable[Instance]) -> None:
        """These are there, though EC2 may not show them yet."""
        for instance in instances:
            self._instances.setdefault(instance.id, instance)

    def terminated(self, ids: Iterable[str]) -> None:
        """These are about to end, though EC2 may not show that yet."""
        for id in ids:
            self._told[id] = self._clock()
            if id in self._instances and self._instances[id].live:
                self._instances[id] = replace(self._instances[id], state="shutting-down")

    def created(self, volume: Volume) -> None:
        """This volume is there."""
        self._created[volume.id] = volume, self._clock()
        self._volumes.setdefault(volume.id, volume)

    def doubt(self) -> None:
        """Something was changed: whoever asks next is shown what EC2 says now."""
        self._at = self._volumes_at = None
