"""A provider's effects, only while the lease is held.

A controller that was stopped for a while and wakes up has lost it: what it decided before is not
carried out any more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.base import (
    Ended,
    JobStatus,
    LaunchRequest,
    Machine,
    Provider,
    RemoteStores,
    Sink,
    SwarmHandle,
)

Check = Callable[[], None]


class FencedProvider:
    """A provider (``providers.base.Provider``) whose effects ask ``check`` first.

    Args:
        inner: does the work.
        check: raises, if nothing may be done any more.
    """

    def __init__(self, inner: Provider, check: Check) -> None:
        self._inner = inner
        self._check = check
        self.name = inner.name
        self.rents = inner.rents
        self.stores: RemoteStores | None = (
            FencedStores(inner.stores, check) if inner.stores is not None else None
        )

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """As ``Provider.start``."""
        self._inner.start(sink, ended)

    async def close(self) -> None:
        """As ``Provider.close``."""
        await self._inner.close()

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """As ``Provider.launch``."""
        self._check()
        await self._inner.launch(requests)

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """As ``Provider.observe``."""
        return await self._inner.observe(swarm)

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """As ``Provider.machines``."""
        return await self._inner.machines(swarm)

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """As ``Provider.follow``."""
        self._inner.follow(swarm, job, index, offset)

    def unfollow(self, job: str) -> None:
        """As ``Provider.unfollow``."""
        self._inner.unfollow(job)

    async def flush(self, job: str) -> None:
        """As ``Provider.flush``."""
        await self._inner.flush(job)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """As ``Provider.deliver``."""
        self._check()
        await self._inner.deliver(swarm, job, index, record, secrets=secrets)

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """As ``Provider.stop``."""
        self._check()
        await self._inner.stop(swarm, jobs, force=force)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """As ``Provider.archive``."""
        self._check()
        return await self._inner.archive(swarm, destination)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """As ``Provider.remove``."""
        self._check()
        await self._inner.remove(swarm, jobs, keep=keep)

    async def discard_store(self, name: str) -> None:
        """As ``Provider.discard_store``."""
        self._check()
        await self._inner.discard_store(name)


class FencedStores:
    """Stores of repositories (``providers.base.RemoteStores``) that ask ``check`` before effects.

    Args:
        inner: does the work.
        check: raises, if nothing may be done any more.
    """

    def __init__(self, inner: RemoteStores, check: Check) -> None:
        self._inner = inner
        self._check = check

    def place(self, swarm: SwarmHandle) -> str:
        """As ``RemoteStores.place``."""
        return self._inner.place(swarm)

    async def locate(self, swarm: SwarmHandle, store: str) -> str:
        """As ``RemoteStores.locate``."""
        return await self._inner.locate(swarm, store)

    async def lacking(
        self, swarm: SwarmHandle, store: str, commits: Collection[str]
    ) -> frozenset[str]:
        """As ``RemoteStores.lacking``."""
        return await self._inner.lacking(swarm, store, commits)

    async def tips(self, swarm: SwarmHandle, store: str) -> frozenset[str]:
        """As ``RemoteStores.tips``."""
        return await self._inner.tips(swarm, store)

    async def clone(
        self, swarm: SwarmHandle, store: str, url: str, branch: str, commit: str
    ) -> None:
        """As ``RemoteStores.clone``."""
        self._check()
        await self._inner.clone(swarm, store, url, branch, commit)

    async def put(
        self, swarm: SwarmHandle, store: str, bundle: Path, commits: Collection[str]
    ) -> None:
        """As ``RemoteStores.put``."""
        self._check()
        await self._inner.put(swarm, store, bundle, commits)

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
        """As ``RemoteStores.get``."""
        await self._inner.get(swarm, store, ref, known, bundle, limit=limit)

    async def discard(self, swarm: SwarmHandle, store: str) -> None:
        """As ``RemoteStores.discard``."""
        self._check()
        await self._inner.discard(swarm, store)
