"""What is known of the objects in a cluster: fed by watches and by the answers to own writes.

Both tell of the same versions, in any order.  So every object comes with its resourceVersion, and
an older one never replaces a newer one (resourceVersions of one kind rise; Kubernetes documents
that they may be compared since 1.35, KEP-5504, and client-go has long relied on it).
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from controller.store.base import Change, Key, Resource, is_newer, key_of

REMEMBERED = 10_000
"""Deleted objects that are not taken in again, should an answer about them come late."""


_Changes = list[Change]
"""For signatures in a class that has a method called ``list``."""


class _Entry(NamedTuple):
    uid: str
    version: str
    labels: Mapping[str, str]
    owners: frozenset[str]
    data: bytes
    """The object, packed: small, and unpacked faster than a dict is copied."""


class Cache:
    """Objects by kind, namespace and name; reading gives a copy."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._kinds: dict[str, set[Key]] = {}
        self._owned: dict[str, set[Key]] = {}
        self._gone: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Resource | None:
        """The object, or None."""
        entry = self._entries.get(key)
        return None if entry is None else _unpack(entry)

    def uid(self, key: Key) -> str:
        """The uid of an object; empty if there is none."""
        entry = self._entries.get(key)
        return entry.uid if entry else ""

    def version(self, key: Key) -> str:
        """The resourceVersion of an object; empty if there is none."""
        entry = self._entries.get(key)
        return entry.version if entry else ""

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[Resource]:
        """Objects of a kind, by namespace and name."""
        wanted = (labels or {}).items()
        keys = self._kinds.get(kind, set())
        if owner_uid is not None:
            keys = keys & self._owned.get(owner_uid, set())
        for key in sorted(keys):
            entry = self._entries[key]
            if namespace in (None, key.namespace) and wanted <= entry.labels.items():
                yield _unpack(entry)

    def keys(self, kind: str) -> set[Key]:
        """The keys of a kind's objects."""
        return set(self._kinds.get(kind, ()))

    def is_news(self, obj: Resource) -> bool:
        """Whether an object is neither gone nor known in this version or a newer one."""
        meta = obj["metadata"]
        known = self._entries.get(key_of(obj))
        return meta["uid"] not in self._gone and (
            known is None or is_newer(meta["resourceVersion"], known.version)
        )

    def put(self, obj: Resource) -> _Changes:
        """Take an object in; what is different now: nothing if this or newer was known."""
        if not self.is_news(obj):
            return []
        meta = obj["metadata"]
        key, uid, version = key_of(obj), meta["uid"], meta["resourceVersion"]
        known = self._entries.get(key)
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            return self.remove(key, uid)  # the last finalizer went with this version
        changes: _Changes = []
        if known is not None and known.uid != uid:
            changes += self.remove(key, known.uid)
        self._forget(key)
        self._entries[key] = entry = _entry(obj)
        self._kinds.setdefault(key.kind, set()).add(key)
        for owner in entry.owners:
            self._owned.setdefault(owner, set()).add(key)
        return [*changes, Change(key, uid, version=version)]

    def remove(self, key: Key, uid: str) -> _Changes:
        """An object is gone."""
        self._gone[uid] = None
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        known = self._entries.get(key)
        if known is None or known.uid != uid:
            return []
        self._forget(key)
        return [Change(key, uid, deleted=True)]

    def _forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._kinds[key.kind].discard(key)
        for owner in entry.owners:
            owned = self._owned[owner]
            owned.discard(key)
            if not owned:
                del self._owned[owner]


def _entry(obj: Resource) -> _Entry:
    meta: dict[str, Any] = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    owners = frozenset(reference["uid"] for reference in meta.get("ownerReferences") or ())
    data = marshal.dumps({**obj, "metadata": meta})
    return _Entry(meta["uid"], meta["resourceVersion"], meta.get("labels") or {}, owners, data)


def _unpack(entry: _Entry) -> Resource:
    found: Resource = marshal.loads(entry.data)  # made by this process a moment ago
    return found
