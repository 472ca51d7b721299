"""Commands on a login host over SSH: one connection per host and user, for whoever needs it.

The connection is made when it is first needed, shared by all, asked for signs of life, and made
again when it was cut.  Every command has a deadline.  A command that may have begun when the
connection was cut has an outcome that nobody knows, unless it may be repeated.

asyncssh is imported only once somebody connects: that takes half a second of CPU.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.ssh_command import command_line, with_deadline
from providers.ssh_line import Line, Retry
from providers.ssh_slots import Slot, Slots
from providers.ssh_target import Means, SshTarget

if TYPE_CHECKING:
    from providers.ssh_channel import Channel
    from providers.ssh_connect import Connection

__all__ = ["Completed", "Retry", "SshHost", "SshHosts"]

_OUTPUT = 16 * 1024 * 1024
_CHUNK = 64 * 1024
_REFUSALS = 5
"""How often a host may refuse a session in a row when it has granted none."""


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
            itself (a refused key); doubled each time, to two minutes where the host notices.
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
        self._slots = Slots(sessions)
        self._line = Line(
            target,
            means,
            retry=retry or Retry(),
            connect_seconds=connect_seconds,
            keepalive_seconds=keepalive_seconds,
            lasting_seconds=lasting_seconds,
            idle_seconds=idle_seconds,
            made=self._slots.reset,
        )

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
        if self._line.failure is not None:
            return ProviderUnreachable(self._line.failure.reason, str(self._line.failure))
        return ProviderUnreachable(
            "ConnectTimedOut", f"{attempt.name} could not be started on {self} within {seconds:g} s"
        )

    async def _begin(self, line: str, attempt: _Attempt) -> Channel:
        """Start a command. Raises: ProviderUnreachable, _Cut."""
        alone, pause = 0, 0.1
        while alone < _REFUSALS:
            connection = await self._line.connected()
            slot = await self._slots.take(self._line.unused)
            self._line.used()
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

    @property
    def retry(self) -> Retry:
        """For what may be repeated."""
        return self._line.retry

    @retry.setter
    def retry(self, retry: Retry) -> None:
        self._line.retry = retry

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._line.up

    async def close(self) -> None:
        """End the connection, and every command on it."""
        await self._line.close()

    def __str__(self) -> str:
        return str(self._line)


@dataclass(slots=True)
class _Attempt:
    """How far a command has come, for the message if it comes no further."""

    name: str
    begun: bool = False
    trouble: str = ""


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
        self._hosts: dict[tuple[SshTarget, int], SshHost] = {}

    def host(
        self, target: SshTarget, retry: Retry | None = None, *, connection: int = 0
    ) -> SshHost:
        """The host of a target; ``retry`` is from now on its.

        ``connection`` is the number of the connection to it: what keeps sessions for long needs
        more than one, lest nothing is left for others.
        """
        host = self._hosts.get((target, connection))
        if host is None:
            host = self._hosts[target, connection] = self._make(target, self._means)
        if retry is not None:
            host.retry = retry
        return host

    async def discard(self, target: SshTarget) -> None:
        """End the connections of a target that nobody needs any more."""
        for key in [key for key in self._hosts if key[0] == target]:
            await self._hosts.pop(key).close()

    async def close(self) -> None:
        """End them all."""
        for target, _ in list(self._hosts):
            await self.discard(target)
