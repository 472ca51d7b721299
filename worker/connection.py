"""One controller's connection to what works for it elsewhere: its calls, each on its own, and mail.

A worker host (``providers.host``) and an attendant on a login host (``worker.attendant``) serve
the same way; what they do for a controller is theirs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from worker.failures import OutcomeUnknown, ProviderError, ProviderUnreachable
from worker.streams import Outboxes, Streams
from worker.wire import Frame, FrameTooLarge, encode, frame
from worker.wire_values import Arguments, error_frame

_LOG = logging.getLogger(__name__)


class Writer(Protocol):
    """Where frames go; ``asyncio.WriteTransport`` is one."""

    def write(self, data: bytes) -> None:
        """Take bytes to be sent; does not wait."""
        ...

    def close(self) -> None:
        """Send nothing more."""
        ...


class Service(Protocol):
    """What is done for a controller."""

    name: str
    """As messages call it."""
    failed: str
    """The reason of an error that nobody expected."""
    looks: frozenset[str]
    """Calls without effect: failing, they leave nothing in doubt."""
    lasting: frozenset[str]
    """Calls with which a next controller need not wait: they end no worker and start none."""

    async def perform(self, verb: str, told: Any) -> Any:
        """Do what is asked; what is to be answered, as JSON knows it.

        Raises: ProviderError and its kinds.
        """
        ...

    def following(self, job: str, told: Any) -> Callable[[], None]:
        """What begins to read a job's outbox. Raises: ProviderError."""
        ...


class Connection:
    """A controller that was let in.

    Args:
        messages: what it sends.
        writer: where to answer.
        outboxes: who reads them.
        service: does what is asked.
    """

    def __init__(
        self,
        messages: AsyncIterator[Frame],
        writer: Writer,
        outboxes: Outboxes,
        service: Service,
    ) -> None:
        self._messages = messages
        self._writer = writer
        self._service = service
        self._effects: set[asyncio.Task[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self.streams = Streams(outboxes, self.send)
        self.ended = False

    async def serve(self, welcome: Frame) -> None:
        """Do what the controller asks until one side ends it. Raises: WireError, OSError."""
        self.send(welcome)
        async for message in self._messages:
            if self.ended:
                return
            self._take(message)

    def send(self, message: Frame) -> None:
        """Send a frame; after the end it goes nowhere."""
        if not self.ended:
            self._writer.write(encode(message))

    def end(self, farewell: Frame | None = None) -> None:
        """End it at once: nothing more is done for this controller, and nothing more is sent.

        Calls that are under way go on; ``settled`` waits for them.
        """
        if self.ended:
            return
        if farewell is not None:
            self.send(farewell)
        self.ended = True
        self.streams.close()
        for task in self._looks:
            task.cancel()
        self._writer.close()

    async def settled(self, patience: float) -> None:
        """Wait until calls that were under way have taken effect, for so many seconds at most."""
        if self._effects:
            await asyncio.wait(self._effects, timeout=patience)

    def _take(self, message: Frame) -> None:
        """Raises: WireError."""
        kind = message.type
        if kind == "call":
            self._call(message)
        elif kind == "follow":
            self._follow(message)
        elif kind == "unfollow":
            self.streams.unfollow(message.text("job"))
        elif kind == "taken":
            self.streams.taken(message.text("job"), message.number("stream"))
        elif kind == "refused":
            self.streams.refused(message.text("job"), message.number("stream"))
        elif kind == "ping":
            self.send(frame("pong"))
        # A newer controller may say what we do not know yet: that is no reason to part.

    def _follow(self, message: Frame) -> None:
        job, number = message.text("job"), message.number("stream")
        try:
            self.streams.follow(job, number, self._service.following(job, message.json()))
        except ProviderError as error:
            _LOG.warning("%s is not followed: %s", job, error)

    def _call(self, message: Frame) -> None:
        number, verb = message.number("id"), message.text("verb")
        told = message.json()
        task = asyncio.get_running_loop().create_task(self._answer(number, verb, told))
        group = self._looks if self._may_be_cut(verb) else self._effects
        group.add(task)
        task.add_done_callback(group.discard)

    def _may_be_cut(self, verb: str) -> bool:
        return verb in self._service.looks or verb in self._service.lasting

    async def _answer(self, number: int, verb: str, told: Any) -> None:
        try:
            body = json.dumps(await self._perform(verb, told)).encode()
            self.send(frame("done", body, id=number))
        except ProviderError as error:
            self.send(error_frame("failed", error, id=number))
        except FrameTooLarge as error:
            self._fail(number, verb, f"the answer cannot be sent: {error}")
        except Exception as error:
            _LOG.exception("%s", verb)
            self._fail(number, verb, f"{type(error).__name__}: {error}")

    async def _perform(self, verb: str, told: Any) -> Any:
        if verb == "flush":
            await self.streams.flush(Arguments.of(told).text("job"))
            return None
        return await self._service.perform(verb, told)

    def _fail(self, number: int, verb: str, why: str) -> None:
        look = verb in self._service.looks
        kind: type[ProviderError] = ProviderUnreachable if look else OutcomeUnknown
        error = kind(self._service.failed, f"{self._service.name} failed at {verb}: {why}")
        self.send(error_frame("failed", error, id=number))
