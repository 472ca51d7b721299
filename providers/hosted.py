"""The provider for workers that a worker host runs, in another container of the same machine.

It is ``local`` as people know it: the same parameters, the same folders, but all of them on the
host's side of a Unix socket (``docs/worker-host.md``).  What the host says is not trusted: it
lives with the agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.base import (
    Ended,
    JobStatus,
    LaunchRequest,
    Machine,
    ProviderError,
    ProviderUnreachable,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.followings import Followings
from providers.host_values import launch_value, statuses_of, swarm_value
from providers.link import LIMIT, Link, Peer, Stream
from worker.wire import Frame, WireError

SECONDS: Mapping[str, float] = {
    "launch": 60.0,
    "observe": 30.0,
    "flush": 30.0,
    "deliver": 30.0,
    "stop": 60.0,
    "archive": 600.0,
    "remove": 300.0,
    "discard_store": 300.0,
}
"""How long each call waits for its answer; asked again, an archive goes on."""
LAUNCH_SECONDS = 1.0
"""What each further worker of one launch adds."""


class HostedProvider:
    """Workers of a worker host (the port is ``providers.base.Provider``).

    Args:
        socket: where the host listens.
        epoch: of this controller; a host obeys the highest, and turns lower ones away.
        archives: this side's folder for archives: what is asked to be put there, the host puts
            at the same place below its own.
        seconds: deadlines of calls, by name, where they differ from ``SECONDS``.
    """

    name = "local"
    stores: RemoteStores | None = None
    rents = False

    def __init__(
        self,
        socket: Path,
        epoch: int,
        *,
        archives: Path,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self._archives = archives
        self._seconds = {**SECONDS, **(seconds or {})}
        peer = Peer(f"the worker host at {socket}", "WorkerHostUnreachable")
        self._link = Link(
            peer, lambda: _open(socket), epoch, opened=self._opened, received=self._received
        )
        self._followings = Followings(self._link.post)
        self._ended: Ended | None = None
        self._met = False

    @property
    def fenced(self) -> bool:
        """Whether a newer controller has taken over the host, for good."""
        return self._link.fenced is not None

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin to connect and to follow."""
        self._followings.sink, self._ended = sink, ended
        self._link.start()

    async def close(self) -> None:
        """Stop following; workers run on. The provider is then spent."""
        self._ended = None
        self._followings.close()
        await self._link.close()

    # --- workers ---------------------------------------------------------------------------------

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Start workers that were not started yet.

        Raises: ProviderError of the first that failed, after all were tried.
        """
        more = LAUNCH_SECONDS * len(requests)
        results = await asyncio.gather(
            *(self._call("launch", launch_value(r), more=more) for r in requests),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every job with a folder on the host. Raises: ProviderUnreachable."""
        told = await self._call("observe", {"swarm": swarm_value(swarm)}, effect=False)
        try:
            return statuses_of(told)
        except WireError as error:
            raise ProviderUnreachable("WorkerHostFailed", f"the worker host: {error}") from error

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """SIGTERM to the workers, or SIGKILL to them and all that ever descended from them."""
        told = {"swarm": swarm_value(swarm), "jobs": sorted(set(jobs)), "force": force}
        await self._call("stop", told)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all job folders of the swarm; the archive's path on the host.

        Raises: ProviderError (``InvalidArchivePath`` if ``destination`` is not below the folder
            for archives).
        """
        try:
            below = destination.relative_to(self._archives)
        except ValueError:
            raise ProviderError(
                "InvalidArchivePath",
                f"{destination} is not below the folder for archives: give a relative "
                "termination.archivePath",
            ) from None
        path = "" if below == Path() else below.as_posix()
        told = await self._call("archive", {"swarm": swarm_value(swarm), "path": path})
        if not isinstance(told, str):
            raise ProviderError("WorkerHostFailed", "the worker host does not say where it packed")
        return Path(told)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """Remove the folders of ended jobs; None: of all, and the swarm's own.

        ``keep`` is about volumes, of which there are none here.
        """
        names = None if jobs is None else sorted(set(jobs))
        await self._call("remove", {"swarm": swarm_value(swarm), "jobs": names})

    async def discard_store(self, name: str) -> None:
        """Remove a project's shared git store from the host."""
        await self._call("discard_store", {"name": name})

    async def _call(
        self, verb: str, arguments: Mapping[str, Any], *, effect: bool = True, more: float = 0.0
    ) -> Any:
        seconds = self._seconds[verb] + more
        return await self._link.call(verb, arguments, seconds=seconds, effect=effect)

    # --- mail ------------------------------------------------------------------------------------

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Append one record to a job's inbox and wake its worker; secrets go before it."""
        told = {
            "swarm": swarm_value(swarm),
            "job": job,
            "index": index,
            "record": dict(record),
            "secrets": dict(secrets or {}),
        }
        await self._call("deliver", told)

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """None: what workers run on here is not this provider's to pay for."""
        return []

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        self._followings.follow(job, {"swarm": swarm_value(swarm), "index": index}, offset)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        self._followings.unfollow(job)

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning.

        Raises: ProviderUnreachable.
        """
        if self._followings.before_flush(job):
            await self._call("flush", {"job": job}, effect=False)

    def _opened(self, welcome: Frame) -> None:
        """A connection is made."""
        self._followings.opened()
        if self._met and self._ended is not None:
            for job in self._followings:
                self._ended(job)  # a host that was away may have lost its workers
        self._met = True

    def _received(self, message: Frame) -> None:
        """Raises: WireError."""
        kind = message.type
        if kind == "records":
            self._followings.records(message)
        elif kind == "ended" and self._ended is not None:
            job = message.text("job")
            if job in self._followings:
                self._ended(job)
        # A newer host may say what we do not know yet: that is no reason to part.


async def _open(socket: Path) -> Stream:
    """Raises: OSError."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=LIMIT)
    return Stream(reader, writer.transport, writer)
