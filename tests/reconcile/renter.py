"""A scripted provider that rents machines, as EC2 lets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from providers.base import (
    InProgress,
    JobStatus,
    LaunchRequest,
    Machine,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from tests.reconcile.fakes import FakeClock, FakeProvider, FakeRepositories

AWS = {
    "aws": {
        "region": "us-east-1",
        "amiId": "ami-1",
        "instanceType": "c7i.large",
        "workspaceRoot": "/shared",
    }
}
LISTED_SECONDS = 3600.0
"""So long a machine that ended is listed."""


class FakeRenter(FakeProvider):
    """Workers on machines, one each; machines boot and end in their own time."""

    rents = True

    def __init__(self, remote: FakeRepositories, clock: FakeClock) -> None:
        super().__init__(remote, "aws")
        self.clock = clock
        self.rented: dict[str, list[Machine]] = {}
        """By swarm's uid, in the order in which they were begun."""
        self.boots_seconds = 0.0
        self.ends_seconds = 5.0
        self.kind = "c7i.large"
        self.away = False
        """What lets machines does not answer either."""
        self.hides: set[str] = set()
        """Ids that are not listed any more."""
        self.removals: list[bool] = []
        """``keep`` of each removal of a whole swarm."""
        self.archive_error: ProviderError | None = None
        self.hangs = False
        """Nobody answers, and the connection stands."""
        self.observe_error: ProviderError | None = None
        self.remove_error: ProviderError | None = None
        """Of the removal of a whole swarm."""

    def machine(self, uid: str, since: float | None = None) -> Machine:
        """Begin one."""
        number = sum(map(len, self.rented.values()))
        one = Machine(f"i-{number:08x}", self.kind, self.clock.now() if since is None else since)
        self.rented.setdefault(uid, []).append(one)
        return one

    def end(self, id: str, at: float | None = None) -> None:
        """One ends, or is to end at a time."""
        until = self.clock.now() if at is None else at
        for uid, machines in self.rented.items():
            self.rented[uid] = [
                replace(m, until=until) if m.id == id and m.until is None else m for m in machines
            ]

    def there(self, uid: str) -> list[Machine]:
        """Those that have not ended."""
        now = self.clock.now()
        return [m for m in self.rented.get(uid, ()) if m.until is None or m.until > now]

    def _answer(self) -> None:
        if self.away:
            raise ProviderUnreachable("ExpiredToken", "the session has expired")

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        self._answer()
        uid = requests[0].swarm.uid
        taken = sum(job.alive for (of, _), job in self.jobs.items() if of == uid)
        while len(self.there(uid)) < taken + len(requests):
            self.machine(uid)
        ready = [m for m in self.there(uid) if m.since + self.boots_seconds <= self.clock.now()]
        if len(ready) < taken + len(requests):
            self.calls.append("wait")
            raise InProgress("InstancesBooting", f"{len(ready)} of {taken + len(requests)} run")
        await super().launch(requests)

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.observe_error is not None:
            raise self.observe_error
        return await super().observe(swarm)

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        self._answer()
        now = self.clock.now()
        return [
            m if m.until is None or m.until <= now else replace(m, until=None)
            for m in self.rented.get(swarm.uid, ())
            if m.id not in self.hides and (m.until is None or now - m.until < LISTED_SECONDS)
        ]

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        self._reach()
        if self.archive_error is not None:
            self.calls.append("archive failed")
            raise self.archive_error
        return await super().archive(swarm, destination)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        if jobs is not None:
            self._reach()
            await super().remove(swarm, jobs)
            return
        self._answer()
        if self.remove_error is not None:
            raise self.remove_error
        self.removals.append(keep)
        for (uid, _), job in self.jobs.items():
            if uid == swarm.uid:
                job.end("machine gone")
        for machine in self.there(swarm.uid):
            self.end(machine.id, self.clock.now() + self.ends_seconds)
        left = len(self.there(swarm.uid))
        if left:
            raise InProgress("MachinesEnding", f"{left} machines are shutting down")
        await super().remove(swarm)
