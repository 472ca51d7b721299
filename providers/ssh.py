"""Commands on a login host over SSH: one connection per host and user, for whoever needs it.

The connection is made when it is first needed, shared by all, asked for signs of life, and made
again when it was cut.  Every command has a deadline.  A command that may have begun when the
connection was cut has an outcome that nobody knows, unless it may be repeated.

asyncssh is imported only once somebody connects: that takes half a second of CPU.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.ssh_command import command_line, with_deadline
from providers.ssh_slots import Slot, Slots
from providers.ssh_target import Means, SshTarget

if TYPE_CHECKING:
    from providers.ssh_channel import Channel
    from providers.ssh_connect import Connection

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 30.0
_LONGEST_LASTING = 120.0
_OUTPUT = 16 * 1024 * 1024
_CHUNK = 64 * 1024
_REFUSALS = 5
"""How often a host may refuse a session in a row when it has granted none."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often what may be repeated is tried again, and after what first pause."""

    attempts: int = 4
    """Beside the first."""
    delay_seconds: float = 1.5

    @property
    def tries(self) -> int:
        """The first one included."""
        return self.attempts + 1

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Retry:
        """``retry: {attempts, delaySeconds}`` of a provider block."""
        told = parameters.get("retry") or {}
        return cls(
            int(told.get("attempts", cls().attempts)),
            float(told.get("delaySeconds", cls().delay_seconds)),
        )

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: growing, and never twice the same."""
        grown = self.delay_seconds * 1.6 ** min(failures - 1, 20)
        return float(min(grown, _LONGEST_PAUSE) * random.uniform(0.7, 1.3))


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended."""

    code: int
    """Exit status; 128 and more: a signal."""
    out: bytes
    err: bytes
    """The last 64 KiB of its error output."""


class _Cut(Exception):
    """The connection ended under a command."""

    def __init__(self, begun: bool) -> None:
        self.begun = begun


class _Refused(Exception):
    """The host has no session to give."""


