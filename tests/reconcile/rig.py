"""A controller over a store in memory and scripted workers, in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from controller.reconcile.context import Context
from controller.reconcile.manager import Manager
from controller.reconcile.transcripts import Transcripts
from controller.repository.service import Repositories
from controller.resources.admission import admit
from controller.resources.settings import Settings
from controller.store.base import Key, Resource, Store
from tests.reconcile.fakes import FakeClock, FakeProvider, FakeRepositories
from tests.reconcile.renter import FakeRenter
from tests.reconcile.store import MemoryStore

BASE_DIR = "codeswarm.dev/base-dir"


class RigContext(Context):
    """Keeps the errors of passes, so that no test passes over one."""

    errors: list[tuple[Key, BaseException]]

    def report(self, key: Key, error: BaseException) -> None:
        self.errors.append((key, error))


class Rig:
    """One home; the controller can be killed and started again, the workers live on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.remote = FakeRepositories()
        self.provider = FakeProvider(self.remote)
        self.cluster = FakeProvider(self.remote, "slurm")
        self.cloud = FakeRenter(self.remote, self.clock)
        self.settings = Settings()
        self.epoch = 0
        self.errors: list[tuple[Key, BaseException]] = []
        self.passes: Counter[Key] = Counter()

    # --- the controller ------------------------------------------------------------------------

    def start(self) -> None:
        """Start a controller."""
        self.epoch += 1
        self.clock.loop = asyncio.get_running_loop()
        self.ctx = RigContext(
            store=self.controllers_store(),
            clock=self.clock,
            epoch=self.epoch,
            providers={"local": self.provider, "slurm": self.cluster, "aws": self.cloud},
            repositories=cast(Repositories, self.remote),
            settings=self.settings,
            transcripts=Transcripts(self.path / "transcripts"),
            stores=self.path / "stores",
            archives=self.path / "archives",
        )
        self.ctx.errors = self.errors
        self.manager = Manager(self.ctx)
        for kind, handler in list(self.manager._handlers.items()):
            self.manager._handlers[kind] = self._counted(handler)
        self.manager.start()

    def controllers_store(self) -> Store:
        """What the controller reads and writes; this one's is the store itself."""
        return self.store

    def limit(self, workers: int) -> None:
        """So many workers may live on this machine."""
        limits = replace(self.settings.limits, local_workers=workers)
        self.settings = replace(self.settings, limits=limits)
        self.ctx.settings = self.settings

    def _counted(self, handler: Callable[[Key], Any]) -> Callable[[Key], Any]:
        async def counted(key: Key) -> float | None:
            self.passes[key] += 1
            result: float | None = await handler(key)
            return result

        return counted

    async def crash(self) -> None:
        """End the controller as ``kill -9`` does: nothing more is written."""
        self.store.unsubscribe_all()
        dispatcher = self.manager._dispatcher
        dispatcher._closing.set()
        for task in [*self.manager._running, *dispatcher._running]:
            task.cancel()
        await asyncio.gather(*self.manager._running, *dispatcher._running, return_exceptions=True)
        self.ctx.queue.close()
        await self.provider.close()
        await self.cluster.close()
        await self.cloud.close()

    # --- objects -----------------------------------------------------------------------------

    def apply(self, *objects: Resource) -> None:
        """As a client: create, or replace the spec."""
        for obj in objects:
            obj["metadata"].setdefault("namespace", "default")
            obj["metadata"].setdefault("annotations", {})[BASE_DIR] = str(self.path)
            key = Key(obj["kind"], "default", obj["metadata"]["name"])
            old = self.store.get(key)
            if old is None:
                self.store.put(admit(obj))
            else:
                self.store.put_update(admit({**old, "spec": obj["spec"]}, old))

    def patch(self, kind: str, name: str, **spec: Any) -> None:
        """Change fields of a spec."""
        self.store.change(Key(kind, "default", name), lambda o: o["spec"].update(spec))

    def delete(self, kind: str, name: str) -> None:
        """As a client."""
        self.store.put_delete(Key(kind, "default", name))

    def get(self, kind: str, name: str) -> Resource | None:
        """An object, if it is there."""
        return self.store.get(Key(kind, "default", name))

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """A status; empty while there is none."""
        return (self.get(kind, name) or {}).get("status") or {}

    def task(self, name: str) -> dict[str, Any]:
        return self.status("Task", name)

    def project(self, name: str = "demo") -> dict[str, Any]:
        return self.status("Project", name)

    def swarm(self, name: str = "builders") -> dict[str, Any]:
        return self.status("Swarm", name)

    def condition(self, kind: str, name: str, type: str) -> dict[str, Any]:
        """One condition; empty while there is none."""
        found = self.status(kind, name).get("conditions") or ()
        return next((c for c in found if c["type"] == type), {})

    def reasons(self) -> Counter[str]:
        """Events by reason, repetitions counted."""
        counted: Counter[str] = Counter()
        for event in self.store.events():
            counted[event.reason] += event.count
        return counted

    # --- time ----------------------------------------------------------------------------------

    async def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        """Wait in virtual time until a condition holds; its value."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            value = condition()
            if value:
                return value
            await asyncio.sleep(0.01)
        raise AssertionError(f"waited {seconds} s for {what}\n{self.picture()}")

    async def phase(self, kind: str, name: str, *phases: str, seconds: float = 60.0) -> None:
        """Wait for a phase."""
        await self.until(
            lambda: self.status(kind, name).get("phase") in phases,
            f"{kind} {name} to be {' or '.join(phases)}",
            seconds,
        )

    def picture(self) -> str:
        """What there is."""
        lines = []
        for kind in ("Swarm", "Project", "Task"):
            for obj in self.store.list(kind)[:30]:
                status = obj.get("status") or {}
                attempts = [(a["number"], a["state"], a.get("reason"))
                            for a in status.get("attempts") or ()]  # fmt: skip
                lines.append(
                    f"{kind}/{obj['metadata']['name']} {status.get('phase')} "
                    f"{status.get('reason')} {attempts} {status.get('blocker')}"
                )
        return "\n".join([*lines, f"errors: {self.errors}"])
