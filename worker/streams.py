"""Outboxes on their way to one controller: a batch of each job at a time, the next when taken.

So a controller that cannot keep records (a full disk) or does not read costs no memory here, and
what was on the way when a connection is cut is read from the files again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from worker.follower import NotTaken, RecordBatch
from worker.wire import Frame, frame


@dataclass(eq=False)
class _Stream:
    """One job's outbox as the controller asked for it last."""

    number: int
    """The controller's own; answers to an older one mean nothing."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is on the way."""
    more: bool = False
    """There was something to send while another batch was on the way."""
    refused: bool = False
    """The controller cannot take records now; it follows again when it can."""


class Outboxes(Protocol):
    """Who reads outboxes: a follower, or a provider that has one."""

    def unfollow(self, job: str) -> None:
        """Read a job's outbox no more."""
        ...

    async def flush(self, job: str) -> None:
        """Hand on all that a followed outbox holds now, before returning."""
        ...


class Streams:
    """What one connection follows.

    Args:
        outboxes: reads them, and hands their lines to ``sink``.
        send: sends a frame to the controller.
    """

    def __init__(self, outboxes: Outboxes, send: Callable[[Frame], None]) -> None:
        self._outboxes = outboxes
        self._send = send
        self._streams: dict[str, _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def sink(self, batch: RecordBatch) -> None:
        """Send records on their way. Raises: NotTaken (others are on the way)."""
        stream = self._streams.get(batch.job)
        if stream is None or stream.refused:
            raise NotTaken
        if not stream.idle.is_set():
            stream.more = True
            raise NotTaken
        stream.idle.clear()
        body = b"\n".join(batch.lines)
        self._send(frame("records", body, job=batch.job, stream=stream.number, end=batch.end))

    def follow(self, job: str, number: int, begin: Callable[[], None]) -> None:
        """Send a job's records from where ``begin`` has its outbox read.

        Raises: ProviderError, if ``begin`` does.
        """
        self._drop(job)
        stream = self._streams[job] = _Stream(number)
        stream.idle.set()
        begin()

    def unfollow(self, job: str) -> None:
        """Send nothing more of a job."""
        if job in self._streams:
            self._drop(job)
            self._outboxes.unfollow(job)

    def taken(self, job: str, number: int) -> None:
        """The batch on the way is kept by the controller: send the next."""
        stream = self._streams.get(job)
        if stream is None or stream.number != number:
            return
        stream.idle.set()
        if stream.more:
            stream.more = False
            task = asyncio.get_running_loop().create_task(self._outboxes.flush(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def refused(self, job: str, number: int) -> None:
        """The controller could not keep the batch on the way."""
        stream = self._streams.get(job)
        if stream is not None and stream.number == number:
            stream.refused = True
            stream.idle.set()
            self._outboxes.unfollow(job)

    async def flush(self, job: str) -> None:
        """Send all that an outbox holds now; returns when the controller has taken it."""
        while (stream := self._streams.get(job)) is not None and not stream.refused:
            await stream.idle.wait()
            if self._streams.get(job) is not stream:
                continue
            stream.more = False
            await self._outboxes.flush(job)
            if stream.idle.is_set() and not stream.more:
                return

    def close(self) -> None:
        """Follow nothing more."""
        for job in list(self._streams):
            self.unfollow(job)
        for task in self._tasks:
            task.cancel()

    def _drop(self, job: str) -> None:
        stream = self._streams.pop(job, None)
        if stream is not None:
            stream.idle.set()  # whoever waits for it looks again
