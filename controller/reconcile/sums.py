"""What a Project or a Swarm has used: its present tasks and the folded ones, each once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.domain.usage import Usage, from_status
from controller.reconcile.world import World
from controller.store.base import Key


def present_usage(world: World, owner: Key, status: Mapping[str, Any]) -> Usage:
    """What the present tasks have used, without those that ``foldedUsage`` holds already.

    Between the fold and the end of a deleted Task both are there.
    """
    used = world.usage(owner)
    for uid in status.get("foldedUids") or ():
        key = world.by_uid.get(uid)
        info = world.tasks.get(key) if key else None
        for swarm, usage in info.usage.items() if info else ():
            if owner.kind == "Project" or swarm == owner.name:
                used -= usage
    return used


def used_by(world: World, owner: Key, status: Mapping[str, Any]) -> Usage:
    """Everything, as far as tasks have used it."""
    return from_status(status.get("foldedUsage")) + present_usage(world, owner, status)
