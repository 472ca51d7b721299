"""What the conformance suite needs of a kind of provider, and how to wait in its tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from providers.base import (
    InProgress,
    JobState,
    JobStatus,
    LaunchRequest,
    Provider,
    RecordBatch,
    SwarmHandle,
)

ROOT = Path(__file__).parents[2]
DEADLINE = 40.0
"""Seconds after which a condition counts as never reached (machines may be busy)."""


class Harness(Protocol):
    """One kind of provider with a world of its own that outlives provider objects."""

    def provider(self) -> Provider:
        """A new provider object over the same world, as after a restart."""
        ...

    def parameters(self) -> dict[str, Any]:
        """The provider block of this world's swarms."""
        ...

    def processes(self, job: str) -> set[int]:
        """All processes that belong to a job, found independently of the provider."""
        ...

    def kill_worker(self, job: str) -> None:
        """Make a worker vanish as by ``kill -9``."""
        ...

    def disconnect(self) -> None:
        """Cut all connections of providers to this world; nothing, where they have none."""
        ...

    def die_while_launching(self, request: LaunchRequest, point: str) -> None:
        """Have another process launch, and die without a word: ``before`` or ``after`` the
        worker is begun, or ``returned``, when the call was back."""
        ...

    def traces(self, swarm: SwarmHandle) -> list[str]:
        """What is left of a swarm (files, instances, ...)."""
        ...


@dataclass(slots=True)
class Session:
    """One provider object in use, with all that its sink was given."""

    provider: Provider
    batches: dict[str, list[RecordBatch]] = field(default_factory=lambda: defaultdict(list))

    def sink(self, batch: RecordBatch) -> None:
        """Keep a batch."""
        self.batches[batch.job].append(batch)

    def records(self, job: str) -> list[dict[str, Any]]:
        """Everything a job said, parsed."""
        return [json.loads(line) for batch in self.batches[job] for line in batch.lines]

    def events(self, job: str, injection: str | None) -> list[str]:
        """The events of one injection."""
        return [r["event"] for r in self.records(job) if r["injection_id"] == injection]

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Launch, and ask again as long as what they need is being made ready."""
        await self._patiently(lambda: self.provider.launch(requests))

    async def remove(self, swarm: SwarmHandle) -> None:
        """Remove everything, and ask again as long as machines end."""
        await self._patiently(lambda: self.provider.remove(swarm))

    async def _patiently(self, call: Callable[[], Awaitable[None]]) -> None:
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return await call()
            except InProgress as wait:
                assert time.monotonic() < deadline, f"it takes too long: {wait}"
                await asyncio.sleep(0.05)

    async def status(self, swarm: SwarmHandle, job: str) -> JobStatus:
        """One job as observed now."""
        for status in await self.provider.observe(swarm):
            if status.job == job:
                return status
        return JobStatus(job, JobState.ABSENT)

    async def running(self, swarm: SwarmHandle, *jobs: str) -> None:
        """Wait until jobs run."""
        await self.reach(swarm, JobState.RUNNING, *jobs)

    async def reach(self, swarm: SwarmHandle, state: JobState, *jobs: str) -> None:
        """Wait until jobs are observed in a state."""

        async def reached() -> bool:
            seen = {status.job: status.state for status in await self.provider.observe(swarm)}
            return all(seen.get(job, JobState.ABSENT) is state for job in jobs)

        await until(reached, f"{jobs} to be {state}")

    async def said(self, job: str, event: str, injection: str | None = None) -> None:
        """Wait until a job said something."""

        async def said() -> bool:
            return event in self.events(job, injection)

        await until(said, f"{event} of {job}")

    async def ready(self, job: str) -> None:
        """Wait until a followed worker says that it is idle."""

        async def idle() -> bool:
            return any(
                r["event"] == "thread_status" and r["data"]["status"] == "idle"
                for r in self.records(job)
            )

        await until(idle, f"{job} to be idle")

    async def prompt(
        self, swarm: SwarmHandle, job: str, injection: str, *commands: str, index: int = 0
    ) -> None:
        """Deliver a prompt to the mock runtime that runs shell commands."""
        steps = "\n".join(f"- run: {json.dumps(command)}" for command in commands)
        content = f"```mock\n{steps}\n```\n" if commands else "hello"
        await self.provider.deliver(
            swarm,
            job,
            index,
            {
                "type": "user",
                "epoch": 1,
                "injection_id": injection,
                "content": content,
                "task": {"name": "t", "uid": "u", "kind": "prompt", "attempt": 1},
            },
        )


@asynccontextmanager
async def session(harness: Harness) -> AsyncIterator[Session]:
    """A started provider; closed at the end, its workers run on."""
    opened = Session(harness.provider())
    opened.provider.start(opened.sink)
    try:
        yield opened
    finally:
        await opened.provider.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine function in a loop of its own."""
    asyncio.run(scenario())


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for a condition; fails with ``what`` was waited for."""
    deadline = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE:.0f} s in vain for {what}"
        await asyncio.sleep(0.02)


def new_swarm(harness: Harness, name: str = "team") -> SwarmHandle:
    """A swarm that no other test has."""
    return SwarmHandle("default", name, str(uuid.uuid4()), harness.parameters())


def request(swarm: SwarmHandle, index: int = 0, **config: Any) -> LaunchRequest:
    """A launch of a mock worker."""
    job = f"{swarm.name}-{swarm.uid[:8]}-{index}-1"
    return LaunchRequest(
        swarm,
        job,
        index,
        {"runtime": "mock", "heartbeatSeconds": 0.1, **config},
        {"AGENT_TOKEN": "for-the-agent"},
    )


def processes_below(root: Path, job: str | None = None) -> set[int]:
    """Living processes whose environment names a folder below a root (and the job)."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            continue
        ours = any(
            value.startswith(f"CODESWARM_BASE_DIR={root}/".encode()) for value in environment
        )
        named = job is None or f"CODESWARM_JOB_ID={job}".encode() in environment
        if ours and named and state != "Z":
            found.add(int(entry.name))
    return found


def die() -> None:
    """End as by ``kill -9``, which it is."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_another_process(module: str, request: LaunchRequest, point: str) -> None:
    """Have a module launch a request that kills its own process at a point."""
    swarm = request.swarm
    told = {
        "swarm": {
            "namespace": swarm.namespace,
            "name": swarm.name,
            "uid": swarm.uid,
            "parameters": dict(swarm.parameters),
        },
        "job": request.job,
        "index": request.index,
        "config": dict(request.config),
        "env": dict(request.env),
    }
    command = [sys.executable, "-m", module, point, json.dumps(told)]
    ended = subprocess.run(command, cwd=ROOT, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


def request_of(text: str) -> LaunchRequest:
    """What ``die_in_another_process`` told."""
    told = json.loads(text)
    swarm = SwarmHandle(**told["swarm"])
    return LaunchRequest(swarm, told["job"], told["index"], told["config"], told["env"])
