"""A repository of the user, a controller's ferry and a store on the workers' side."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controller.reconcile.carriages import NotYet
from controller.reconcile.ferry import Ferry, Load, Parcel, Route
from controller.repository.service import Repositories
from controller.store.base import Key
from providers.base import SwarmHandle
from tests.carrying.elsewhere import FolderStores
from tests.carrying.graphs import bare, grow
from tests.lab import git

REF = "refs/codeswarm/uid/1"
HANDLE = SwarmHandle("default", "far", "uid-of-far")
TASKS = [Key("Task", "default", f"t{n}") for n in range(50)]


class Trip:
    """A user's repository, our store, a place, and a ferry between them."""

    def __init__(self, folder: Path, parents=((), (0,), (1,))) -> None:
        self.user = bare(folder / "user.git")
        self.commits = grow(self.user, parents)
        self.stores = FolderStores(folder / "cluster")
        self.ours = folder / "ours" / "p-uid.git"
        self.there = self.stores.root / "p-uid.git"
        self.woken: list[Key] = []
        self.told: list[str] = []
        self.url = str(self.user)
        self.ferry = self.another()

    def another(self) -> Ferry:
        return Ferry(
            Repositories(),
            self.ours.parent,
            self.woken.append,
            lambda key, reason, message: self.told.append(f"{key.name} {reason}: {message}"),
        )

    @property
    def route(self) -> Route:
        project = Key("Project", "default", "demo")
        return Route(project, self.stores, HANDLE, "p-uid.git", self.ours, self.url)

    def load(self, *numbers: int, **more) -> Load:
        wanted = {self.commits[n]: f"refs/heads/c{n}" for n in numbers}
        return Load(f"c{numbers[0]}", self.commits[numbers[0]], wanted, **more)

    async def send(self, *numbers: int, asker: Key = TASKS[0], **more) -> str:
        return await until(lambda: self.ferry.send(self.route, self.load(*numbers, **more), asker))

    async def work(self, base: int = 0, ref: str = REF) -> Parcel:
        """Have a worker there push something; what is to come home."""
        await self.send(base)
        tree = git("-C", str(self.there), "rev-parse", f"{self.commits[base]}^{{tree}}")
        parents = ("-p", self.commits[base])
        head = git("-C", str(self.there), "commit-tree", "-m", f"Work {ref}", *parents, tree)
        git("-C", str(self.there), "update-ref", ref, head)
        known = {self.commits[base]: f"refs/heads/c{base}"}
        return Parcel(ref, head, self.commits[base], known, "refs/heads/work")

    async def bring(self, parcel: Parcel) -> str:
        return await until(lambda: self.ferry.bring(self.route, parcel, TASKS[0]))


async def until(call):
    """Ask again until it has come."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except NotYet:
                await asyncio.sleep(0.01)
