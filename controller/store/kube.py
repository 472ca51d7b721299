"""The store on a Kubernetes API server: reads from a watch cache, writes by JSON patches.

Every write names the version that it was decided on, so the server refuses what was decided on
an older one.  Before each the ``fence`` is asked: a controller that lost its lease writes no more.

An object is shown only once the ConfigMaps and Secrets that it names have been read, so that
nothing is decided on a reference that was not looked at yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controller.resources.kinds import kinds
from controller.store.base import (
    AlreadyExists,
    Change,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreUnavailable,
    is_newer,
    key_of,
)
from controller.store.kube_api import Api
from controller.store.kube_cache import Cache
from controller.store.kube_events import Recorder
from controller.store.kube_references import KINDS as REFERENCED
from controller.store.kube_references import References
from controller.store.kube_rest import NotServed, Rejected

LOG = logging.getLogger(__name__)

WATCHED = tuple(kind.kind for kind in kinds() if kind.group)
READ_AGAIN_SECONDS = 2.0
_METADATA = ("labels", "annotations", "ownerReferences", "finalizers")
"""What of an object's metadata a client may change."""
_HEAD = frozenset({"apiVersion", "kind", "metadata", "status"})

Subscriber = Callable[[Iterable[Change]], None]
_Changes = list[Change]
_Subscribers = list[Subscriber]


