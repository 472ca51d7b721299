"""A controller's connection to what works for it elsewhere, made again whenever it is cut.

The other end is a worker host (``providers.hosted``) or an attendant (``providers.remote``).  What
is asked while there is no connection waits a little for the next; what was asked when the
connection is cut has an outcome that nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from worker import connection
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
"""A peer answers a greeting at once, a worker host within 5 s; both are given room."""
PATIENCE_SECONDS = 5.0
"""How long after the connection was lost a call still waits for the next."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
LIMIT = 1024 * 1024
"""For stream readers, bytes."""
_MAX_WAITING = 64 * 1024 * 1024
"""Bytes that may wait for a peer that does not read."""


class Writer(connection.Writer, Protocol):
    """Where frames go; ``asyncio.WriteTransport`` is one."""

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """An open connection."""

    reader: asyncio.StreamReader
    writer: Writer
    owner: object = None
    """Kept as long as the connection is."""


Opener = Callable[[], Awaitable[Stream]]
"""Raises OSError, WireError, or ProviderError, whose reason and message are then told."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, and how patient we are with them."""

    name: str
    """As messages call it."""
    reason: str
    """Of errors where nothing better is known."""
    patience: float | None = None
    """Seconds; default ``PATIENCE_SECONDS``."""
    longest_pause: float | None = None
    """Seconds between two attempts to connect, at most; default ``LONGEST_PAUSE``."""
    ping_seconds: float | None = None
    """How often a sign of life is asked for; None: the connection itself tells."""
    silence_seconds: float = 45.0
    """Without any sign of life for so long, with pings, the connection is given up."""
    idle_seconds: float | None = None
    """With pings: a connection that nobody needed for so long is ended, and made again when
    somebody does; None: never."""


class _Cut(Exception):
    """The connection is gone."""


class _Idle(Exception):
    """Nobody needs the connection."""


