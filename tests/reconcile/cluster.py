"""The rig of a controller on a cluster: its real store over an API server that is a stand-in.

Answers take their time, watch events come late and in another order than answers, and requests
fail at random: before they had an effect, or after it.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, cast

from controller.store.base import (
    Change,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreUnavailable,
)
from controller.store.kube import WATCHED, KubeStore
from controller.store.kube_api import Api
from controller.store.kube_rest import Rejected
from tests.reconcile.rig import Rig
from tests.reconcile.store import MemoryStore


class FakeApi:
    """``controller.store.kube_api.Api`` on objects in memory.

    Args:
        objects: what the server holds.
        chance: decides on delays and failures.
        failing: the share of requests that fail, from 0 to 1.
    """

    def __init__(self, objects: MemoryStore, chance: random.Random, failing: float) -> None:
        self._objects = objects
        self._chance = chance
        self._failing = failing
        self.said: set[str] = set()
        """Reasons of all conditions and events that were ever written."""

    async def _travel(self) -> None:
        await asyncio.sleep(self._chance.expovariate(200))

    def _fails(self) -> bool:
        return self._chance.random() < self._failing

    async def _out(self, *, writes: bool = False) -> None:
        """A request on its way to the server. Raises: what it is refused with."""
        await self._travel()
        if self._fails():
            refusals = [StoreUnavailable("the proxy says 503")]
            if writes:
                refusals += [Conflict("the proxy says 409"), Rejected("the proxy says 422")]
            raise self._chance.choice(refusals)

    async def _back(self, again: Exception) -> None:
        """An answer on its way; if it is lost, the request may be made ``again``."""
        await self._travel()
        if self._fails():
            raise self._chance.choice([StoreUnavailable("no answer"), again])

    # --- the verbs ---------------------------------------------------------------------------

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Resource:
        """Events: their reasons are noted."""
        await self._out()
        self.said.add(str((body or {}).get("reason")))
        return {}

    async def get(self, key: Key) -> Resource:
        await self._out()
        found = self._objects.get(key)
        await self._travel()
        if found is None:
            raise NotFound(f"{key} not found")
        return found

    async def list(self, kind: str, namespace: str | None) -> AsyncIterator[Resource]:
        await self._out()
        found = self._objects.list(kind)
        await self._travel()
        for obj in found:
            yield obj

    async def create(self, obj: Resource, check: Callable[[], None]) -> Resource:
        await self._out()
        found = self._objects.put(obj)
        await self._back(StoreUnavailable("no answer"))
        return found

    async def patch(
        self, key: Key, operations: Any, subresource: str, check: Callable[[], None]
    ) -> Resource:
        await self._out(writes=True)
        obj = self._objects.get(key)
        if obj is None:
            raise NotFound(f"{key} not found")
        for operation in operations:
            _apply(obj, operation)
        put = self._objects.put_status if subresource else self._objects.put_update
        found = put(obj)
        for condition in (found.get("status") or {}).get("conditions") or ():
            self.said.add(condition["reason"])
        await self._back(Conflict("changed") if self._objects.get(key) else NotFound("gone"))
        return found

    async def delete(self, key: Key, uid: str | None, check: Callable[[], None]) -> Resource:
        await self._out(writes=True)
        before = self._objects.get(key)
        self._objects.put_delete(key, uid=uid)
        found = self._objects.get(key)
        await self._back(NotFound("gone"))
        return found or {"kind": "Status", "details": {"uid": cast(Any, before)["metadata"]["uid"]}}


def _apply(obj: Resource, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *path, last = operation["path"].split("/")[1:]
    place: Any = obj
    for part in path:
        place = place[part]
    if operation["op"] == "add":
        place[last] = copy.deepcopy(operation["value"])
    elif last in place:
        del place[last]
    else:
        raise Rejected("remove operation does not apply")


class Watch:
    """Tells a store of changes, late, each object's in their order."""

    def __init__(self, objects: MemoryStore, store: KubeStore, chance: random.Random) -> None:
        self._objects = objects
        self._store = store
        self._chance = chance
        self._last: dict[str, Resource] = {}
        self._due: dict[str, float] = {}
        for kind in WATCHED:
            for obj in objects.list(kind):
                self._last[obj["metadata"]["uid"]] = obj
                store.feed(obj)
        objects.subscribe(self._told)

    def _told(self, changes: Iterable[Change]) -> None:
        loop = asyncio.get_running_loop()
        for change in changes:
            if change.key.kind not in WATCHED:
                continue
            obj = self._last.get(change.uid) if change.deleted else self._objects.get(change.key)
            if obj is None:
                continue
            self._last[change.uid] = obj
            slow = self._chance.random() < 0.05
            delay = self._chance.expovariate(2 if slow else 100)
            due = max(loop.time() + delay, self._due.get(change.uid, 0.0))
            self._due[change.uid] = due
            loop.call_at(due, self._feed, obj, change.deleted)

    def _feed(self, obj: Resource, deleted: bool) -> None:
        self._store.feed(copy.deepcopy(obj), deleted=deleted)


class ClusterRig(Rig):
    """One cluster; the controller can be killed and started again, the workers live on."""

    def __init__(self, path: Path, chance: random.Random, failing: float) -> None:
        super().__init__(path)
        self.chance = chance
        self.failing = failing
        self.kube: KubeStore | None = None
        self.said: set[str] = set()
        """Reasons of all conditions and events that were ever written."""

    def controllers_store(self) -> KubeStore:
        """A new store that has read what there is."""
        api = FakeApi(self.store, self.chance, self.failing)
        api.said = self.said
        self.kube = KubeStore(cast(Api, api), None)
        self.kube.start()
        Watch(self.store, self.kube, self.chance)
        return self.kube

    async def crash(self) -> None:
        """End the controller as ``kill -9`` does: nothing more is written."""
        await super().crash()
        if self.kube is not None:
            await self.kube.close()
