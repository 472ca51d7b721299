"""ConfigMaps and Secrets that objects name: read by name, and again now and then.

The controller may ``get`` them and no more: neither list nor watch, which would show it every
Secret of a namespace.  So what is in use is read again every few seconds, and a change of it is
reported like any other.
"""

from __future__ import annotations

import asyncio
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

    def get(self, key: Key) -> Resource | None:
        """As read last. Raises: Forbidden."""
        found = self._found.get(key)
        if isinstance(found, Forbidden):
            raise found
        return None if found is None else _copy(found)

    def unread(self, obj: Resource) -> set[Key]:
        """Note what an object names now; what of it was never read."""
        user, wanted = key_of(obj), references(obj)
        for key in self._uses.get(user, set()) - wanted:
            self._drop(key, user)
        for key in wanted:
            self._users.setdefault(key, set()).add(user)
        if wanted:
            self._uses[user] = wanted
        else:
            self._uses.pop(user, None)
        return {key for key in wanted if key not in self._found}

    def gone(self, user: Key) -> None:
        """An object is gone, or of no interest any more."""
        for key in self._uses.pop(user, set()):
            self._drop(key, user)

    def _drop(self, key: Key, user: Key) -> None:
        users = self._users.get(key)
        if users is not None:
            users.discard(user)
            if not users:
                del self._users[key]
                self._found.pop(key, None)

    async def read(self, keys: Iterable[Key]) -> None:
        """Read these, a few at a time. Raises: StoreUnavailable."""
        limit = asyncio.Semaphore(PARALLEL)

        async def one(key: Key) -> None:
            async with limit:
                self.note(key, await self._read(key))

        await asyncio.gather(*(one(key) for key in keys))

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

    def note(self, key: Key, found: _Found) -> bool:
        """Take over what one of them is now, if it is in use; whether that is news."""
        if key not in self._users:
            return False  # it would never be read again
        before = self._found.get(key)
        self._found[key] = found
        return _version(before) != _version(found)

    async def poll(self) -> None:
        """Read what is in use again, for ever; what differs is reported."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for key in list(self._users):
                try:
                    found = await self._read(key)
                except StoreUnavailable as error:
                    LOG.warning("%s: %s", key, error)
                    break
                if self.note(key, found):
                    deleted = found is None or isinstance(found, Forbidden)
                    self._report([Change(key, "", deleted=deleted, version=_version(found))])


def _version(found: _Found) -> str:
    if found is None:
        return ""
    if isinstance(found, Forbidden):
        return "forbidden"
    return str(found["metadata"]["resourceVersion"])


def _copy(obj: Resource) -> Resource:
    """Deep enough: what is below ``metadata`` and ``data`` is text."""
    return {k: dict(v) if isinstance(v, dict) else v for k, v in obj.items()}
