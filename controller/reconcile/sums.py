"""What a Project, a Swarm or a worker has used: present tasks and folded ones, each once."""

from __future__ import annotations

from collections.abc import Iterable

from controller.domain.cost import Spent
from controller.reconcile.infos import Folded
from controller.reconcile.world import World
from controller.store.base import Key


def present(world: World, owner: Key, folded_uids: Iterable[str]) -> Spent:
    """What the present tasks have used, without those that are folded already.

    Between the fold and the end of a deleted Task both are there.
    """
    spent = world.spent(owner)
    for uid in folded_uids:
        key = world.by_uid.get(uid)
        info = world.tasks.get(key) if key else None
        for share in info.shares if info else ():
            if owner.kind == "Project" or share.swarm == owner.name:
                spent -= share.spent
    return spent


def present_by(world: World, job: str, folded_uids: Iterable[str]) -> Spent:
    """The same for one worker."""
    spent = world.spent_by(job)
    for uid in folded_uids if spent else ():
        key = world.by_uid.get(uid)
        info = world.tasks.get(key) if key else None
        for share in info.shares if info else ():
            if share.job == job:
                spent -= share.spent
    return spent


def spent_by(world: World, owner: Key, folded: Folded) -> Spent:
    """Everything that counts for the owner's budget."""
    return folded.spent + present(world, owner, folded.uids)
