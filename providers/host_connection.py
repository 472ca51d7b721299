"""One controller's connection to a worker host: its calls, each on its own, and its mail."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from providers.base import OutcomeUnknown, Provider, ProviderError, ProviderUnreachable
from providers.host_calls import LOOKS, Calls
from providers.host_streams import Streams
from providers.host_values import Arguments, error_frame
from providers.host_wire import Frame, FrameTooLarge, encode, frame, frames

_LOG = logging.getLogger(__name__)
_LASTING = frozenset({"archive"})
"""Calls with which a next controller need not wait: they end no worker and start none."""


class Connection:
    """A controller that was let in.

    Args:
        reader, writer: the stream.
        provider: reads the outboxes.
        calls: does what is asked.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        provider: Provider,
        calls: Calls,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._calls = calls
        self._effects: set[asyncio.Task[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self.streams = Streams(provider, self.send)
        self.ended = False

    async def serve(self) -> None:
        """Do what the controller asks until one side ends it. Raises: WireError, OSError."""
        self.send(frame("welcome"))
        async for message in frames(self._reader):
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
        # A newer controller may say what we do not know yet: that is no reason to part.

    def _follow(self, message: Frame) -> None:
        job, number = message.text("job"), message.number("stream")
        try:
            told = Arguments.of(message.json())
            swarm = self._calls.placed(told.swarm())
            self.streams.follow(swarm, job, told.number("index"), told.number("offset"), number)
        except ProviderError as error:
            _LOG.warning("%s is not followed: %s", job, error)

    def _call(self, message: Frame) -> None:
        number, verb = message.number("id"), message.text("verb")
        told = message.json()
        task = asyncio.get_running_loop().create_task(self._answer(number, verb, told))
        group = self._looks if verb in LOOKS or verb in _LASTING else self._effects
        group.add(task)
        task.add_done_callback(group.discard)

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
        arguments = Arguments.of(told)
        if verb == "flush":
            await self.streams.flush(arguments.text("job"))
            return None
        return await self._calls.perform(verb, arguments)

    def _fail(self, number: int, verb: str, why: str) -> None:
        kind: type[ProviderError] = ProviderUnreachable if verb in LOOKS else OutcomeUnknown
        error = kind("WorkerHostFailed", f"the worker host failed at {verb}: {why}")
        self.send(error_frame("failed", error, id=number))
