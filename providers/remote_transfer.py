"""Files to and from a host, each over a channel of its own.

There is no deadline for the whole, but one for any sign of progress.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from providers.archive import whole
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.remote_setup import Installed, spoken
from providers.shell import Channel, Shell
from worker.wire import Frame, WireError, encode, frame, read
from worker.wire_values import error_of

STALL_SECONDS = 60.0
"""Without progress for so long (an attendant says every 10 s that it is busy), it is given up."""
_CHUNK = 256 * 1024


class Transfer:
    """One call with bulk data.

    Args:
        shell: the host.
        installed: the worker's file there.
        verb: of ``worker.attendant.transfers``.
        arguments: JSON.
    """

    def __init__(
        self, shell: Shell, installed: Installed, verb: str, arguments: Mapping[str, Any]
    ) -> None:
        self._shell = shell
        self._installed = installed
        self._verb = verb
        self._arguments = arguments

    async def download(self, path: Path, *, limit: int | None = None) -> Any:
        """Write what comes to a file, which appears under its name only when it is whole.

        Args:
            path: the file.
            limit: its greatest size, bytes.

        Returns: the answer.

        Raises: ProviderError as the host tells it (or ``TooLarge``); ProviderUnreachable; OSError
            of this side.
        """
        channel = await self._open()
        try:
            with whole(path) as file:
                return await self._answer(channel, file, limit=limit)
        except (WireError, TimeoutError, ConnectionError) as error:
            raise ProviderUnreachable("ConnectionLost", self._lost(error)) from error
        finally:
            channel.close()

    async def upload(self, path: Path) -> Any:
        """Send a file.

        Returns: the answer.

        Raises: ProviderError as the host tells it; OutcomeUnknown; ProviderUnreachable, if nothing
            was begun; OSError of this side.
        """
        with path.open("rb") as file:
            channel = await self._open()
            try:
                sending = asyncio.create_task(self._send(channel, file))
                try:
                    return await self._answer(channel, None, sending)
                finally:
                    sending.cancel()
                    await asyncio.gather(sending, return_exceptions=True)
            except (WireError, TimeoutError, ConnectionError) as error:
                raise OutcomeUnknown("ConnectionLost", self._lost(error)) from error
            finally:
                channel.close()

    async def _open(self) -> Channel:
        channel = await self._shell.open(self._installed.argv("transfer"))
        try:
            await spoken(channel, self._installed.place)
            body = json.dumps(dict(self._arguments)).encode()
            channel.writer.write(encode(frame("call", body, id=1, verb=self._verb)))
        except BaseException:
            channel.close()
            raise
        return channel

    async def _send(self, channel: Channel, file: IO[bytes]) -> None:
        while data := await asyncio.to_thread(file.read, _CHUNK):
            channel.writer.write(encode(frame("data", data)))
            await channel.writer.drain()
        channel.writer.write(encode(frame("end")))

    async def _answer(
        self,
        channel: Channel,
        file: IO[bytes] | None,
        sending: asyncio.Task[None] | None = None,
        *,
        limit: int | None = None,
    ) -> Any:
        """Raises: ProviderError, WireError, TimeoutError, OSError."""
        size = 0
        while True:
            message = await _next(channel.reader)
            size += len(message.body)
            if limit is not None and size > limit:
                where = self._installed.place.name
                told = f"{self._verb}: {where} sends more than {limit} bytes"
                raise ProviderError("TooLarge", told)
            if message.type == "data" and file is not None:
                await asyncio.to_thread(file.write, message.body)
            elif message.type == "done":
                return message.json()
            elif message.type in ("failed", "turned-away"):
                raise error_of(message)
            if sending is not None and sending.done() and not sending.cancelled():
                sending.result()

    def _lost(self, error: Exception) -> str:
        why = str(error) or f"no progress for {STALL_SECONDS:.0f} s"
        return f"{self._verb}: the transfer with {self._installed.place.name} was lost: {why}"


async def _next(reader: asyncio.StreamReader) -> Frame:
    """The next frame. Raises: WireError, TimeoutError, OSError."""
    async with asyncio.timeout(STALL_SECONDS):
        message = await read(reader)
    if message is None:
        raise WireError("it ended before it was whole")
    return message
