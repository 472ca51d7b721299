"""``python worker-....pyz attendant ROOT`` and ``... transfer ROOT``: one login host's attendant.

Frames come in on stdin and go out on stdout; what else wants to be said goes to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from worker.attendant import transfers
from worker.attendant.calls import Calls, facts
from worker.attendant.files import resolve_root
from worker.connection import Connection
from worker.failures import ProviderError
from worker.follower import Follower
from worker.wire import MAGIC, PROTOCOL, Frame, WireError, encode, frame, frames
from worker.wire_values import error_frame

_LOG = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0
"""Without so much as a ping for so long, nobody is there any more."""
SETTLE_SECONDS = 20.0
"""How long what was begun may go on when nobody is there any more."""
POLL_SECONDS = 0.25
_LIMIT = 1024 * 1024


def main(kind: str, place: str) -> int:
    """Attend to a root until nobody is there any more; the exit code.

    Args:
        kind: ``attendant``, or ``transfer``: one call with bulk data, then the end.
        place: the root; may begin with ``~/``.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    source, sink = _take_over()
    sink.write(b"\n" + MAGIC + b"\n")
    sink.flush()
    try:
        root = resolve_root(place)
    except ProviderError as error:
        sink.write(encode(error_frame("turned-away", error)))
        sink.flush()
        return 1
    if kind == "transfer":
        return transfers.serve(root, source, sink)
    return asyncio.run(_attend(root, source, sink))


def _take_over() -> tuple[BinaryIO, BinaryIO]:
    """The streams of frames, out of reach of whatever prints, and of commands that are run."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(source, "rb"), os.fdopen(sink, "wb")


async def _attend(root: Path, source: BinaryIO, sink: BinaryIO) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    writer, _ = await loop.connect_write_pipe(lambda: _Deaf(reader), sink)
    follower = Follower(None, poll_seconds=POLL_SECONDS)
    calls = Calls(root, follower)
    messages = _watched(reader)
    connection = Connection(messages, writer, follower, calls)
    try:
        await _greeted(messages)
        follower.start(connection.streams.sink)
        await connection.serve(frame("welcome", facts(root)))
    except ProviderError as error:
        connection.end(error_frame("turned-away", error))
        return 1
    except (WireError, OSError) as error:
        _LOG.warning("the connection was ended: %s", error)
    finally:
        follower.close()
        calls.abandon()
        connection.end()
        await connection.settled(SETTLE_SECONDS)
    return 0


class _Deaf(asyncio.BaseProtocol):
    """Nobody reads our output any more: then nothing more is to be read either."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def connection_lost(self, exc: Exception | None) -> None:
        """The pipe is closed."""
        self._reader.feed_eof()


async def _greeted(messages: AsyncIterator[Frame]) -> None:
    """Raises: ProviderError (``ProtocolMismatch``), WireError, OSError."""
    async for message in messages:
        if message.type != "hello":
            raise WireError("a connection must begin with a greeting")
        if message.number("protocol") != PROTOCOL:
            raise ProviderError(
                "ProtocolMismatch",
                f"the controller speaks protocol {message.number('protocol')}, its attendant "
                f"{PROTOCOL}",
            )
        return
    raise WireError("nobody greeted")


async def _watched(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """All messages, to the end or a long silence. Raises: WireError, OSError."""
    loop = asyncio.get_running_loop()
    silence = WireError(f"nothing was heard for {SILENCE_SECONDS:.0f} s")
    timer = loop.call_later(SILENCE_SECONDS, reader.set_exception, silence)
    try:
        async for message in frames(reader):
            timer.cancel()
            timer = loop.call_later(SILENCE_SECONDS, reader.set_exception, silence)
            yield message
    finally:
        timer.cancel()
