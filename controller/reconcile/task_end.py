"""The end of a Task object: expiry, and what it used folded into what outlives it, once."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from controller.domain.cost import NOTHING, Spent, total
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo, folded_spent, project_key
from controller.reconcile.spending import (
    folded_of_worker,
    put_folded,
    put_folded_of_worker,
)
from controller.store.base import Conflict, Key, NotFound, Resource, StoreError

LOG = logging.getLogger(__name__)

USAGE_FINALIZER = "codeswarm.dev/usage"
ATTEMPTS = 20
AGAIN_SECONDS = 2.0


class TaskEnd:
    """Expires finished prompts, and releases deleted Tasks."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._folded: set[str] = set()
        """Deleted Tasks whose usage is folded, until it is seen that they are gone."""

    async def guard(self, obj: Resource, info: TaskInfo) -> Resource:
        """Have the finalizer in place, so that a deleted Task's usage is folded first."""
        if info.deleting or not self._unguarded(obj):
            return obj
        obj["metadata"].setdefault("finalizers", []).append(USAGE_FINALIZER)
        return await self._ctx.write(obj)

    async def expire(self, obj: Resource, info: TaskInfo) -> float | None:
        """Delete a standalone Task after its time to live; seconds until then, or None."""
        if info.shares:
            obj = await self.guard(obj, info)
        ttl = obj["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or info.project:
            return None
        finished = seconds_of(obj["status"].get("finishedAt")) or 0.0
        left = finished + float(ttl) - self._ctx.clock.now()
        if left > 0:
            return left + 0.01
        try:
            await self._ctx.store.delete(info.key, uid=info.uid)
        except NotFound:
            pass  # somebody else was faster, and the outcome is the same
        return None

    @staticmethod
    def _unguarded(obj: Resource) -> bool:
        return USAGE_FINALIZER not in (obj["metadata"].get("finalizers") or ())

    async def release(self, obj: Resource, info: TaskInfo) -> float | None:
        """Fold a deleted Task's usage into its Project and Swarms, then let it go."""
        if self._unguarded(obj):
            return None
        owners = _owners(info)
        for owner in owners:
            await self._fold(owner, info)
        obj["metadata"]["finalizers"] = [
            f for f in obj["metadata"]["finalizers"] if f != USAGE_FINALIZER
        ]
        if info.shares:  # first: whether the write takes effect is not always told
            self._folded.add(info.uid)
        try:
            await self._ctx.store.update(obj)
        except NotFound:
            pass  # it is gone, by an earlier write whose answer got lost
        for owner in owners:
            self._ctx.queue.add(owner)
        return None

    async def gone(self, info: TaskInfo) -> None:
        """Fold the usage of a Task that went away before it was guarded."""
        if info.uid in self._folded:
            self._folded.discard(info.uid)
            return
        for owner in _owners(info):
            await self._fold_again(owner, info)
            self._ctx.queue.add(owner)

    async def _fold_again(self, owner: Key, info: TaskInfo) -> None:
        for _ in range(ATTEMPTS):
            try:
                await self._fold(owner, info)
            except Conflict:
                continue
            except StoreError as error:
                LOG.warning("%s: usage of %s waits: %s", owner, info.key, error)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return
        LOG.error("%s: usage of %s is not counted", owner, info.key)

    async def _fold(self, owner: Key, info: TaskInfo) -> None:
        """One write adds the usage and notes the Task's uid, so that it is added once."""
        obj = self._ctx.store.get(owner)
        if obj is None:
            return
        status = dict(obj.get("status") or {})
        known = status.get("foldedUids") or ()
        if info.uid in known:
            return
        uids = [u for u in known if u in self._ctx.world.by_uid]
        mine = [s for s in info.shares if owner.kind == "Project" or s.swarm == owner.name]
        put_folded(status, total([folded_spent(status), *(s.spent for s in mine)]))
        status["foldedUids"] = [*uids, info.uid]
        if owner.kind == "Swarm" and status.get("workers"):
            by_job = {share.job: share.spent for share in mine}
            status["workers"] = [
                _with_folded(row, by_job.get(row["job"], NOTHING)) for row in status["workers"]
            ]
        await self._ctx.write_status(obj, status)


def _with_folded(row: dict[str, Any], spent: Spent) -> dict[str, Any]:
    """A worker's row to whose folded part is added what a Task had used of it."""
    if not spent:
        return row
    new = dict(row)
    put_folded_of_worker(new, folded_of_worker(row) + spent)
    return new


def _owners(info: TaskInfo) -> list[Key]:
    """Whose sums a Task's usage is part of."""
    swarms = dict.fromkeys(share.swarm for share in info.shares)
    owners = [Key("Swarm", info.key.namespace, swarm) for swarm in swarms]
    if info.project and info.shares:
        owners.append(project_key(info))
    return owners
