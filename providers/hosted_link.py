"""A controller's connection to its worker host, made again whenever it is cut.

What is asked while there is no connection waits a little, for a host that is just being started;
what was asked when the connection is cut has an outcome that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from worker.wire import (
    PROTOCOL,
    Frame,
    FrameTooLarge,
    WireError,
    encode,
    frame,
    frames,
    read,
)
from worker.wire_values import error_of

_LOG = logging.getLogger(__name__)

WELCOME_SECONDS = 20.0
"""A host answers a greeting within 5 s, and is given room."""
PATIENCE_SECONDS = 5.0
"""How long after the connection was lost a call still waits for the next."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
_LIMIT = 1024 * 1024
_MAX_WAITING = 64 * 1024 * 1024
"""Bytes that may wait for a host that does not read."""


class _Cut(Exception):
    """The connection is gone."""


class Link:
    """Calls over one connection at a time.

    Args:
        path: the host's socket.
        epoch: of this controller; the host obeys the highest it has seen.
        opened: called when a connection is made; what it posts goes first.
        received: called with every frame that answers no call. Raises: WireError.
    """

    def __init__(
        self,
        path: Path,
        epoch: int,
        *,
        opened: Callable[[], None],
        received: Callable[[Frame], None],
    ) -> None:
        self._path = path
        self._epoch = epoch
        self._opened = opened
        self._received = received
        self._writer: asyncio.StreamWriter | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._lost_at = time.monotonic()
        self._trouble = "it was not reached yet"
        self._running: asyncio.Task[None] | None = None
        self.fenced: ProviderError | None = None
        """Set once a newer controller has taken over: this one has nothing to say any more."""

    def start(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._lost_at = time.monotonic()
        self._running = asyncio.get_running_loop().create_task(self._run(), name="worker host")

    async def close(self) -> None:
        """End the connection; what waits for an answer is told so."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self._running = None
        self._trouble = "the connection to it was ended here"
        self._lost_at = -PATIENCE_SECONDS
        self._tell()

    # --- talking ---------------------------------------------------------------------------------

    def post(self, message: Frame) -> None:
        """Send a frame that has no answer, if there is a connection."""
        if self._writer is not None:
            self._writer.write(encode(message))

    async def call(self, verb: str, arguments: Any, *, seconds: float, effect: bool) -> Any:
        """Ask the host to do something; its answer.

        Args:
            verb: one of the host's calls.
            arguments: JSON.
            seconds: how long an answer is waited for.
            effect: whether it changes anything, so that no answer leaves that in doubt.

        Raises: ProviderError as the host tells it, or (``Fenced``); ProviderUnreachable; with
            ``effect`` OutcomeUnknown.
        """
        writer = await self._connected()
        number = next(self._numbers)
        try:
            data = encode(frame("call", json.dumps(arguments).encode(), id=number, verb=verb))
        except FrameTooLarge as error:
            raise ProviderError("RequestTooLarge", f"{verb}: {error}") from error
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            writer.write(data)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise self._doubt(verb, effect, f"did not answer within {seconds:.0f} s") from None
        except _Cut:
            raise self._doubt(verb, effect, "was lost before it answered") from None
        finally:
            self._waiting.pop(number, None)

    def _doubt(self, verb: str, effect: bool, what: str) -> ProviderError:
        kind = OutcomeUnknown if effect else ProviderUnreachable
        return kind("WorkerHostUnreachable", f"{verb}: the worker host at {self._path} {what}")

    async def _connected(self) -> asyncio.StreamWriter:
        """Raises: ProviderUnreachable; ProviderError (``Fenced``)."""
        until = self._lost_at + PATIENCE_SECONDS
        while True:
            if self.fenced is not None:
                raise ProviderError(self.fenced.reason, str(self.fenced))
            if self._writer is not None:
                if self._writer.transport.get_write_buffer_size() > _MAX_WAITING:
                    raise self._unreachable("it does not read what it is sent")
                return self._writer
            left = until - time.monotonic()
            if left <= 0:
                raise self._unreachable(self._trouble)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _unreachable(self, why: str) -> ProviderUnreachable:
        return ProviderUnreachable(
            "WorkerHostUnreachable", f"the worker host at {self._path} cannot be reached: {why}"
        )

    # --- the connection --------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                if await self._connect():
                    pause = FIRST_PAUSE
                self._note("it ended the connection")
            except (OSError, WireError) as error:
                self._note(getattr(error, "strerror", None) or str(error) or repr(error))
            if self.fenced is not None:
                return
            await asyncio.sleep(pause * random.uniform(0.7, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note(self, trouble: str) -> None:
        if self.fenced is not None:
            _LOG.error("worker host at %s: %s", self._path, self.fenced)
        elif trouble != self._trouble:
            _LOG.warning("worker host at %s: %s", self._path, trouble)
        self._trouble = trouble

    async def _connect(self) -> bool:
        """One connection from beginning to end; whether there was one.

        Raises: OSError, WireError.
        """
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LIMIT)
        try:
            writer.write(encode(frame("hello", protocol=PROTOCOL, epoch=self._epoch)))
            async with asyncio.timeout(WELCOME_SECONDS):
                answer = await read(reader)
            if answer is None or answer.type != "welcome":
                self._turned_away(answer)
                return False
            _LOG.info("worker host at %s: connected", self._path)
            self._trouble = ""
            self._writer = writer
            self._opened()
            self._tell()
            async for message in frames(reader):
                self._take(message)
            return True
        finally:
            if self._writer is not None:
                self._lost_at = time.monotonic()
            self._writer = None
            writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(_Cut())
            self._tell()

    def _turned_away(self, answer: Frame | None) -> None:
        """Raises: WireError."""
        if answer is None or answer.type != "turned-away":
            raise WireError("it did not greet back")
        error = error_of(answer)
        if error.reason != "Fenced":
            raise WireError(str(error))
        self.fenced = error

    def _take(self, message: Frame) -> None:
        """Raises: WireError."""
        kind = message.type
        if kind == "fenced":
            self.fenced = ProviderError(
                "Fenced",
                f"a controller of epoch {message.number('epoch')} has taken over the worker host "
                f"from this one of epoch {self._epoch}",
            )
        elif kind in ("done", "failed"):
            answer = self._waiting.get(message.number("id"))
            if answer is None or answer.done():
                return  # nobody waits for it any more
            if kind == "done":
                answer.set_result(message.json())
            else:
                answer.set_exception(error_of(message))
        else:
            self._received(message)

    def _tell(self) -> None:
        """Whoever waits for a connection looks again."""
        self._changed.set()
        self._changed.clear()
