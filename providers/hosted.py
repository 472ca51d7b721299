"""The provider for workers that a worker host runs, in another container of the same machine.

It is ``local`` as people know it: the same parameters, the same folders, but all of them on the
host's side of a Unix socket (``docs/worker-host.md``).  What the host says is not trusted: it
lives with the agents.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.base import (
    Ended,
    JobStatus,
    LaunchRequest,
    NotTaken,
    ProviderError,
    ProviderUnreachable,
    RecordBatch,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.host_values import launch_value, statuses_of, swarm_value
from providers.hosted_link import Link
from worker.follower import MAX_LINE
from worker.wire import Frame, WireError, frame

_LOG = logging.getLogger(__name__)

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
AGAIN_SECONDS = 1.0
"""After this long, records that could not be taken are asked for again."""
MAX_GAP = 256 * 1024 * 1024
"""Bytes of an outbox that one batch may pass over (lines that are too long)."""


@dataclass(slots=True, eq=False)
class _Followed:
    """One outbox, and how far the sink has taken it."""

    swarm: SwarmHandle
    job: str
    index: int
    offset: int
    number: int
    """Of the stream that brings it; records of an older one are not for us."""
    refused: bool = False
    again: asyncio.TimerHandle | None = None

    def forget_again(self) -> None:
        """It is asked for again already, or not at all any more."""
        self.refused = False
        if self.again is not None:
            self.again.cancel()
            self.again = None


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
        self._link = Link(socket, epoch, opened=self._opened, received=self._received)
        self._followed: dict[str, _Followed] = {}
        self._numbers = itertools.count(1)
        self._sink: Sink | None = None
        self._ended: Ended | None = None
        self._met = False

    @property
    def fenced(self) -> bool:
        """Whether a newer controller has taken over the host, for good."""
        return self._link.fenced is not None

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin to connect and to follow."""
        self._sink, self._ended = sink, ended
        self._link.start()

    async def close(self) -> None:
        """Stop following; workers run on. The provider is then spent."""
        self._sink = self._ended = None
        for job in list(self._followed):
            self.unfollow(job)
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

    async def remove(self, swarm: SwarmHandle, jobs: Iterable[str] | None = None) -> None:
        """Remove the folders of ended jobs; None: of all, and the swarm's own."""
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

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        before = self._followed.get(job)
        if before is not None:
            before.forget_again()
        followed = self._followed[job] = _Followed(swarm, job, index, offset, 0)
        self._ask(followed)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        followed = self._followed.pop(job, None)
        if followed is not None:
            followed.forget_again()
            self._link.post(frame("unfollow", job=job))

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning.

        Raises: ProviderUnreachable.
        """
        followed = self._followed.get(job)
        if followed is None:
            return
        if followed.refused:
            self._ask(followed)
        await self._call("flush", {"job": job}, effect=False)

    def _opened(self) -> None:
        """A connection is made: all is followed again from where the sink has taken it."""
        for followed in self._followed.values():
            self._ask(followed)
        if self._met and self._ended is not None:
            for job in list(self._followed):
                self._ended(job)  # a host that was away may have lost its workers
        self._met = True

    def _ask(self, followed: _Followed) -> None:
        followed.forget_again()
        followed.number = next(self._numbers)
        told = {
            "swarm": swarm_value(followed.swarm),
            "index": followed.index,
            "offset": followed.offset,
        }
        head = {"job": followed.job, "stream": followed.number}
        self._link.post(frame("follow", json.dumps(told).encode(), **head))

    def _received(self, message: Frame) -> None:
        """Raises: WireError."""
        kind = message.type
        if kind == "records":
            self._records(message)
        elif kind == "ended" and self._ended is not None:
            job = message.text("job")
            if job in self._followed:
                self._ended(job)
        # A newer host may say what we do not know yet: that is no reason to part.

    def _records(self, message: Frame) -> None:
        """Raises: WireError."""
        job, number, end = message.text("job"), message.number("stream"), message.number("end")
        followed = self._followed.get(job)
        if followed is None or followed.number != number or self._sink is None:
            return
        lines = message.body.split(b"\n")
        if end > followed.offset + len(message.body) + MAX_GAP or max(map(len, lines)) > MAX_LINE:
            _LOG.error("%s: records that cannot be are not taken, nor any after them", job)
            self.unfollow(job)
            return
        try:
            self._sink(RecordBatch(job, lines, end))
        except NotTaken:
            self._refuse(followed)
        except Exception as error:
            self._refuse(followed)
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"records of {job} were not taken", "exception": error}
            )
        else:
            if followed.number == number:  # the sink may have asked for others meanwhile
                followed.offset = end
                self._link.post(frame("taken", job=job, stream=number))

    def _refuse(self, followed: _Followed) -> None:
        """Have the host hold back a job's records for a while."""
        followed.refused = True
        self._link.post(frame("refused", job=followed.job, stream=followed.number))
        loop = asyncio.get_running_loop()
        followed.again = loop.call_later(AGAIN_SECONDS, self._ask, followed)