class Link:
    """Calls over one connection at a time.

    Args:
        peer: whom it leads to.
        opener: makes a connection.
        epoch: of this controller; a worker host obeys the highest it has seen.
        opened: called with the greeting when a connection is made; what it posts goes first.
            Raises: WireError.
        received: called with every frame that answers no call. Raises: WireError.
        needed: whether the connection is needed though nobody calls.
    """

    def __init__(
        self,
        peer: Peer,
        opener: Opener,
        epoch: int,
        *,
        opened: Callable[[Frame], None],
        received: Callable[[Frame], None],
        needed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._peer = peer
        self._opener = opener
        self._epoch = epoch
        self._opened = opened
        self._received = received
        self._needed = needed
        self._used_at = time.monotonic()
        self._resting = False
        self._wake = asyncio.Event()
        self._writer: Writer | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self._lost_at = time.monotonic()
        self._heard_at = 0.0
        self._trouble = "it was not reached yet"
        self._failure: ProviderError | None = None
        self._running: asyncio.Task[None] | None = None
        self.fenced: ProviderError | None = None
        """Set once a newer controller has taken over: this one has nothing to say any more."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._writer is not None

    def start(self) -> None:
        """Begin to connect; needs a running event loop."""
        self._lost_at = time.monotonic()
        self._running = asyncio.get_running_loop().create_task(self._run(), name=self._peer.name)

    async def close(self) -> None:
        """End the connection; what waits for an answer is told so."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self._running = None
        self._trouble, self._failure = "the connection to it was ended here", None
        self._lost_at = float("-inf")
        self._tell()

    def use(self) -> None:
        """The connection is needed now."""
        self._used_at = time.monotonic()
        if self._resting:
            self._resting, self._lost_at = False, self._used_at
            self._wake.set()

    # --- talking ---------------------------------------------------------------------------------

    def post(self, message: Frame) -> None:
        """Send a frame that has no answer, if there is a connection."""
        if self._writer is not None:
            self._writer.write(encode(message))

    async def call(self, verb: str, arguments: Any, *, seconds: float, effect: bool) -> Any:
        """Ask the other end to do something; its answer.

        Args:
            verb: one of the calls that it knows.
            arguments: JSON.
            seconds: how long an answer is waited for.
            effect: whether it changes anything, so that no answer leaves that in doubt.

        Raises: ProviderError as the other end tells it, or (``Fenced``); ProviderUnreachable; with
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
        return kind(self._peer.reason, f"{verb}: {self._peer.name} {what}")

    async def _connected(self) -> Writer:
        """Raises: ProviderUnreachable; ProviderError (``Fenced``)."""
        self.use()
        patience = self._peer.patience if self._peer.patience is not None else PATIENCE_SECONDS
        until = self._lost_at + patience
        while True:
            if self.fenced is not None:
                raise ProviderError(self.fenced.reason, str(self.fenced))
            if self._writer is not None:
                if self._writer.get_write_buffer_size() > _MAX_WAITING:
                    raise self._unreachable("it does not read what it is sent")
                return self._writer
            if self._failure is not None:
                raise ProviderUnreachable(self._failure.reason, str(self._failure))
            left = until - time.monotonic()
            if left <= 0:
                raise self._unreachable(self._trouble)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def _unreachable(self, why: str) -> ProviderUnreachable:
        return ProviderUnreachable(self._peer.reason, f"{self._peer.name} cannot be reached: {why}")

    # --- the connection --------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        longest = self._peer.longest_pause or LONGEST_PAUSE
        while True:
            await self._rest()
            try:
                if await self._connect():
                    pause = FIRST_PAUSE
                self._note("it ended the connection")
            except _Idle:
                _LOG.info("%s: the connection is ended, since nobody needs it", self._peer.name)
                continue
            except ProviderError as error:
                self._note(str(error), error)
            except (OSError, WireError) as error:
                self._note(getattr(error, "strerror", None) or str(error) or repr(error))
            except Exception as error:  # whatever it is, giving up for good would be worse
                _LOG.exception("%s", self._peer.name)
                self._note(f"{type(error).__name__}: {error}")
            if self.fenced is not None:
                return
            await asyncio.sleep(pause * random.uniform(0.7, 1.0))
            pause = min(2 * pause, longest)

    async def _rest(self) -> None:
        """Wait for somebody who needs the connection, after a while in which nobody did."""
        if self._idle():
            self._trouble, self._failure = "it is being connected to", None
            self._resting = True
            self._wake.clear()
            await self._wake.wait()

    def _idle(self) -> bool:
        limit = self._peer.idle_seconds
        if limit is None or self._waiting or self._needed():
            return False
        return time.monotonic() - self._used_at > limit

    def _note(self, trouble: str, failure: ProviderError | None = None) -> None:
        if self.fenced is not None:
            _LOG.error("%s: %s", self._peer.name, self.fenced)
        elif trouble != self._trouble:
            _LOG.warning("%s: %s", self._peer.name, trouble)
        self._trouble, self._failure = trouble, failure
        self._tell()

    async def _connect(self) -> bool:
        """One connection from beginning to end; whether there was one.

        Raises: OSError, WireError, ProviderError, _Idle.
        """
        stream = await self._opener()
        pinging: asyncio.Task[None] | None = None
        try:
            stream.writer.write(encode(frame("hello", protocol=PROTOCOL, epoch=self._epoch)))
            async with asyncio.timeout(WELCOME_SECONDS):
                answer = await read(stream.reader)
            if answer is None or answer.type != "welcome":
                self._turned_away(answer)
                return False
            _LOG.info("%s: connected", self._peer.name)
            self._trouble, self._failure = "", None
            self._writer = stream.writer
            self._opened(answer)
            self._tell()
            if self._peer.ping_seconds is not None:
                pinging = asyncio.create_task(self._ping(stream, self._peer.ping_seconds))
            self._heard_at = time.monotonic()
            async for message in frames(stream.reader):
                self._heard_at = time.monotonic()
                self._take(message)
            return True
        finally:
            if pinging is not None:
                pinging.cancel()
            if self._writer is not None:
                self._lost_at = time.monotonic()
            self._writer = None
            stream.writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(_Cut())
            self._tell()

    async def _ping(self, stream: Stream, seconds: float) -> None:
        """Ask for signs of life; without any, have the connection end."""
        while True:
            await asyncio.sleep(seconds)
            silent = time.monotonic() - self._heard_at
            if silent > self._peer.silence_seconds:
                why = WireError(f"nothing was heard from it for {silent:.0f} s")
                stream.reader.set_exception(why)
                return
            if self._idle():
                # Who calls from now on waits for the next.
                self._writer, self._lost_at = None, time.monotonic()
                stream.reader.set_exception(_Idle())
                return
            self.post(frame("ping"))

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
