"""ConfigMaps and Secrets that objects name: read by name, and again now and then.

The controller may ``get`` them and no more: neither list nor watch, which would show it every
Secret of a namespace.  So what is in use is read again every few seconds, and a change of it is
reported like any other.  A new object, or one whose spec has changed, has them read afresh: who
changes both together must not meet the old text.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from controller.store.base import (
    Change,
    Forbidden,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
    key_of,
)
from controller.store.kube_api import Api

LOG = logging.getLogger(__name__)

POLL_SECONDS = 15.0
PARALLEL = 8
KINDS = frozenset({"ConfigMap", "Secret"})
_NAMES = {"configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap", "secretKeyRef": "Secret"}
_FINISHED = frozenset({"Succeeded", "Failed", "Cancelled"})

_Found = Resource | Forbidden | None
"""What a read has found; None: there is no such object."""


def references(obj: Mapping[str, Any]) -> set[Key]:
    """What an object needs to be read with it.

    Wherever they stand in the spec; and the accepted plan of a plan's task.
    """
    meta, status = obj["metadata"], obj.get("status") or {}
    namespace = meta["namespace"]
    spec = obj.get("spec") or {}
    if obj["kind"] == "Task":
        if spec.get("type") == "plan" and spec.get("project"):
            plan = f"{spec['project']}.plan-{spec.get('revision', 1)}"
            return {Key("ConfigMap", namespace, plan), *_named(spec, namespace)}
        if status.get("phase") in _FINISHED:
            return set()
    return set(_named(spec, namespace))


def _named(value: Any, namespace: str) -> Iterator[Key]:
    if isinstance(value, Mapping):
        for field, inner in value.items():
            kind = _NAMES.get(field)
            if kind and isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
                yield Key(kind, namespace, inner["name"])
            elif isinstance(inner, Mapping | list):
                yield from _named(inner, namespace)
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, Mapping | list):
                yield from _named(inner, namespace)


class References:
    """What was read of them; ``get`` is synchronous, as the store's reads are.

    Args:
        api: the server.
        report: takes changes.
    """

    def __init__(self, api: Api, report: Callable[[Iterable[Change]], None]) -> None:
        self._api = api
        self._report = report
        self._found: dict[Key, _Found] = {}
        self._users: dict[Key, set[Key]] = {}
        self._uses: dict[Key, set[Key]] = {}
        self._serial = itertools.count()
        self._seen: dict[Key, tuple[object, int]] = {}
        """By user: its uid and generation, and when that was seen first."""
        self._read_at: dict[Key, int] = {}
        """When the last read began that has ended."""
        self._limit = asyncio.Semaphore(PARALLEL)
        self._reading: dict[Key, asyncio.Task[None]] = {}
        self._next: dict[Key, asyncio.Task[None]] = {}

    def get(self, key: Key) -> Resource | None:
        """As read last. Raises: Forbidden."""
        found = self._found.get(key)
        if isinstance(found, Forbidden):
            raise found
        return None if found is None else _copy(found)

    def unread(self, obj: Resource) -> set[Key]:
        """Note what an object names now; what of it was not read since it is as it is."""
        user, wanted = key_of(obj), references(obj)
        for key in self._uses.get(user, set()) - wanted:
            self._drop(key, user)
        if not wanted:
            self._uses.pop(user, None)
            self._seen.pop(user, None)
            return set()
        for key in wanted:
            self._users.setdefault(key, set()).add(user)
        self._uses[user] = wanted
        identity = (obj["metadata"].get("uid"), obj["metadata"].get("generation"))
        if user not in self._seen or self._seen[user][0] != identity:
            self._seen[user] = identity, next(self._serial)
        since = self._seen[user][1]
        return {key for key in wanted if self._read_at.get(key, -1) < since}

    def gone(self, user: Key) -> None:
        """An object is gone, or of no interest any more."""
        self._seen.pop(user, None)
        for key in self._uses.pop(user, set()):
            self._drop(key, user)

    def _drop(self, key: Key, user: Key) -> None:
        users = self._users.get(key)
        if users is not None:
            users.discard(user)
            if not users:
                del self._users[key]
                self._found.pop(key, None)
                self._read_at.pop(key, None)

    async def read(self, keys: Iterable[Key]) -> None:
        """Read these, a few at a time; changes are reported. Raises: StoreUnavailable."""
        await asyncio.gather(*(self._afresh(key) for key in keys))

    async def _afresh(self, key: Key) -> None:
        """A read that begins from now on: all who come while one runs share the next."""
        task = self._next.get(key)
        if task is None:
            after = self._read_after(key, self._reading.get(key))
            task = self._next[key] = asyncio.get_running_loop().create_task(after)
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)

    async def _read_after(self, key: Key, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        async with self._limit:
            self._reading[key] = self._next.pop(key)
            try:
                at, known = next(self._serial), key in self._read_at
                found = await self._read(key)
            finally:
                del self._reading[key]
        if self.note(key, found, at) and known:
            deleted = found is None or isinstance(found, Forbidden)
            self._report([Change(key, "", deleted=deleted, version=_version(found))])

    async def _read(self, key: Key) -> _Found:
        try:
            return await self._api.get(key)
        except NotFound:
            return None
        except Forbidden as forbidden:
            return forbidden
        except StoreUnavailable:
            raise
        except StoreError as error:
            return Forbidden(str(error))

    def note(self, key: Key, found: _Found, at: int | None = None) -> bool:
        """Take over what one of them is, if it is in use; whether that is news.

        Args:
            at: when it was asked for; None: it is so now.
        """
        if key not in self._users:
            return False  # it would never be read again
        if at is not None and at < self._read_at.get(key, -1):
            return False
        before = self._found.get(key)
        self._found[key] = found
        self._read_at[key] = next(self._serial) if at is None else at
        return _version(before) != _version(found)

    async def poll(self) -> None:
        """Read what is in use again, for ever; what differs is reported."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for key in list(self._users):
                try:
                    await self._afresh(key)
                except StoreUnavailable as error:
                    LOG.warning("%s: %s", key, error)
                    break


def _version(found: _Found) -> str:
    if found is None:
        return ""
    if isinstance(found, Forbidden):
        return "forbidden"
    return str(found["metadata"]["resourceVersion"])


def _copy(obj: Resource) -> Resource:
    """Deep enough: what is below ``metadata`` and ``data`` is text."""
    return {k: dict(v) if isinstance(v, dict) else v for k, v in obj.items()}