class KubeStore:
    """``controller.store.base.Store`` on a cluster, within one running event loop.

    Args:
        api: the server.
        namespace: the only one that is served; None: all.
        fence: raises StoreUnavailable if this process may not write any more.
    """

    def __init__(
        self, api: Api, namespace: str | None, fence: Callable[[], None] = lambda: None
    ) -> None:
        self._api = api
        self.namespace = namespace
        """The only one that is shown; None: all are."""
        self._fence = fence
        self._cache = Cache()
        self._references = References(api, self._report)
        self._recorder = Recorder(api, fence)
        self._subscribers: _Subscribers = []
        self._background: set[asyncio.Task[None]] = set()
        self.served: tuple[str, ...] = WATCHED
        """Kinds that the server knows."""
        self._held: dict[Key, Resource] = {}
        """Objects whose references are being read: the newest version of each."""

    def start(self) -> None:
        """Begin to send events, and to look after references; ``sync`` then reads everything."""
        self._recorder.start()
        self._spawn(self._references.poll())

    async def close(self) -> None:
        """Send what events wait, then stop."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._recorder.close()

    # --- what the watches bring ----------------------------------------------------------------

    def feed(self, obj: Resource, *, deleted: bool = False) -> None:
        """Take in what a watch says of an object."""
        key = key_of(obj)
        if deleted:
            self._vanish(key, obj["metadata"]["uid"])
            return
        if not self._is_news(key, obj):
            return  # what an older version names is of no interest either
        waiting = key in self._held
        if not self._references.unread(obj):
            self._held.pop(key, None)
            self._report(self._cache.put(obj))
            return
        self._held[key] = obj
        if not waiting:
            self._spawn(self._show(key))

    def _is_news(self, key: Key, obj: Resource) -> bool:
        held = self._held.get(key)
        return self._cache.is_news(obj) and (
            held is None
            or is_newer(obj["metadata"]["resourceVersion"], held["metadata"]["resourceVersion"])
        )

    def _vanish(self, key: Key, uid: str) -> None:
        """An object is gone; another one may have its name by now."""
        held = self._held.get(key)
        if held is not None and held["metadata"]["uid"] == uid:
            del self._held[key]
        changes = self._cache.remove(key, uid)
        if key not in self._held and not self._cache.uid(key):
            self._references.gone(key)
        self._report(changes)

    async def _show(self, key: Key) -> None:
        """Show a held object when what it names was read."""
        while True:
            obj = self._held.get(key)
            if obj is None:
                return
            if not self._cache.is_news(obj):  # the answer to a write of ours was faster
                del self._held[key]
                return
            try:
                await self._references.read(self._references.unread(obj))
            except StoreUnavailable as error:
                LOG.warning("%s: %s", key, error)
                await asyncio.sleep(READ_AGAIN_SECONDS)
                continue
            if self._held.get(key) is obj and not self._references.unread(obj):
                del self._held[key]
                self._report(self._cache.put(obj))
                return

    async def sync(self, only: Sequence[str]) -> None:
        """List everything of these kinds, and let go of what is not there any more.

        Raises: StoreUnavailable (NotServed for a kind that the server does not know), Forbidden.
        """
        for kind in only:
            before = self._cache.keys(kind) | {key for key in self._held if key.kind == kind}
            seen: set[Key] = set()
            objects = [obj async for obj in self._api.list(kind, self.namespace)]
            news = [obj for obj in objects if self._is_news(key_of(obj), obj)]
            unread = {key for obj in news for key in self._references.unread(obj)}
            await self._references.read(unread)
            for obj in objects:
                seen.add(key_of(obj))
                self.feed(obj)
            for key in before - seen:
                await self._look_again(key)

    async def survey(self) -> tuple[str, ...]:
        """Read everything; the kinds that the server knows. Raises: StoreUnavailable, Forbidden."""
        found = []
        for kind in WATCHED:
            try:
                await self.sync([kind])
            except NotServed:
                continue
            found.append(kind)
        return tuple(found)

    def serve(self, served: tuple[str, ...]) -> None:
        """Take over that there are these kinds only, and no objects of others."""
        self.served = served
        for kind in WATCHED:
            if kind not in served:
                for key in self._cache.keys(kind):
                    self._vanish(key, self._cache.uid(key))

    def leaves(self, served: Sequence[str]) -> bool:
        """Whether an object of these kinds is being deleted, and waits for what is to be done."""
        return any("deletionTimestamp" in o["metadata"] for k in served for o in self.list(k))

    async def _look_again(self, key: Key) -> None:
        """Read an object by its name, and take over that it is gone or what it is now."""
        known = {self._cache.uid(key)} - {""}
        if key in self._held:
            known.add(self._held[key]["metadata"]["uid"])
        try:
            obj = await self._api.get(key)
        except NotFound:
            for uid in known:
                self._vanish(key, uid)
            self._references.note(key, None)
        else:
            await self._take(obj)

    # --- reads -------------------------------------------------------------------------------

    def get(self, key: Key) -> Resource | None:
        """As ``Reader.get``. Raises: Forbidden, for a ConfigMap or Secret."""
        if key.kind in REFERENCED:
            return self._references.get(Key(*key))
        return self._cache.get(key)

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Resource]:
        """As ``Reader.list``, of the kinds that are watched."""
        return list(self._cache.list(kind, namespace, owner_uid=owner_uid, labels=labels))

    # --- writes ------------------------------------------------------------------------------

    async def create(self, obj: Resource) -> Resource:
        """As ``Store.create``."""
        try:
            bare = {k: v for k, v in obj.items() if k != "status"}
            stored = await self._api.create(bare, self._fence)
        except AlreadyExists:
            # It is not in the cache, else nobody would create it: the next look has to find it.
            await self._look_again(key_of(obj))
            raise
        return await self._take(stored)

    async def update(self, obj: Resource) -> Resource:
        """As ``Store.update``: the difference to what is known is sent."""
        key, known = self._known(obj)
        operations = _difference(known, obj)
        if not operations:
            return known
        return await self._patch(key, obj, operations)

    async def update_status(self, obj: Resource) -> Resource:
        """As ``Store.update_status``."""
        key, known = self._known(obj)
        status = obj.get("status")
        if known.get("status") == status:
            return known
        return await self._patch(key, obj, [_set("/status", status)], "status")

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """As ``Store.delete``."""
        before = uid or self._cache.uid(key)
        try:
            answer = await self._api.delete(key, uid, self._fence)
        except Conflict as conflict:
            await self._look_again(key)
            raise NotFound(f"{key} has another uid: {conflict}") from conflict
        except NotFound:
            await self._look_again(key)
            raise
        if answer.get("kind") == key.kind:
            await self._take(answer)  # finalizers keep it
        elif key.kind in REFERENCED:
            self._references.note(key, None)
        else:
            self._vanish(key, str((answer.get("details") or {}).get("uid") or before))

    def _known(self, obj: Resource) -> tuple[Key, Resource]:
        key = key_of(obj)
        known = self._cache.get(key)
        uid = obj["metadata"].get("uid")
        if known is None or uid not in (None, known["metadata"]["uid"]):
            raise NotFound(f"{key} not found")
        if obj["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
            raise Conflict(f"{key} changed since it was read")
        return key, known

    async def _patch(
        self, key: Key, obj: Resource, operations: Sequence[Any], subresource: str = ""
    ) -> Resource:
        # The server compares the version only where a patch sets it.
        version = _set("/metadata/resourceVersion", obj["metadata"]["resourceVersion"])
        try:
            stored = await self._api.patch(key, [version, *operations], subresource, self._fence)
        except (Conflict, NotFound):
            await self._look_again(key)
            raise
        except Rejected as refused:
            # A patch of what is not there any more is refused before the version is compared.
            await self._look_again(key)
            if self._cache.version(key) != obj["metadata"]["resourceVersion"]:
                raise Conflict(f"{key} changed since it was read: {refused}") from refused
            raise
        return await self._take(stored)

    async def _take(self, stored: Resource) -> Resource:
        """Take over the answer to a write, or a read."""
        key = key_of(stored)
        if key.kind in REFERENCED:
            self._references.note(key, stored)
            return stored
        if self._cache.is_news(stored):
            await self._references.read(self._references.unread(stored))
            self._report(self._cache.put(stored))
        if not self._cache.uid(key) and key not in self._held:
            self._references.gone(key)
        stored["metadata"].pop("managedFields", None)
        return stored

    # --- events ------------------------------------------------------------------------------

    def record_event(self, key: Key, type: str, reason: str, message: str) -> None:
        """As ``Store.record_event``."""
        self._recorder.record(key, self._cache.uid(key), type, reason, message)

    def subscribe(self, callback: Subscriber) -> None:
        """As ``Store.subscribe``; what a callback raises is logged."""
        self._subscribers.append(callback)

    def _report(self, changes: Iterable[Change]) -> None:
        found = _Changes(changes)
        for callback in self._subscribers if found else ():
            try:
                callback(found)
            except Exception:
                LOG.exception("a subscriber failed; changes: %s", found)

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _difference(known: Resource, wanted: Resource) -> list[dict[str, Any]]:
    """JSON patch operations (RFC 6902) for metadata and everything else but the status."""
    operations = []
    old, new = known["metadata"], wanted["metadata"]
    for field in _METADATA:
        if (new.get(field) or None) != (old.get(field) or None):
            operations.append(_set(f"/metadata/{field}", new.get(field) or None))
    for field in sorted((known.keys() | wanted.keys()) - _HEAD):
        if known.get(field) != wanted.get(field):
            operations.append(_set(f"/{field}", wanted.get(field)))
    return operations


def _set(path: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {"op": "remove", "path": path}
    return {"op": "add", "path": path, "value": value}
