"""A login host of this machine for a test, and what its controller has heard."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from providers.base import RecordBatch, SwarmHandle
from providers.layout import swarm_parts
from providers.remote import RemoteHost
from providers.remote_setup import Place
from tests.providers.harness import run, until
from tests.remote.shells import LocalShell

SWARM = SwarmHandle("default", "team", "0123456789abcdef")
JOB = "team-0-1"

FILES = {"worker.json": "{}", "env": '{"TOKEN": "hidden"}', "batch.sh": "#!/bin/sh\n"}


class Collected:
    """A sink that keeps all, in order, and notes where it stands."""

    def __init__(self) -> None:
        self.lines: dict[str, list[bytes]] = defaultdict(list)
        self.ends: dict[str, int] = {}

    def __call__(self, batch: RecordBatch) -> None:
        self.lines[batch.job] += batch.lines
        self.ends[batch.job] = batch.end


class Controller:
    """One controller's host, with its sink."""

    def __init__(self, shell: Any, root: str, **place: Any) -> None:
        self.shell = shell
        self.heard = Collected()
        self.host = RemoteHost(shell, Place("ada@lab", root, **place))
        self.host.start(self.heard)

    async def __aenter__(self) -> Controller:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.host.close()

    async def hears(self, lines: Iterable[bytes], job: str = JOB) -> None:
        """Wait until exactly these lines of a job are here."""
        wanted = list(lines)

        async def all_there() -> bool:
            return len(self.heard.lines[job]) >= len(wanted)

        await until(all_there, f"{len(wanted)} lines of {job}")
        assert self.heard.lines[job] == wanted


@asynccontextmanager
async def lab(path: Path, **place: Any) -> AsyncIterator[Controller]:
    """A controller of a host whose transport is a shell of this machine."""
    shell = LocalShell(path / "home")
    try:
        async with Controller(shell, str(path / "work"), **place) as one:
            yield one
    finally:
        await shell.close()


def on_lab(
    path: Path, scenario: Callable[[Controller], Coroutine[Any, Any, None]], **place: Any
) -> None:
    """Run a scenario there."""

    async def whole() -> None:
        async with lab(path, **place) as one:
            await scenario(one)

    run(whole)


def folder(path: Path, job: str = JOB) -> Path:
    """A job's folder."""
    return path.joinpath("work", *swarm_parts(SWARM), job)


def outbox(path: Path, job: str = JOB) -> Path:
    """A job's outbox."""
    return folder(path, job) / "mailbox" / "outbox" / f"{job}_00.jsonl"


def append(path: Path, *lines: bytes) -> None:
    """Add records to an outbox."""
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


async def gone(pid: int) -> None:
    """Wait until a process has ended."""

    async def ended() -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    await until(ended, f"the end of {pid}")


async def attendant(one: Controller) -> int:
    """The pid of a controller's attendant."""
    done = await one.host.run(["sh", "-c", "echo $PPID"], effect=False)
    pid = int(done.out)
    assert Path(f"/proc/{pid}").exists()
    return pid


async def raises_soon(call: Callable[[], Coroutine[Any, Any, Any]], kind: type[Exception]) -> Any:
    """Repeat a call until it fails as expected; the error."""
    caught: list[Exception] = []

    async def failed() -> bool:
        try:
            await call()
        except kind as error:
            caught.append(error)
        return bool(caught)

    await until(failed, kind.__name__)
    await asyncio.sleep(0)
    return caught[0]
