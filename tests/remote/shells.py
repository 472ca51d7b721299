"""Ways to a host: a shell of this machine, where only the transport is not the real one."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from providers.base import OutcomeUnknown, ProviderUnreachable


@dataclass(frozen=True)
class Completed:
    code: int
    out: bytes
    err: bytes


class LocalChannel:
    """A process of ours, in the place of a channel."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None and process.stdin is not None
        self.reader = process.stdout
        self.writer = self
        self.errors = b""
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(4096):
            self.errors += data

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    async def drain(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.drain()

    def get_write_buffer_size(self) -> int:
        assert self.process.stdin is not None
        return self.process.stdin.transport.get_write_buffer_size()

    def write_eof(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def wait_closed(self) -> int | None:
        code = await self.process.wait()
        await self._listening
        return code

    def close(self) -> None:
        """The connection is cut: both of its ends are closed, and nobody is killed."""
        self.write_eof()
        self.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all that runs in it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class LocalShell:
    """Commands in a shell of this machine, as sshd would run them for a user.

    Args:
        home: the user's home.
        env: further variables.
    """

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        path = os.environ["PATH"]
        self.env = {"HOME": str(home), "PATH": path, "USER": "ada", **(env or {})}
        self.channels: list[LocalChannel] = []
        self.runs = 0
        self.away = False

    async def _start(self, argv: Sequence[str]) -> asyncio.subprocess.Process:
        if self.away:
            raise ProviderUnreachable("ConnectionRefused", "lab: nobody listens at port 22")
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", shlex.join(argv)),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self.home,
            env=self.env,
            start_new_session=True,
            limit=1 << 20,
        )

    async def run(
        self, argv: Sequence[str], *, input: bytes = b"", seconds: float, repeatable: bool = False
    ) -> Completed:
        self.runs += 1
        process = await self._start(argv)
        try:
            async with asyncio.timeout(seconds):
                out, err = await process.communicate(input)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            raise OutcomeUnknown("ConnectionLost", "too late") from None
        assert process.returncode is not None
        return Completed(process.returncode, out, err)

    async def open(self, argv: Sequence[str]) -> LocalChannel:
        channel = LocalChannel(await self._start(argv))
        self.channels.append(channel)
        return channel

    def cut(self) -> None:
        """Cut every connection."""
        for channel in self.channels:
            channel.close()
        self.channels.clear()

    async def close(self) -> None:
        """End what still runs."""
        for channel in self.channels:
            channel.close()
            with suppress(ProcessLookupError):
                os.killpg(channel.process.pid, signal.SIGKILL)
            await channel.process.wait()
