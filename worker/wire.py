"""Frames between a controller and what works for it elsewhere: their shape, and their size.

A frame is two lengths, a small JSON object that says what it is, and a body: JSON of a call, or
outbox lines as they are, bytes that nobody has parsed.  The protocol is described in
``docs/worker-host.md`` and ``docs/remote.md``.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

PROTOCOL = 1
MAGIC = b"codeswarm: frames follow"
"""The line after which frames come where a login's greetings may come first."""
MAX_HEAD = 64 * 1024
"""Bytes of the JSON object that says what a frame is."""
MAX_BODY = 12 * 1024 * 1024
"""Bytes of a body: an outbox line or an inbox record may have 8 MiB."""
FRAME_SECONDS = 30.0
"""Within which a frame that has begun must be there whole."""

_LENGTHS = struct.Struct(">II")
_TURN_SECONDS = 0.005


class WireError(Exception):
    """The other side does not keep to the protocol: the connection is of no use any more."""


class FrameTooLarge(Exception):
    """What is to be sent is larger than a frame may be."""


@dataclass(frozen=True)
class Frame:
    """One message, either way."""

    head: Mapping[str, Any]
    """``type``, and what that type needs."""
    body: bytes = b""

    @property
    def type(self) -> str:
        """What the message is."""
        return self.text("type")

    def text(self, name: str) -> str:
        """A text of the head. Raises: WireError."""
        value = self.head.get(name)
        if not isinstance(value, str):
            raise WireError(f"{name!r} of a frame must be a text")
        return clean(value)

    def number(self, name: str) -> int:
        """A number of the head, not negative. Raises: WireError."""
        value = self.head.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise WireError(f"{name!r} of a frame must be a number, not negative")
        return value

    def json(self) -> Any:
        """The body as JSON; None if it is empty. Raises: WireError."""
        return _parse(self.body) if self.body else None


def frame(type: str, body: bytes = b"", **head: Any) -> Frame:
    """A message of a type, with what its head says."""
    return Frame({"type": type, **head}, body)


def encode(message: Frame) -> bytes:
    """A message as it is sent. Raises: FrameTooLarge."""
    head = json.dumps(message.head, separators=(",", ":")).encode()
    if len(head) > MAX_HEAD or len(message.body) > MAX_BODY:
        raise FrameTooLarge(
            f"{max(len(head), len(message.body))} bytes are more than a frame holds "
            f"({MAX_BODY >> 20} MiB)"
        )
    return b"".join((_LENGTHS.pack(len(head), len(message.body)), head, message.body))


async def read(reader: asyncio.StreamReader) -> Frame | None:
    """The next message; None at the end of the stream.

    Waits as long as it takes for a frame to begin, and ``FRAME_SECONDS`` for the rest of it.

    Raises: WireError, OSError.
    """
    first = await reader.read(1)
    if not first:
        return None
    late = WireError(f"half a frame came, and no more within {FRAME_SECONDS:.0f} s")
    # Not by cancelling what reads: a stream with half a frame in it is of no use to anybody.
    timer = asyncio.get_running_loop().call_later(FRAME_SECONDS, reader.set_exception, late)
    try:
        lengths = first + await reader.readexactly(_LENGTHS.size - 1)
        head_size, body_size = _sizes(lengths)
        head = await reader.readexactly(head_size)
        body = await reader.readexactly(body_size) if body_size else b""
    except asyncio.IncompleteReadError as error:
        raise WireError("the stream ended within a frame") from error
    finally:
        timer.cancel()
    return _frame(head, body)


def read_blocking(stream: BinaryIO) -> Frame | None:
    """The next message, waiting as long as it takes; None at the end of the stream.

    Raises: WireError, OSError.
    """
    lengths = stream.read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise WireError("the stream ended within a frame")
    head_size, body_size = _sizes(lengths)
    head, body = stream.read(head_size), stream.read(body_size)
    if len(head) < head_size or len(body) < body_size:
        raise WireError("the stream ended within a frame")
    return _frame(head, body)


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[Frame]:
    """All messages to the end of the stream; others get their turn however many there are.

    Raises: WireError, OSError.
    """
    until = time.monotonic() + _TURN_SECONDS
    while (message := await read(reader)) is not None:
        yield message
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + _TURN_SECONDS


def _sizes(lengths: bytes) -> tuple[int, int]:
    head_size, body_size = _LENGTHS.unpack(lengths)
    if head_size > MAX_HEAD or body_size > MAX_BODY:
        raise WireError("a frame claims to be larger than frames may be")
    return head_size, body_size


def _frame(head: bytes, body: bytes) -> Frame:
    told = _parse(head)
    if not isinstance(told, dict):
        raise WireError("a frame must begin with a JSON object")
    return Frame(told, body)


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError("a frame holds something that is no JSON") from error


def clean(text: str) -> str:
    """A text without what UTF-8 cannot hold (JSON can)."""
    return text.encode(errors="replace").decode()
