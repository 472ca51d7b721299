"""A service on a free port in a test's own event loop, and a client that can misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from controller.http.auth import OneToken
from controller.http.health import Health
from controller.http.listen import listen, port_of
from controller.http.monitor import Monitor
from controller.http.service import Service

TOKEN = "the-token-of-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DEADLINE = 10.0
T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a scenario; one that hangs fails."""
    return asyncio.run(asyncio.wait_for(main, 60))


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until something holds; its value."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE
    while loop.time() < end:
        value = condition()
        if value:
            return value
        await asyncio.sleep(0.01)
    raise AssertionError(f"waited {DEADLINE} s for {what}")


@dataclass
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """Raw HTTP/1.1: what is sent is what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        async with asyncio.timeout(DEADLINE):
            line = await self.reader.readline()
            assert line, "the connection was closed"
            headers: dict[str, str] = {}
            while (row := (await self.reader.readline()).strip()) != b"":
                name, _, value = row.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
        return int(line.split()[1]), headers

    async def answer(self, method: str = "GET") -> Answer:
        """The next response, its body whole."""
        status, headers = await self.head()
        length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
        async with asyncio.timeout(DEADLINE):
            return Answer(status, headers, await self.reader.readexactly(length))

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(DEADLINE):
            try:
                return await self.reader.read(-1)
            except ConnectionResetError:
                return b""

    async def chunk(self) -> bytes:
        """The next piece of a chunked body; empty at its end."""
        async with asyncio.timeout(DEADLINE):
            size = int(await self.reader.readline() or b"0", 16)
            data = await self.reader.readexactly(size)
            await self.reader.readline()
        return data

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


def request(
    path: str, headers: dict[str, str] | None = None, *, method: str = "GET", host: str = "x"
) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Site:
    """A running service."""

    def __init__(self, root: Path, **given: Any) -> None:
        self.root = root
        self.monitor = Monitor()
        self.waits = ""
        self.health = Health(lambda: (not self.waits, self.waits))
        options: dict[str, Any] = {
            "health": self.health,
            "monitor": self.monitor,
            "authenticator": OneToken(TOKEN),
            "transcripts": root,
            **given,
        }
        self.service = Service(**options)

    async def start(self) -> None:
        sock = listen("127.0.0.1", 0)
        self.port = port_of(sock)
        await self.service.start(sock)

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(
        self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET", **more: Any
    ) -> Answer:
        """One request on a connection of its own."""
        connection = await self.connect()
        try:
            await connection.send(request(path, headers, method=method, **more))
            return await connection.answer(method)
        finally:
            await connection.close()


@asynccontextmanager
async def site(root: Path, **given: Any) -> AsyncIterator[Site]:
    """A service that is stopped at the end."""
    made = Site(root, **given)
    await made.start()
    try:
        yield made
    finally:
        await made.service.stop()


def handles() -> int:
    """Open file handles of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def transcript(
    root: Path,
    text: bytes = b'{"a":1}\n',
    *,
    namespace: str = "default",
    folder: str = "builders-1a2b3c4d",
    job: str = "builders-1a2b3c4d-0-1",
) -> Path:
    """Write a transcript; its path."""
    path = root / namespace / folder / f"{job}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path