class SshHost:
    """One login host.

    Args:
        target: where, and as whom.
        means: what of this machine's user may be used to get in.
        retry: for what may be repeated: making the connection, and repeatable commands.
        sessions: commands at a time on the connection; OpenSSH's default limit is 10.
        connect_seconds: for each host on the way.
        keepalive_seconds: how often a silent host is asked whether it is there; a connection
            with three questions unanswered is lost.
        lasting_seconds: how long it is not asked again after a failure that does not pass by
            itself (a refused key); doubled each time, to two minutes.
        idle_seconds: a connection that nobody used for so long is ended.
    """

    def __init__(
        self,
        target: SshTarget,
        means: Means,
        *,
        retry: Retry | None = None,
        sessions: int = 8,
        connect_seconds: float = 15.0,
        keepalive_seconds: float = 10.0,
        lasting_seconds: float = 15.0,
        idle_seconds: float = 600.0,
    ) -> None:
        self.target = target
        self.retry = retry or Retry()
        self._means = means
        self._slots = Slots(sessions)
        self._connect_seconds = connect_seconds
        self._keepalive_seconds = keepalive_seconds
        self._lasting_seconds = lasting_seconds
        self._idle_seconds = idle_seconds
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self._failures = 0
        self._failure: ProviderUnreachable | None = None
        self._not_before = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._closed = False

    # --- commands --------------------------------------------------------------------------------

    async def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float,
        input: bytes = b"",
        repeatable: bool = False,
        limit: int = _OUTPUT,
    ) -> Completed:
        """Run a command to its end.

        Args:
            argv: program and arguments; the login shell there does nothing to them.
            seconds: for all of it, the connection included; then it is killed there.
            input: what it reads.
            repeatable: whether it does no harm to run it twice.
            limit: bytes of output; more of it is an error, never a shorter output.

        Raises:
            ProviderUnreachable: it was not run, or it is ``repeatable`` and gave no answer.
            OutcomeUnknown: it may or may not have run (``ConnectionLost``, ``CommandTimedOut``).
            ProviderError: ``OutputTooLarge``.
        """
        line = command_line(with_deadline(argv, seconds))
        attempt = _Attempt(argv[0])
        try:
            async with asyncio.timeout(seconds):
                return await self._repeat(line, input, limit, repeatable, attempt)
        except TimeoutError:
            raise self._late(attempt, seconds, repeatable) from None

    async def open(self, argv: Sequence[str], *, seconds: float = 60.0) -> Channel:
        """Start a command to talk with; it must bear being started twice.

        Args:
            argv: as for ``run``.
            seconds: until it has been started, the connection included.

        Raises: ProviderUnreachable.
        """
        line = command_line(argv)
        attempt = _Attempt(argv[0])
        try:
            async with asyncio.timeout(seconds):
                for number in range(1, self.retry.tries + 1):
                    try:
                        return await self._begin(line, attempt)
                    except _Cut:
                        await asyncio.sleep(self.retry.pause(number))
        except TimeoutError:
            raise self._late(attempt, seconds, repeatable=True) from None
        raise self._lost(attempt)

    async def _repeat(
        self, line: str, input: bytes, limit: int, repeatable: bool, attempt: _Attempt
    ) -> Completed:
        for number in range(1, self.retry.tries + 1):
            try:
                attempt.begun = False
                channel = await self._begin(line, attempt)
                attempt.begun = True
                return await _exchange(channel, input, limit, f"{attempt.name} on {self}")
            except _Cut as cut:
                if cut.begun and not repeatable:
                    raise OutcomeUnknown(
                        "ConnectionLost",
                        f"the connection to {self} was cut while {attempt.name} ran there: it may "
                        "or may not have done its work",
                    ) from None
            if number < self.retry.tries:
                await asyncio.sleep(self.retry.pause(number))
        raise self._lost(attempt)

    def _lost(self, attempt: _Attempt) -> ProviderUnreachable:
        return ProviderUnreachable(
            "ConnectionLost",
            f"the connection to {self} was cut {self.retry.tries} times in a row while "
            f"{attempt.name} was to run there",
        )

    def _refused(self, attempt: _Attempt) -> ProviderUnreachable:
        return ProviderUnreachable(
            "SessionRefused",
            f"{self} lets us in but does not run {attempt.name}: {attempt.trouble}. MaxSessions in "
            "its sshd_config must be 2 at least",
        )

    def _late(self, attempt: _Attempt, seconds: float, repeatable: bool) -> ProviderError:
        words = f"{attempt.name} on {self} did not end within {seconds:g} s"
        if attempt.begun:
            kind = ProviderUnreachable if repeatable else OutcomeUnknown
            return kind("CommandTimedOut", f"{words}, and was killed")
        if attempt.trouble:
            return self._refused(attempt)
        if self._failure is not None:
            return ProviderUnreachable(self._failure.reason, str(self._failure))
        return ProviderUnreachable(
            "ConnectTimedOut", f"{attempt.name} could not be started on {self} within {seconds:g} s"
        )

    async def _begin(self, line: str, attempt: _Attempt) -> Channel:
        """Start a command. Raises: ProviderUnreachable, _Cut."""
        alone, pause = 0, 0.1
        while alone < _REFUSALS:
            connection = await self._connected()
            slot = await self._slots.take(self._unused)
            self._used()
            try:
                channel = await _start(connection, line, slot, attempt)
                attempt.trouble = ""
                return channel
            except _Refused as error:
                attempt.trouble = str(error)
                alone += not self._slots.used
                self._slots.shrink()
                await asyncio.sleep(random.uniform(0.05, pause))
                pause = min(2 * pause, 2.0)
        raise self._refused(attempt)

    # --- the connection --------------------------------------------------------------------------

    async def _connected(self) -> Connection:
        """The connection, made if need be, by one for all. Raises: ProviderUnreachable."""
        if self._connection is not None and not self._connection.ended:
            return self._connection
        if self._closed:
            raise ProviderUnreachable("ConnectionLost", f"the connection to {self} was ended here")
        if self._attempt is None or self._attempt.done():
            if self._failure is not None and time.monotonic() < self._not_before:
                raise ProviderUnreachable(self._failure.reason, str(self._failure))
            self._attempt = asyncio.get_running_loop().create_task(self._make(), name=f"ssh {self}")
            self._attempt.add_done_callback(_seen)
        return await asyncio.shield(self._attempt)

    async def _make(self) -> Connection:
        """Connect, as often as may be tried. Raises: ProviderUnreachable."""
        from providers.ssh_connect import connect
        from providers.ssh_errors import LASTING

        left = max(1, self.retry.tries - self._failures)
        while True:
            try:
                connection = await connect(
                    self.target,
                    self._means,
                    seconds=self._connect_seconds,
                    keepalive=self._keepalive_seconds,
                    lost=self._on_lost,
                )
            except ProviderUnreachable as error:
                left -= 1
                self._failures += 1
                lasting = error.reason in LASTING
                pause = self._lasting_pause() if lasting else self.retry.pause(self._failures)
                self._note(error)
                self._not_before = time.monotonic() + pause
                if lasting or left <= 0:
                    raise
                await asyncio.sleep(pause)
                continue
            _LOG.info("%s: connected", connection.where)
            self._connection, self._failure, self._failures = connection, None, 0
            self._slots.reset()
            return connection

    def _lasting_pause(self) -> float:
        grown = self._lasting_seconds * 2.0 ** min(self._failures - 1, 10)
        return min(grown, _LONGEST_LASTING)

    def _note(self, error: ProviderUnreachable) -> None:
        if self._failure is None or self._failure.reason != error.reason:
            _LOG.warning("%s: %s: %s", self, error.reason, error)
        self._failure = error

    def _on_lost(self) -> None:
        if self._connection is not None and self._connection.ended and not self._closed:
            _LOG.warning("%s: the connection was lost", self._connection.where)
            self._connection.close()
            self._connection = None

    def _used(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _unused(self) -> None:
        """The last command ended."""
        self._used()
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._idle_seconds, self._disconnect)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and not self._connection.ended

    async def close(self) -> None:
        """End the connection, and every command on it."""
        self._closed = True
        self._used()
        if self._attempt is not None:
            self._attempt.cancel()
            with suppress(asyncio.CancelledError, ProviderError):
                await self._attempt
        self._disconnect()

    def __str__(self) -> str:
        return str(self.target) if self._connection is None else self._connection.where


