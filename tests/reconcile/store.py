"""The store's port in memory: the same semantics, every write counted, commits that take time."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from controller.reconcile.clock import Clock, stamp
from controller.store.base import (
    AlreadyExists,
    Change,
    Conflict,
    Event,
    Events,
    Key,
    NotFound,
    Resource,
    key_of,
)

COMMIT_SECONDS = 0.002
RETURN_SECONDS = 0.001
_Objects = list[Resource]


class MemoryStore:
    """``controller.store.base.Store``; another client's writes are the methods named ``put_*``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[Key, Resource] = {}
        self._events: dict[tuple[Key, str, str], Event] = {}
        self._subscribers: list[Callable[[Iterable[Change]], None]] = []
        self._serial = itertools.count(1)
        self._uids = itertools.count(1)
        self.writes: list[Key] = []
        """Every write that changed something, the controller's and others'."""

    # --- reads -------------------------------------------------------------------------------

    def get(self, key: Key) -> Resource | None:
        found = self._objects.get(Key(*key))
        return copy.deepcopy(found) if found else None

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> _Objects:
        found = []
        for key in sorted(self._objects):
            obj = self._objects[key]
            meta = obj["metadata"]
            if key.kind != kind or namespace not in (None, key.namespace):
                continue
            owners = {r["uid"] for r in meta.get("ownerReferences") or ()}
            mine = (meta.get("labels") or {}).items()
            if (owner_uid is None or owner_uid in owners) and (labels or {}).items() <= mine:
                found.append(copy.deepcopy(obj))
        return found

    def events(self, key: Key | None = None, namespace: str | None = None) -> Events:
        return [e for e in self._events.values() if key is None or e.key == key]

    # --- the controller's writes ---------------------------------------------------------------

    async def create(self, obj: Resource) -> Resource:
        return await self._commit(lambda: self.put(obj))

    async def update(self, obj: Resource) -> Resource:
        draft = copy.deepcopy(obj)
        return await self._commit(lambda: self.put_update(draft))

    async def update_status(self, obj: Resource) -> Resource:
        draft = copy.deepcopy(obj)
        return await self._commit(lambda: self.put_status(draft))

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        await self._commit(lambda: self.put_delete(key, uid=uid))

    async def _commit(self, write: Callable[[], Any]) -> Any:
        """A controller may be killed before its write is there, and before it knows that it is."""
        await asyncio.sleep(COMMIT_SECONDS)
        result = write()
        await asyncio.sleep(RETURN_SECONDS)
        return result

    def put_status(self, obj: Resource) -> Resource:
        stored = self._expect(obj)
        if stored.get("status") == obj.get("status"):
            return copy.deepcopy(stored)
        stored["status"] = obj.get("status")
        return self._written(stored)

    def record_event(self, key: Key, type: str, reason: str, message: str) -> None:
        now = stamp(self._clock.now())
        old = self._events.get((key, reason, message))
        first, count = (old.first, old.count + 1) if old else (now, 1)
        self._events[key, reason, message] = Event(key, type, reason, message, first, now, count)

    def subscribe(self, callback: Callable[[Iterable[Change]], None]) -> None:
        self._subscribers.append(callback)

    def unsubscribe_all(self) -> None:
        """The controller is gone."""
        self._subscribers.clear()

    # --- anybody's writes, at once -------------------------------------------------------------

    def put(self, obj: Resource) -> Resource:
        """Create."""
        obj = copy.deepcopy(obj)
        key = key_of(obj)
        if key in self._objects:
            raise AlreadyExists(f"{key} exists")
        obj.pop("status", None)
        number = next(self._uids)
        obj["metadata"].update(
            namespace=key.namespace,
            uid=f"{number:08x}-0000-4000-8000-{number:012x}",
            generation=1,
            creationTimestamp=stamp(self._clock.now()),
        )
        self._objects[key] = obj
        return self._written(obj)

    def put_update(self, obj: Resource) -> Resource:
        """Replace metadata and spec."""
        obj = copy.deepcopy(obj)
        stored = self._expect(obj)
        meta, old = obj["metadata"], stored["metadata"]
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion")
        fresh = {k: v for k, v in meta.items() if k not in kept}
        fresh |= {k: old[k] for k in kept if k in old}
        changed = {k: v for k, v in obj.items() if k not in ("status", "metadata")}
        if fresh == old and all(stored.get(k) == v for k, v in changed.items()):
            return copy.deepcopy(stored)
        if stored.get("spec") != obj.get("spec"):
            fresh["generation"] += 1
        stored.update(changed, metadata=fresh)
        if "deletionTimestamp" in fresh and not fresh.get("finalizers"):
            return self._remove(stored)
        return self._written(stored)

    def put_delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete, or mark as being deleted."""
        stored = self._objects.get(Key(*key))
        if stored is None or uid not in (None, stored["metadata"]["uid"]):
            raise NotFound(f"{key} not found")
        if not stored["metadata"].get("finalizers"):
            self._remove(stored)
        elif "deletionTimestamp" not in stored["metadata"]:
            stored["metadata"]["deletionTimestamp"] = stamp(self._clock.now())
            stored["metadata"]["generation"] += 1
            self._written(stored)

    def change(self, key: Key, how: Callable[[Resource], Any]) -> Resource:
        """Read, change and replace, as a client does."""
        obj = self.get(key)
        assert obj is not None, f"no {key}"
        how(obj)
        return self.put_update(obj)

    # --- inside ------------------------------------------------------------------------------

    def _expect(self, obj: Resource) -> Resource:
        stored = self._objects.get(key_of(obj))
        meta = obj["metadata"]
        if stored is None or meta.get("uid") not in (None, stored["metadata"]["uid"]):
            raise NotFound(f"{key_of(obj)} not found")
        if meta.get("resourceVersion") != stored["metadata"]["resourceVersion"]:
            raise Conflict(f"{key_of(obj)} changed")
        return stored

    def _written(self, obj: Resource) -> Resource:
        obj["metadata"]["resourceVersion"] = str(next(self._serial))
        self.writes.append(key_of(obj))
        meta = obj["metadata"]
        self._tell(Change(key_of(obj), meta["uid"], version=meta["resourceVersion"]))
        return copy.deepcopy(obj)

    def _remove(self, obj: Resource) -> Resource:
        key, uid = key_of(obj), obj["metadata"]["uid"]
        del self._objects[key]
        self.writes.append(key)
        self._tell(Change(key, uid, deleted=True))
        for other in list(self._objects.values()):
            owners = other["metadata"].get("ownerReferences") or ()
            if any(r["uid"] == uid for r in owners):
                self.put_delete(key_of(other))
        return copy.deepcopy(obj)

    def _tell(self, change: Change) -> None:
        for callback in self._subscribers:
            callback([change])
