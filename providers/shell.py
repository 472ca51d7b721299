"""What is needed of a way to run programs on another host; ``providers.ssh`` is one.

Argument vectors arrive there as they are, whatever shell the login user has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class Completed(Protocol):
    """A command that has ended."""

    @property
    def code(self) -> int:
        """Its exit status."""
        ...

    @property
    def out(self) -> bytes:
        """What it said."""
        ...

    @property
    def err(self) -> bytes:
        """What it said on stderr."""
        ...


class Input(Protocol):
    """Input of a command that runs."""

    def write(self, data: bytes) -> None:
        """Take bytes to be sent; does not wait."""
        ...

    async def drain(self) -> None:
        """Wait until more may be written. Raises: OSError."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        ...

    def write_eof(self) -> None:
        """End it."""
        ...


class Channel(Protocol):
    """A command that runs."""

    @property
    def reader(self) -> asyncio.StreamReader:
        """What it says, to its end."""
        ...

    @property
    def writer(self) -> Input:
        """Its input."""
        ...

    @property
    def errors(self) -> bytes:
        """The last of what it said on stderr."""
        ...

    async def wait_closed(self) -> int | None:
        """Wait for its end; its exit status, None: it was cut off."""
        ...

    def close(self) -> None:
        """Let go of it at once."""
        ...


class Shell(Protocol):
    """Another host."""

    async def run(
        self, argv: Sequence[str], *, input: bytes = b"", seconds: float, repeatable: bool = False
    ) -> Completed:
        """Run a command to its end.

        Raises: ProviderError, ProviderUnreachable; OutcomeUnknown, if it is not ``repeatable``.
        """
        ...

    async def open(self, argv: Sequence[str]) -> Channel:
        """Begin a command. Raises: ProviderError, ProviderUnreachable."""
        ...
