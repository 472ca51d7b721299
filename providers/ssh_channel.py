"""A command that runs on a login host: its output as a stream, its input, its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import asyncssh

_LIMIT = 1024 * 1024
"""Bytes of output that wait here before the other side is told to pause (twice as many)."""
_TAIL = 64 * 1024
"""Bytes of error output that are kept, the last ones."""


class Session(asyncssh.SSHClientSession[bytes]):
    """Receives what asyncssh has for one channel; ``ended`` is called at its end."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.reader = asyncio.StreamReader(limit=_LIMIT)
        self._ended = ended
        self.begun = False
        """Whether the command may have begun."""
        self.code: int | None = None
        self.over = asyncio.Event()
        self.channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._errors: deque[bytes] = deque()
        self._kept = 0
        self._may_write = asyncio.Event()
        self._may_write.set()

    # --- asyncssh calls --------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel is open; the command is asked for next."""
        self.begun = True
        self.channel = chan
        self.reader.set_transport(cast("asyncio.Transport", _Flow(chan)))

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Output, or error output."""
        if datatype != asyncssh.EXTENDED_DATA_STDERR:
            self.reader.feed_data(data)
            return
        self._errors.append(data)
        self._kept += len(data)
        while self._kept - len(self._errors[0]) >= _TAIL:
            self._kept -= len(self._errors.popleft())

    def eof_received(self) -> bool:
        """The end of the output; input may go on."""
        self.reader.feed_eof()
        return True

    def exit_status_received(self, status: int) -> None:
        """The command ended."""
        self.code = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """The command was ended by a signal; the code is as a shell has it."""
        self.code = 128 + _SIGNALS.get(signal, 0)

    def pause_writing(self) -> None:
        """The other side does not take more now."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, or the connection was cut."""
        self._ended()
        self.let_go()

    # --- the channel asks ------------------------------------------------------------------------

    def let_go(self) -> None:
        """It is over for whoever uses it, whenever the other side takes note of that."""
        self.over.set()
        self._may_write.set()
        self.reader.feed_eof()

    def errors(self) -> bytes:
        """The last of the error output."""
        return b"".join(self._errors)[-_TAIL:]

    async def writable(self) -> None:
        """Wait until more may be written."""
        await self._may_write.wait()


class _Flow:
    """What a ``StreamReader`` wants of its transport: to pause it, and to let it go on.

    A channel that goes on hands over at once what waits, within that call, when the reader does
    not wait for it yet and would wait for ever; so it goes on a little later.
    """

    def __init__(self, channel: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = channel
        self._paused = False

    def pause_reading(self) -> None:
        self._paused = True
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if not self._paused:
            self._channel.resume_reading()


_SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "SEGV": 11, "PIPE": 13, "TERM": 15}


class ChannelWriter:
    """Input of a command, in the manner of ``asyncio.StreamWriter``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, data: bytes) -> None:
        """Send bytes, some time. After the end they go nowhere; ``drain`` then tells."""
        channel = self._session.channel
        if channel is not None and not self._session.over.is_set():
            with suppress(OSError):  # it was closed here
                channel.write(data)

    async def drain(self) -> None:
        """Wait until the other side takes more. Raises: ConnectionResetError."""
        await self._session.writable()
        if self._session.over.is_set():
            raise ConnectionResetError("the command on the other side has ended, or was cut off")

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        channel = self._session.channel
        return 0 if channel is None else channel.get_write_buffer_size()

    def write_eof(self) -> None:
        """End the input."""
        channel = self._session.channel
        if channel is not None and not self._session.over.is_set():
            with suppress(OSError):
                channel.write_eof()

    def close(self) -> None:
        """The same as ``write_eof``: the command goes on until it has seen it."""
        self.write_eof()


class Channel:
    """One command on the other side; ``reader`` has its output, to the end of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reader = session.reader
        self.writer = ChannelWriter(session)

    @property
    def errors(self) -> bytes:
        """The last of its error output, 64 KiB at most."""
        return self._session.errors()

    @property
    def code(self) -> int | None:
        """Its exit status (128 and more: a signal); None: it runs, or was cut off."""
        return self._session.code

    @property
    def ended(self) -> bool:
        """Whether it ended or was cut off."""
        return self._session.over.is_set()

    async def wait_closed(self) -> int | None:
        """Wait for its end; the exit status, or None: the connection was cut.

        What ``reader`` still holds must be read meanwhile if that is more than 2 MiB.
        """
        await self._session.over.wait()
        return self._session.code

    def close(self) -> None:
        """Let go of it at once: its input ends, its output goes nowhere."""
        channel = self._session.channel
        if channel is not None and not self._session.over.is_set():
            channel.abort()
            self._session.let_go()

    def kill(self) -> None:
        """SIGKILL to it and its group, where the server passes signals on, and let go of it."""
        channel = self._session.channel
        if channel is not None and not self._session.over.is_set():
            with suppress(OSError):
                channel.kill()
            channel.abort()
            self._session.let_go()
