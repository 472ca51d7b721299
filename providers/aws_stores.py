"""Shared git stores on the volumes of swarms on EC2 (see ``providers.base.RemoteStores``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from providers.aws_values import Wish
from providers.base import SwarmHandle
from providers.remote import RemoteHost
from providers.remote_setup import Place
from providers.remote_stores import StoresOverSsh


class VolumeStores(StoresOverSsh):
    """Stores on volumes: each swarm has its own.

    Args:
        host_of: the attendant of a swarm's coordinator. Raises: ProviderUnreachable.
        is_there: whether there is a volume at all that anything can be on.
    """

    def __init__(
        self,
        host_of: Callable[[SwarmHandle], RemoteHost],
        is_there: Callable[[SwarmHandle], Awaitable[bool]],
    ) -> None:
        super().__init__(host_of, place_of)
        self._is_there = is_there

    async def discard(self, swarm: SwarmHandle, store: str) -> None:
        """Remove a store; one whose volume nobody uses any more needs no instance for that.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        if await self._is_there(swarm):
            await super().discard(swarm, store)


def place_of(swarm: SwarmHandle) -> Place:
    """Where a swarm's stores are. Asks nobody."""
    wish = Wish.of(swarm)
    return Place(f"AWS {wish.api}, volume of swarm {swarm.uid}", wish.root)
