"""Workers whose only repository is their project's store, and a controller that has such.

The stores are real (worker/attendant/stores.py), in a folder of their own; what is between it and
the controller can be cut, by a file.  Run as ``python -m tests.carrying.elsewhere``, the home's
controller has them as ``CODESWARM_TEST_NAME`` (``local`` or ``slurm``); with the variables of
tests/faults/crashing.py it kills itself at a step.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.repository.service import Repositories
from controller.runtime import local
from controller.runtime.home import Home
from providers.base import (
    JobStatus,
    LaunchRequest,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from providers.local import LocalProvider
from tests.faults import crashing
from worker.attendant import stores

NAME = "CODESWARM_TEST_NAME"
PLACE = "ada@lab-login:/shared/codeswarm"


class FolderStores:
    """``providers.base.RemoteStores`` in a folder.

    Args:
        root: where the stores are; ``cut`` in it: nothing gets through.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.sent = 0
        """Bytes of all bundles."""

    def place(self, swarm: SwarmHandle) -> str:
        return PLACE

    async def _call(self, name: str, function: Any, *args: Any, **more: Any) -> Any:
        self.calls.append(name)
        if (self.root / "cut").exists():
            raise ProviderUnreachable("ConnectionLost", "the connection to lab-login was lost")
        return await asyncio.to_thread(function, *args, **more)

    async def locate(self, swarm: SwarmHandle, store: str) -> str:
        return str(await self._call("locate", lambda: self.root / store))

    async def lacking(
        self, swarm: SwarmHandle, store: str, commits: Collection[str]
    ) -> frozenset[str]:
        return frozenset(await self._call("lacking", stores.lacking, self.root, store, [*commits]))

    async def tips(self, swarm: SwarmHandle, store: str) -> frozenset[str]:
        return frozenset(await self._call("tips", stores.tips, self.root, store))

    async def clone(
        self, swarm: SwarmHandle, store: str, url: str, branch: str, commit: str
    ) -> None:
        await self._call("clone", stores.clone, self.root, store, url, branch, commit, seconds=60)

    async def put(
        self, swarm: SwarmHandle, store: str, bundle: Path, commits: Collection[str]
    ) -> None:
        def put() -> None:
            with bundle.open("rb") as source:
                size = bundle.stat().st_size
                stores.put_bundle(self.root, store, source, size, [*commits], seconds=60)
                self.sent += size

        await self._call("put", put)

    async def get(
        self,
        swarm: SwarmHandle,
        store: str,
        ref: str,
        known: Collection[str],
        bundle: Path,
        *,
        limit: int,
    ) -> None:
        def get() -> None:
            with bundle.open("wb") as out:
                stores.get_bundle(self.root, store, ref, [*known], out, seconds=60)
            if bundle.stat().st_size > limit:
                raise ProviderError("BundleTooLarge", "too large")

        await self._call("get", get)

    async def discard(self, swarm: SwarmHandle, store: str) -> None:
        await self._call("discard", stores.discard, self.root, store)


class Elsewhere(LocalProvider):
    """Workers on this machine as if they were on another."""

    def __init__(self, home: Path, name: str = "local") -> None:
        super().__init__(home if name == "local" else home / "elsewhere")
        self.name = name
        self.stores = FolderStores(home / "cluster")

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        await super().launch([replace(r, swarm=_here(r.swarm)) for r in requests])

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        return await super().observe(_here(swarm))

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        super().follow(_here(swarm), job, index, offset)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        assert secrets is None, "git's credentials stay with the controller"
        await super().deliver(_here(swarm), job, index, record)

    async def stop(self, swarm: SwarmHandle, jobs: Any, *, force: bool) -> None:
        await super().stop(_here(swarm), jobs, force=force)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        return await super().archive(_here(swarm), destination)

    async def remove(self, swarm: SwarmHandle, jobs: Any = None, *, keep: bool = False) -> None:
        await super().remove(_here(swarm), jobs, keep=keep)

    async def discard_store(self, name: str) -> None:
        """Nothing: there are ``stores``."""


def _here(swarm: SwarmHandle) -> SwarmHandle:
    return replace(swarm, parameters={})


def main() -> int:
    """Be the home's controller."""
    workspaces = Home.from_env().workspaces
    elsewhere = Elsewhere(workspaces, os.environ.pop(NAME, "local"))

    context = local.Context

    def made(**named: Any) -> Any:
        providers = {**named.pop("providers"), elsewhere.name: elsewhere}
        return context(**named, providers=providers)

    local.Context = made  # type: ignore[assignment,misc]
    at = os.environ.pop(crashing.AT, "")
    if at:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        step = crashing.arm(at, os.open(os.environ.pop(crashing.LOG), flags, 0o600))
        ours = ("lacking", "tips", "put", "get", "discard")
        effects = (
            *crashing.EFFECTS,
            (FolderStores, ours),
            (Repositories, ("hold", "pack", "unpack", "bring")),
        )
        for owner, names in effects:
            for name in names:
                crashing.surround(owner, name, step)
    return local.main()


if __name__ == "__main__":
    sys.exit(main())