@dataclass(slots=True)
class _Attempt:
    """How far a command has come, for the message if it comes no further."""

    name: str
    begun: bool = False
    trouble: str = ""


def _seen(task: asyncio.Task[Any]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


async def _start(connection: Connection, line: str, slot: Slot, attempt: _Attempt) -> Channel:
    """Raises: _Cut, _Refused."""
    import asyncssh

    from providers.ssh_channel import Channel, Session

    session = Session(slot.release)
    opening = asyncio.get_running_loop().create_task(
        connection.last.create_session(
            lambda: session, line, encoding=None, request_pty=False, env=None, send_env=None
        )
    )
    try:
        await asyncio.shield(opening)
        return Channel(session)
    except asyncio.CancelledError:
        # The host may open it yet: it is closed then, or it would be left over there.
        attempt.begun = session.begun
        opening.add_done_callback(lambda task: _discard(task, slot))
        raise
    except asyncssh.ChannelOpenError as error:
        slot.release()
        if connection.ended:
            raise _Cut(session.begun) from None
        raise _Refused(error.reason) from None
    except (asyncssh.Error, OSError):
        slot.release()
        raise _Cut(session.begun) from None


def _discard(opening: asyncio.Task[Any], slot: Slot) -> None:
    if opening.cancelled() or opening.exception() is not None:
        slot.release()
    else:
        channel, _ = opening.result()
        with suppress(OSError):
            channel.kill()
        channel.abort()


async def _exchange(channel: Channel, input: bytes, limit: int, name: str) -> Completed:
    """Talk with a command to its end. Raises: _Cut, ProviderError (``OutputTooLarge``)."""
    feeding = asyncio.get_running_loop().create_task(_feed(channel, input))
    out = bytearray()
    try:
        while chunk := await channel.reader.read(_CHUNK):
            out += chunk
            if len(out) > limit:
                raise ProviderError(
                    "OutputTooLarge", f"{name} printed more than {limit} bytes, and was killed"
                )
        code = await channel.wait_closed()
        if code is None:
            raise _Cut(begun=True)
        return Completed(code, bytes(out), channel.errors)
    finally:
        feeding.cancel()
        channel.kill()


async def _feed(channel: Channel, data: bytes) -> None:
    """Hand a command its input; one that ends without reading it all does no harm."""
    with suppress(ConnectionResetError):
        for begin in range(0, len(data), _CHUNK):
            channel.writer.write(data[begin : begin + _CHUNK])
            await channel.writer.drain()
        channel.writer.write_eof()


class SshHosts:
    """The login hosts of a controller: equal targets, credentials included, share a connection.

    Args:
        means: what of this machine's user may be used to get in.
        make: makes a host; for tests.
    """

    def __init__(
        self, means: Means, *, make: Callable[[SshTarget, Means], SshHost] | None = None
    ) -> None:
        self._means = means
        self._make = make or SshHost
        self._hosts: dict[SshTarget, SshHost] = {}

    def host(self, target: SshTarget, retry: Retry | None = None) -> SshHost:
        """The host of a target; ``retry`` is from now on its."""
        host = self._hosts.get(target)
        if host is None:
            host = self._hosts[target] = self._make(target, self._means)
        if retry is not None:
            host.retry = retry
        return host

    async def discard(self, target: SshTarget) -> None:
        """End the connection of a target that nobody needs any more."""
        host = self._hosts.pop(target, None)
        if host is not None:
            await host.close()

    async def close(self) -> None:
        """End them all."""
        for target in list(self._hosts):
            await self.discard(target)
