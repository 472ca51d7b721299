"""The provider for workers that are jobs of a Slurm cluster, reached over SSH.

Each worker is submitted, healed, scaled and cancelled by itself, as the one element of a job
array.  Where workers lie, how their mail gets to and fro, is the business of the login host
(``providers.slurm_host``); what Slurm knows of them, of ``providers.slurm_cluster``.  Everything
is found again from the swarm's uid and the worker's name alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from providers.base import (
    Ended,
    JobStatus,
    LaunchRequest,
    Machine,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.slurm_client import SlurmClient
from providers.slurm_cluster import BEAT_SECONDS, SlurmCluster
from providers.slurm_host import SlurmHost
from providers.slurm_queue import Queue
from worker.paths import component

QUEUE_SECONDS = 5.0
"""For how long one look at a cluster's queue serves all swarms there."""
LEAST_SECONDS = 1.0
"""Between two looks, however much is asked for."""
_PLACE = ("loginHost", "workspaceRoot")
"""Parameters that say where workers live; the others only say how one gets there."""


class SlurmHosts(Protocol):
    """The login hosts of a controller."""

    stores: RemoteStores | None
    """The shared git stores that lie there."""

    def start(self, sink: Sink, ended: Ended | None) -> None:
        """As ``Provider.start``; nobody is connected to before a host is asked something."""
        ...

    def host(self, swarm: SwarmHandle) -> SlurmHost:
        """A swarm's host; the same for equal parameters and credentials.

        Raises: ProviderError, where they cannot be understood.
        """
        ...

    def known(self) -> list[SlurmHost]:
        """Those that were asked for."""
        ...

    async def discard(self, host: SlurmHost) -> None:
        """End the connection of a host that no swarm needs any more."""
        ...

    async def close(self) -> None:
        """End all connections; workers run on."""
        ...


@dataclass(frozen=True, slots=True)
class _Followed:
    """An outbox that is followed."""

    host: SlurmHost
    uid: str
    """Of the swarm."""
    index: int


class SlurmProvider:
    """Workers on Slurm clusters (the port is ``providers.base.Provider``).

    Args:
        hosts: the login hosts.
        epoch: of this controller, for what it says to workers.
        left: seconds for which this controller may still act: a submission, which no fence of the
            cluster's own keeps out, has no longer than that.
        interval: seconds for which one look at a queue is good enough.
        least: seconds between two looks, at least.
        beat_seconds: a worker that Slurm has forgotten counts as alive while its heart has beaten
            so lately.
    """

    name = "slurm"
    rents = False

    def __init__(
        self,
        hosts: SlurmHosts,
        *,
        epoch: int = 0,
        left: Callable[[], float] = lambda: math.inf,
        interval: float = QUEUE_SECONDS,
        least: float = LEAST_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self.stores: RemoteStores | None = hosts.stores
        self._hosts = hosts
        self._epoch = epoch
        self._left = left
        self._interval = interval
        self._least = least
        self._beat_seconds = beat_seconds
        self._clusters: dict[int, SlurmCluster] = {}
        self._queues: dict[Hashable, Queue] = {}
        self._followed: dict[str, _Followed] = {}
        self._hosts_of: dict[tuple[str, ...], SlurmHost] = {}
        """By swarm and place: the same place may be logged in to in another way (a new key)."""
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def status_requests(self) -> int:
        """How many times squeue was run, on all clusters."""
        return sum(queue.requests for queue in self._queues.values())

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin to hand on what workers say; nobody is connected to yet."""
        self._hosts.start(sink, ended)

    async def close(self) -> None:
        """End all connections; workers run on. The provider is then spent."""
        await self._hosts.close()

    def _host(self, swarm: SwarmHandle) -> SlurmHost:
        """A swarm's host; what is followed there goes on by the newest way in.

        Raises: ProviderError.
        """
        host = self._hosts.host(swarm)
        key = (swarm.uid, *(str(swarm.parameters.get(name)) for name in _PLACE))
        before = self._hosts_of.get(key)
        self._hosts_of[key] = host
        if before is not None and before is not host:
            for job, one in list(self._followed.items()):
                if one.host is before and one.uid == swarm.uid:
                    self.follow(swarm, job, one.index, before.offset(job))
            if before not in self._hosts_of.values():
                self._clusters.pop(id(before), None)
                task = asyncio.get_running_loop().create_task(self._hosts.discard(before))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)
        return host

    def _cluster(self, swarm: SwarmHandle) -> SlurmCluster:
        """Raises: ProviderError."""
        host = self._host(swarm)
        cluster = self._clusters.get(id(host))
        if cluster is None or cluster.host is not host:
            client = SlurmClient(host, left=self._left)
            queue = self._queues.get(host.login)
            if queue is None:
                queue = Queue(client.queue, interval=self._interval, least=self._least)
                self._queues[host.login] = queue
            cluster = SlurmCluster(
                host,
                client,
                queue,
                epoch=self._epoch,
                left=self._left,
                beat_seconds=self._beat_seconds,
                least=self._least,
            )
            self._clusters[id(host)] = cluster
        return cluster

    # --- workers ---------------------------------------------------------------------------------

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Submit workers that were not submitted yet; those that were are adopted.

        Raises: ProviderError (``PartitionNotFound``, ``PartitionDown``, ``PartitionTooSmall``,
            ``AccountNotFound``, ``QosNotFound``, ``TimeLimitTooLong``, ``SbatchOptionRefused``,
            ``SubmissionRefused``, ...), ProviderUnreachable; OutcomeUnknown, after which the same
            may be asked again: what was submitted is then found.
        """
        by_swarm: dict[str, list[LaunchRequest]] = {}
        for request in requests:
            by_swarm.setdefault(request.swarm.uid, []).append(request)
        for mine in by_swarm.values():
            await self._cluster(mine[0].swarm).launch(mine[0].swarm, mine)

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every worker with a folder or a job. Raises: ProviderError, ProviderUnreachable."""
        return await self._cluster(swarm).observe(swarm)

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """Cancel workers' jobs: SIGTERM, and SIGKILL after Slurm's ``KillWait``; or at once."""
        names = sorted({component(job) for job in jobs})
        if names:
            await self._cluster(swarm).stop(swarm, names, force=force)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all workers' folders of the swarm into a file of this machine."""
        return await self._host(swarm).archive(swarm, destination)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """Remove the folders of ended workers; None: of all, and the swarm's own.

        ``keep`` is about volumes, of which a swarm has none here.

        Raises: ProviderError (``StillRunning``, before anything is removed), ...
        """
        names = None if jobs is None else {component(job) for job in jobs}
        await self._cluster(swarm).remove(swarm, names)

    async def discard_store(self, name: str) -> None:
        """Remove a project's shared git store from all hosts that were asked for.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        for host in self._hosts.known():
            await host.discard_store(component(name))

    # --- mail ------------------------------------------------------------------------------------

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """None: what workers run on here is not this provider's to pay for."""
        return []

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        host = self._host(swarm)
        before = self._followed.get(job)
        if before is not None and before.host is not host:
            before.host.unfollow(job)
        self._followed[job] = _Followed(host, swarm.uid, index)
        host.follow(swarm, job, index, offset)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        followed = self._followed.pop(job, None)
        if followed is not None:
            followed.host.unfollow(job)

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning."""
        followed = self._followed.get(job)
        if followed is not None:
            await followed.host.flush(job)

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
        await self._host(swarm).deliver(swarm, job, index, record, secrets or {})
