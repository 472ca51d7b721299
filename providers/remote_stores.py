"""Shared git stores on a login host's file system (the port is ``providers.base.RemoteStores``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from providers.base import ProviderError, ProviderUnreachable, SwarmHandle
from providers.remote import RemoteHost
from providers.remote_setup import Place as RemotePlace
from worker.paths import component

LOOK_SECONDS = 180.0
CLONE_SECONDS = 3600.0
DISCARD_SECONDS = 600.0
_BYTES_PER_SECOND = 1024 * 1024
"""How much of a bundle git is supposed to take in or pack in a second, at least."""
_GRACE = 30.0
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")


class StoresOverSsh:
    """Stores that are reached by way of attendants.

    Args:
        host_of: where a swarm's workers are. Raises: ProviderError.
        place_of: the same without going there, also for a handle without its secrets; default:
            the host's own.
    """

    def __init__(
        self,
        host_of: Callable[[SwarmHandle], RemoteHost],
        place_of: Callable[[SwarmHandle], RemotePlace] | None = None,
    ) -> None:
        self._host_of = host_of
        self._place_of = place_of or (lambda swarm: host_of(swarm).place)

    def place(self, swarm: SwarmHandle) -> str:
        """``ada@lab-login:/shared/codeswarm``. Raises: ProviderError, if that is not said."""
        place = self._place_of(swarm)
        return f"{place.name}:{place.root}"

    async def locate(self, swarm: SwarmHandle, store: str) -> str:
        """Absolute path of a store there. Raises: ProviderError, ProviderUnreachable."""
        facts = await self._host_of(swarm).known()
        return f"{facts.root}/stores/{component(store)}"

    async def lacking(
        self, swarm: SwarmHandle, store: str, commits: Collection[str]
    ) -> frozenset[str]:
        """Those that are not there whole. Raises: ProviderError, ProviderUnreachable."""
        told = await self._host_of(swarm).call(
            "lacking",
            {"store": component(store), "commits": sorted(commits)},
            seconds=LOOK_SECONDS,
            effect=False,
        )
        return _commits(told) & frozenset(commits)

    async def tips(self, swarm: SwarmHandle, store: str) -> frozenset[str]:
        """Commits that are there whole. Raises: ProviderError, ProviderUnreachable."""
        told = await self._host_of(swarm).call(
            "tips", {"store": component(store)}, seconds=LOOK_SECONDS, effect=False
        )
        return _commits(told)

    async def clone(
        self, swarm: SwarmHandle, store: str, url: str, branch: str, commit: str
    ) -> None:
        """Have a commit fetched from a URL. Raises: as the port says."""
        told = {
            "store": component(store),
            "url": url,
            "branch": branch,
            "commit": commit,
            "seconds": CLONE_SECONDS,
        }
        await self._host_of(swarm).call("clone", told, seconds=CLONE_SECONDS + _GRACE)

    async def put(
        self, swarm: SwarmHandle, store: str, bundle: Path, commits: Collection[str]
    ) -> None:
        """Send commits in a bundle. Raises: as the port says."""
        size = bundle.stat().st_size
        told = {
            "store": component(store),
            "size": size,
            "commits": sorted(commits),
            "seconds": LOOK_SECONDS + size / _BYTES_PER_SECOND,
        }
        await self._host_of(swarm).upload("put_bundle", told, bundle)

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
        """Fetch a ref in a bundle. Raises: as the port says."""
        told = {
            "store": component(store),
            "ref": ref,
            "known": sorted(known),
            "seconds": LOOK_SECONDS + limit / _BYTES_PER_SECOND,
        }
        try:
            await self._host_of(swarm).download("get_bundle", told, bundle, limit=limit)
        except ProviderError as error:
            if error.reason != "TooLarge":
                raise
            raise ProviderError("BundleTooLarge", f"{ref} of the store {store}: {error}") from error

    async def discard(self, swarm: SwarmHandle, store: str) -> None:
        """Remove a store. Raises: as the port says."""
        told = {"store": component(store)}
        await self._host_of(swarm).call("discard_store", told, seconds=DISCARD_SECONDS)


def _commits(told: Any) -> frozenset[str]:
    """Raises: ProviderUnreachable."""
    if not isinstance(told, list) or not all(
        isinstance(commit, str) and _COMMIT.match(commit) for commit in told
    ):
        raise ProviderUnreachable("AttendantFailed", "a list of commits that cannot be read")
    return frozenset(told)
