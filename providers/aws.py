"""The provider for workers on EC2 instances that a swarm brings, and takes away again.

Each swarm has a site (``providers.aws_site``) that works on its machines by itself; what is asked
here is answered from what it knows.  Everything is found again by tags and on the swarm's volume.
boto3 and asyncssh are imported once the first such swarm is there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers import aws_removal
from providers.archive import archive_path, is_finished
from providers.aws_lookout import Lookout
from providers.aws_plan import chosen
from providers.aws_site import Site
from providers.aws_state import Surroundings, Times
from providers.aws_stopping import stop
from providers.aws_stores import VolumeStores
from providers.aws_values import ENDED, Api, Inventory, Wish
from providers.base import (
    Ended,
    JobState,
    JobStatus,
    LaunchRequest,
    Machine,
    ProviderError,
    ProviderUnreachable,
    RemoteStores,
    SchedulerUnreachable,
    Sink,
    SwarmHandle,
)
from providers.remote import RemoteHost
from worker.paths import component

if TYPE_CHECKING:
    from providers.aws_api import Clouds
    from providers.aws_preflight import Preflight
    from providers.ssh_target import Means

_LOG = logging.getLogger(__name__)
_Key = tuple[str, Api, str]


class AwsProvider:
    """Workers on EC2 (the port is ``providers.base.Provider``).

    Args:
        means: what of this machine's user may be used to log in.
        home: id of this home, for tags; a function, so that none is made before it is needed.
        left: seconds for which this controller may still act.
        log: takes the set-up log of a machine: whose it is, its id, the text.
        belongs: told each region and endpoint, and the account whose credentials are used there.
            Raises: ProviderUnreachable (``AnotherAccount``).
        used: told each region and endpoint before anything is launched there.
        times: intervals.
    """

    name = "aws"
    rents = True

    def __init__(
        self,
        means: Callable[[], Means],
        *,
        home: Callable[[], str],
        left: Callable[[], float] = lambda: math.inf,
        log: Callable[[SwarmHandle, str, str], None] = lambda swarm, instance, text: None,
        used: Callable[[Api], None] = lambda api: None,
        belongs: Callable[[Api, str], None] = lambda api, account: None,
        times: Times | None = None,
    ) -> None:
        self._means = means
        self._home = home
        self._left = left
        self._log = log
        self._used = used
        self._belongs = belongs
        self._times = times or Times()
        self._clouds: Clouds | None = None
        self._preflight: Preflight | None = None
        self._lookouts: dict[Api, Lookout] = {}
        self._sites: dict[_Key, Site] = {}
        self._followed: dict[str, Site] = {}
        self._removed: set[_Key] = set()
        self._ended_at: dict[tuple[str, str], float] = {}
        """When instances were first seen to have ended of which EC2 does not tell it."""
        self._sink: Sink | None = None
        self._began = time.monotonic()
        self.stores: RemoteStores | None = VolumeStores(self._volume_host, self._has_volume)

    @property
    def clouds(self) -> Clouds:
        """EC2 of every region and endpoint."""
        if self._clouds is None:
            from providers.aws_api import Clouds

            self._clouds = Clouds(may=self._may, seen=self._used)
        return self._clouds

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin to hand on what workers say; nobody is asked yet."""
        self._sink = sink

    async def close(self) -> None:
        """Let go of everything; instances and workers run on. The provider is then spent."""
        for site in self._sites.values():
            await site.close()
        self._sites.clear()
        if self._clouds is not None:
            await self._clouds.close()

    # --- sites -----------------------------------------------------------------------------------

    def _key(self, swarm: SwarmHandle) -> _Key:
        """Raises: ProviderError (``ParametersMissing``)."""
        try:
            wish = Wish.of(swarm)
        except KeyError as error:
            raise ProviderError("ParametersMissing", f"provider.aws.{error.args[0]}") from error
        return swarm.uid, wish.api, wish.root

    def _site(self, swarm: SwarmHandle) -> Site:
        """Raises: ProviderError."""
        key = self._key(swarm)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = Site(swarm, self._around(key[1]))
        site.update(swarm)
        return site

    def _around(self, api: Api) -> Surroundings:
        """Raises: ProviderError (``NotStarted``)."""
        if self._sink is None:
            raise ProviderError("NotStarted", "the provider for AWS was not started")
        if self._preflight is None:
            from providers.aws_preflight import Preflight

            self._preflight = Preflight()
        from providers.aws_account import OwnAccount

        ec2 = self.clouds.of(api)
        lookout = self._lookouts.get(api)
        if lookout is None:
            before = OwnAccount(ec2, self._belongs)
            lookout = self._lookouts[api] = Lookout(ec2, before=before)
        return Surroundings(
            ec2=ec2,
            lookout=lookout,
            preflight=self._preflight,
            means=self._means,
            home=self._home(),
            sink=self._sink,
            left=self._left,
            log=self._log,
            times=self._times,
        )

    def _may(self) -> None:
        """Raises: ProviderUnreachable (``LeaseTooShort``)."""
        if self._left() <= 0:
            raise ProviderUnreachable("LeaseTooShort", "another controller may act by now")

    def _volume_host(self, swarm: SwarmHandle) -> RemoteHost:
        """Where a swarm's stores are. Raises: ProviderUnreachable, ProviderError."""
        if self._key(swarm) in self._removed:  # no machine is brought for what was let go
            raise ProviderError("SwarmRemoved", "what the swarm had on EC2 was removed")
        site = self._site(swarm)
        site.want_volume()
        return site.state.host.remote

    async def _has_volume(self, swarm: SwarmHandle) -> bool:
        if self._key(swarm) in self._removed:
            return False
        volume = chosen((await self._site(swarm).look()).volumes)
        return volume is not None and volume.in_use

    # --- workers ---------------------------------------------------------------------------------

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Have workers begun, on instances launched for them if there are not enough.

        Raises: InProgress (``InstancesStarting``, ``InstancesSettingUp``, ``ToolsInstalling``);
            ProviderError, as EC2 refuses or a machine's set-up fails; ProviderUnreachable.
        """
        by_swarm: dict[str, list[LaunchRequest]] = {}
        for request in requests:
            by_swarm.setdefault(request.swarm.uid, []).append(request)
        for mine in by_swarm.values():
            self._removed.discard(self._key(mine[0].swarm))
            await self._site(mine[0].swarm).launch(mine)

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every worker that left a trace on the volume.

        Raises: ProviderUnreachable; SchedulerUnreachable, if only EC2 does not answer.
        """
        if self._key(swarm) in self._removed:
            return []
        site = self._site(swarm)
        try:
            return await site.observe()
        except ProviderUnreachable as error:
            if site.state.host.coordinator and site.state.host.remote.connected:
                raise SchedulerUnreachable(error.reason, str(error)) from error
            raise

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """The swarm's instances; no site is begun for that. Raises: ProviderUnreachable."""
        found = await self._inventory(swarm)
        machines = []
        for one in found.instances:
            until = None
            if one.state in ENDED:
                first = self._ended_at.setdefault((swarm.uid, one.id), time.time())
                until = one.ended_at or first
            kind = f"spot:{one.type}" if one.spot else one.type
            machines.append(Machine(one.id, kind, one.launched_at, until))
        shown = {one.id for one in found.instances}
        self._ended_at = {
            (uid, id): at
            for (uid, id), at in self._ended_at.items()
            if uid != swarm.uid or id in shown
        }
        return machines

    async def _inventory(self, swarm: SwarmHandle) -> Inventory:
        """What EC2 says of a swarm, whether it has a site, or has none (any more)."""
        key = self._key(swarm)
        site = self._sites.get(key)
        if site is not None:
            return await site.look()
        around, gone = self._around(key[1]), key in self._removed
        around.lookout.add(swarm.uid)
        try:
            age = 0.0 if gone else around.times.busy
            return await around.lookout.look(swarm.uid, age=age)
        finally:
            if gone:
                around.lookout.drop(swarm.uid)

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """End workers: SIGTERM, or with ``force`` SIGKILL to all that they started.

        A machine on which that cannot be done for long is ended itself.

        Raises: ProviderError, ProviderUnreachable.
        """
        names = sorted({component(job) for job in jobs})
        if names and self._key(swarm) not in self._removed:
            await stop(self._site(swarm), names, force=force)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all workers' folders of the swarm into a file of this machine.

        Raises: ProviderError, ProviderUnreachable.
        """
        path = archive_path(swarm, destination.expanduser().absolute())
        if await asyncio.to_thread(is_finished, path, swarm):
            return path
        site = self._site(swarm)
        volume = chosen((await site.look()).volumes)
        if volume is None or (volume.kept and not volume.in_use):
            why = "there is no volume" if volume is None else f"{volume.id} was let go already"
            raise ProviderError("NothingToArchive", f"{why}: no instance can read it any more")
        with site.holding_volume():
            if not site.state.host.coordinator and not await site.reading(volume):
                raise site.missing(await site.look())
            return await site.state.host.remote.archive(swarm, destination)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """Remove ended workers' folders; None: the machines, and the volume unless it is kept.

        Raises: ProviderError (``StillRunning``), ProviderUnreachable, OutcomeUnknown; InProgress
            (``InstancesEnding``, ``VolumeEnding``).
        """
        key = self._key(swarm)
        if key in self._removed:
            return
        site = self._site(swarm)
        if jobs is not None:
            await self._remove_jobs(site, swarm, {component(job) for job in jobs})
            return
        site.end()
        await site.close()
        last = max(self._began, site.launching.last or -math.inf)
        await aws_removal.remove(site.state, keep=keep, last_request=last)
        site.state.around.lookout.drop(swarm.uid)
        self._removed.add(key)
        del self._sites[key]
        self._followed = {job: one for job, one in self._followed.items() if one is not site}

    async def _remove_jobs(self, site: Site, swarm: SwarmHandle, jobs: set[str]) -> None:
        site.seating.withdraw(jobs)
        if not await site.at_hand():
            return
        statuses = await site.statuses(await site.look(), fresh=True)
        living = (JobState.RUNNING, JobState.PENDING)
        alive = sorted(job for job in jobs if job in statuses and statuses[job].state in living)
        if alive:
            raise ProviderError("StillRunning", f"still running: {', '.join(alive)}")
        await site.state.host.remote.remove(swarm, jobs)
        site.state.host.doubt()

    async def discard_store(self, name: str) -> None:
        """Nothing: see ``stores``."""

    # --- mail ------------------------------------------------------------------------------------

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        site = self._site(swarm)
        before = self._followed.get(job)
        if before is not None and before is not site:
            before.state.host.unfollow(job)
        self._followed[job] = site
        site.state.host.follow(swarm, job, index, offset)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        site = self._followed.pop(job, None)
        if site is not None:
            site.state.host.unfollow(job)

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning.

        Raises: ProviderUnreachable.
        """
        site = self._followed.get(job)
        if site is None:
            return
        if await site.at_hand():  # else nothing can be there that was not read
            await site.state.host.flush(job)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Append one record to a job's inbox; its worker looks there several times a second."""
        site = self._site(swarm)
        await site.at_hand()
        remote = site.state.host.remote
        await remote.deliver(swarm, job, index, record, secrets=secrets or {})
