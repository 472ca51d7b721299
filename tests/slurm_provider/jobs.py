"""A provider with workers on a cluster, for tests that look at single jobs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from providers.base import (
    JobState,
    JobStatus,
    LaunchRequest,
    SwarmHandle,
)
from providers.slurm import SlurmProvider
from tests.providers.harness import Session
from tests.slurm import Slurm
from tests.slurm_provider.local_login import LocalLogins

DEADLINE = 40.0


class World:
    """A provider over a cluster, and one swarm."""

    def __init__(self, slurm: Slurm, root: Path, **parameters: Any) -> None:
        self.slurm = slurm
        self.root = root
        self.swarm = SwarmHandle(
            "default", "team", str(uuid.uuid4()), {"loginHost": "here", **parameters}
        )

    def again(self) -> None:
        """A new provider, as after a restart of the controller."""
        self.logins = LocalLogins(self.root, self.slurm)
        self.login = self.logins.only
        self.provider = SlurmProvider(self.logins, interval=0.5, least=0.05, beat_seconds=2)
        self.session = Session(self.provider)
        self.provider.start(self.session.sink)

    def request(self, index: int = 0, incarnation: int = 1) -> LaunchRequest:
        """One mock worker."""
        job = f"team-{self.swarm.uid[:8]}-{index}-{incarnation}"
        config = {"runtime": "mock", "heartbeatSeconds": 0.1, "stores": "/nowhere", "hint": "/no"}
        return LaunchRequest(self.swarm, job, index, config, {"TOKEN": "t"})

    async def status(self, job: str) -> JobStatus:
        """As observed now."""
        return await self.session.status(self.swarm, job)

    async def running(self, job: str) -> JobStatus:
        """Wait until a worker is up: its heart beats."""

        async def up() -> bool:
            seen = await self.status(job)
            return seen.state is JobState.RUNNING and seen.heartbeat is not None

        await self.until(up, f"{job} to run")
        return await self.status(job)

    async def ended(self, job: str, reason: str = "") -> JobStatus:
        """Wait until a worker has ended."""

        async def over() -> bool:
            seen = await self.status(job)
            return seen.state is JobState.ENDED and reason in ("", seen.reason)

        await self.until(over, f"{job} to end ({reason})")
        return await self.status(job)

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait for a condition; shows what there is if it never comes."""
        try:
            await until(condition, what)
        except AssertionError:
            print(self.slurm.call("squeue", "-t", "all", "-o", "%A %j %T %r %N").stdout)
            print(*await self.provider.observe(self.swarm), sep="\n")
            print(*await self.login.folders(self.swarm), sep="\n")
            raise

    def id(self, job: str) -> str:
        """Slurm's id of a worker's last job."""
        return self.slurm.ids(job)[-1]

    def folder(self, job: str) -> Path:
        """A worker's folder."""
        (found,) = self.root.glob(f"*/*/{job}")
        return found


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < end, f"waited {DEADLINE:.0f} s in vain for {what}"
        await asyncio.sleep(0.05)


def play(world: World, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario; its provider is closed at the end."""

    async def whole() -> None:
        world.again()
        try:
            await scenario(world)
        finally:
            await world.provider.close()

    asyncio.run(whole())
