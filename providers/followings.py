"""Outboxes that somebody else reads for us, and how far our sink has taken each.

After every cut all are asked for again from there, so no record is lost and none comes twice.
What the other side says is not trusted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import NotTaken, RecordBatch, Sink
from worker.follower import MAX_LINE
from worker.wire import Frame, frame

_LOG = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""After this long, records that could not be taken are asked for again."""
MAX_GAP = 256 * 1024 * 1024
"""Bytes of an outbox that one batch may pass over (lines that are too long)."""


@dataclass(slots=True, eq=False)
class _Followed:
    """One outbox, and how far the sink has taken it."""

    job: str
    where: Mapping[str, Any]
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


class Followings:
    """What is followed over a link.

    Args:
        post: sends a frame, if there is a connection.
    """

    def __init__(self, post: Callable[[Frame], None]) -> None:
        self._post = post
        self._followed: dict[str, _Followed] = {}
        self._numbers = itertools.count(1)
        self.sink: Sink | None = None
        """Where records go."""

    def __contains__(self, job: object) -> bool:
        return job in self._followed

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._followed))

    def follow(self, job: str, where: Mapping[str, Any], offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already).

        Args:
            job: whose.
            where: what tells the other side where it lies.
            offset: bytes, the beginning of a line.
        """
        before = self._followed.get(job)
        if before is not None:
            before.forget_again()
        followed = self._followed[job] = _Followed(job, where, offset, 0)
        self._ask(followed)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        followed = self._followed.pop(job, None)
        if followed is not None:
            followed.forget_again()
            self._post(frame("unfollow", job=job))

    def offset(self, job: str) -> int:
        """How far a followed job's outbox was taken, bytes; 0 for another's."""
        followed = self._followed.get(job)
        return followed.offset if followed is not None else 0

    def close(self) -> None:
        """Stop following all."""
        self.sink = None
        for job in self:
            self.unfollow(job)

    def opened(self) -> None:
        """A connection is made: all is followed again from where the sink has taken it."""
        for followed in self._followed.values():
            self._ask(followed)

    def before_flush(self, job: str) -> bool:
        """Whether a job is followed; what was refused of it is then asked for again."""
        followed = self._followed.get(job)
        if followed is not None and followed.refused:
            self._ask(followed)
        return followed is not None

    def records(self, message: Frame) -> None:
        """Hand on what a ``records`` frame brings. Raises: WireError."""
        job, number, end = message.text("job"), message.number("stream"), message.number("end")
        followed = self._followed.get(job)
        if followed is None or followed.number != number or self.sink is None:
            return
        lines = message.body.split(b"\n")
        if end > followed.offset + len(message.body) + MAX_GAP or max(map(len, lines)) > MAX_LINE:
            _LOG.error("%s: records that cannot be are not taken, nor any after them", job)
            self.unfollow(job)
            return
        try:
            self.sink(RecordBatch(job, lines, end))
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
                self._post(frame("taken", job=job, stream=number))

    def _ask(self, followed: _Followed) -> None:
        followed.forget_again()
        followed.number = next(self._numbers)
        told = {**followed.where, "offset": followed.offset}
        head = {"job": followed.job, "stream": followed.number}
        self._post(frame("follow", json.dumps(told).encode(), **head))

    def _refuse(self, followed: _Followed) -> None:
        """Have the other side hold back a job's records for a while."""
        followed.refused = True
        self._post(frame("refused", job=followed.job, stream=followed.number))
        loop = asyncio.get_running_loop()
        followed.again = loop.call_later(AGAIN_SECONDS, self._ask, followed)
