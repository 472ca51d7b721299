"""The writes, inside one open transaction: Kubernetes' rules for objects, in SQL.

An operation that raises a StoreError has written nothing, so that others may share its
transaction (group commit).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

from controller.store.base import (
    AlreadyExists,
    Change,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreError,
)
from controller.store.events import Happening, fold
from controller.store.rows import (
    COLUMNS,
    Draft,
    StatusDraft,
    Target,
    decode,
    encode,
    read_meta,
    resource_of,
)

TOMBSTONE_SECONDS = 86_400.0
TOMBSTONES = 50_000

_FIND = f"SELECT o.id, o.uid, {COLUMNS} FROM objects o JOIN bodies b USING (id)"
_BY_NAME = f"{_FIND} WHERE o.kind = ? AND o.namespace = ? AND o.name = ?"
_BY_ID = f"{_FIND} WHERE o.id = ?"


def stamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class _Stored(NamedTuple):
    id: int
    uid: str
    api_version: str
    kind: str
    revision: int
    metadata: str
    spec: str | None
    extra: str | None
    status: str | None

    @property
    def resource(self) -> Resource:
        return resource_of(self[2:])


class Transaction:
    """Operations on an open write transaction; ``finish`` comes before the commit."""

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._erased = False
        self.began_at = read_meta(connection, "revision")
        self.revision = self.began_at
        self._changes: dict[tuple[Key, str], Change] = {}

    @property
    def changes(self) -> list[Change]:
        """What this transaction changed, each object once, in order of its last change."""
        return list(self._changes.values())

    def finish(self) -> None:
        """Write the counter, and drop what need not be remembered any more."""
        if self.revision != self.began_at:
            self._execute("UPDATE meta SET value = ? WHERE name = 'revision'", self.revision)
        if self._erased:
            self._prune()

    def create(self, draft: Draft) -> Resource:
        """As ``Store.create``."""
        key = draft.target.key
        if self._find(key) is not None:
            raise AlreadyExists(f"{key} already exists")
        uid = str(uuid4())
        metadata = {
            "name": key.name,
            "namespace": key.namespace,
            "uid": uid,
            "generation": 1,
            "creationTimestamp": stamp(self._clock()),
            **draft.metadata,
        }
        revision = self._changed(key, uid)
        cursor = self._execute(
            "INSERT INTO objects (kind, namespace, name, uid, revision) VALUES (?, ?, ?, ?, ?)",
            *key,
            uid,
            revision,
        )
        text = encode(metadata)
        self._execute(
            "INSERT INTO bodies VALUES (?, ?, ?, ?, ?, ?)",
            cursor.lastrowid,
            revision,
            draft.api_version,
            text,
            draft.spec,
            draft.extra,
        )
        self._own(cursor.lastrowid, draft.owners)
        row = (draft.api_version, key.kind, revision, text, draft.spec, draft.extra, None)
        return resource_of(row)

    def update(self, draft: Draft) -> Resource:
        """As ``Store.update``; the same content again changes nothing."""
        return self._update(self._expect(draft.target), draft)

    def update_status(self, draft: StatusDraft) -> Resource:
        """As ``Store.update_status``; the same status again changes nothing."""
        stored = self._expect(draft.target)
        if _same(draft.status, stored.status):
            return stored.resource
        revision = self._changed(draft.target.key, stored.uid)
        self._execute(
            "UPDATE objects SET revision = ?, status = ? WHERE id = ?",
            revision,
            draft.status,
            stored.id,
        )
        return stored._replace(revision=revision, status=draft.status).resource

    def delete(self, key: Key, uid: str | None = None) -> None:
        """As ``Store.delete``."""
        stored = self._find(key)
        if stored is None or (uid is not None and stored.uid != uid):
            raise NotFound(f"{key} not found")
        self._collect([stored])

    def record(self, new: Happening) -> None:
        """Note an event."""
        fold(self._connection, new)

    def body_revision(self, key: Key) -> int | None:
        """When metadata or spec last changed; None: there is no such object."""
        row = self._execute(
            "SELECT b.revision FROM objects JOIN bodies b USING (id) "
            "WHERE kind = ? AND namespace = ? AND name = ?",
            *key,
        ).fetchone()
        return None if row is None else int(row[0])

    def apply(self, draft: Draft, manifest: str) -> Resource:
        """Create or replace whatever is stored, and keep ``manifest`` as the last applied one."""
        stored = self._find(draft.target.key)
        resource = self.create(draft) if stored is None else self._update(stored, draft)
        self._execute(
            "INSERT INTO applied SELECT id, ? FROM objects "
            "WHERE kind = ? AND namespace = ? AND name = ? "
            "ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest",
            manifest,
            *draft.target.key,
        )
        return resource

    def collect_orphans(self) -> int:
        """Delete what no owner is left of; how many objects that concerned."""
        rows = self._execute(
            "SELECT DISTINCT id FROM owners w "
            "WHERE NOT EXISTS (SELECT 1 FROM objects WHERE uid = w.owner)"
        ).fetchall()
        before = len(self._changes)
        orphans = [self._by_id(id_) for (id_,) in rows]
        self._collect([orphan for orphan in orphans if self._abandoned(orphan)])
        return len(self._changes) - before

    # --- inside ------------------------------------------------------------------------------

    def _execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        return self._connection.execute(statement, arguments)

    def _find(self, key: Key) -> _Stored | None:
        row = self._connection.execute(_BY_NAME, key).fetchone()
        return None if row is None else _Stored._make(row)

    def _by_id(self, id_: int) -> _Stored:
        return _Stored._make(self._execute(_BY_ID, id_).fetchone())

    def _expect(self, target: Target) -> _Stored:
        stored = self._find(target.key)
        if stored is None or target.uid not in {None, stored.uid}:
            raise NotFound(f"{target.key} not found")
        if target.revision != str(stored.revision):
            raise Conflict(
                f"{target.key} changed since it was read "
                f"(resourceVersion {target.revision or 'missing'}, now {stored.revision})"
            )
        return stored

    def _changed(self, key: Key, uid: str, deleted: bool = False) -> int:
        self._changes.pop((key, uid), None)
        self.revision += 1
        self._changes[key, uid] = Change(key, uid, deleted, str(self.revision))
        return self.revision

    def _update(self, stored: _Stored, draft: Draft) -> Resource:
        old: dict[str, Any] = decode(stored.metadata)
        kept = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp")
        new = {name: old[name] for name in kept if name in old} | draft.metadata
        if "deletionTimestamp" in old:
            added = set(new.get("finalizers", ())) - set(old.get("finalizers", ()))
            if added:
                raise StoreError(
                    f"{draft.target.key} is being deleted: no finalizer can be added "
                    f"({', '.join(sorted(added))})"
                )
        changed = not (_same(draft.spec, stored.spec) and _same(draft.extra, stored.extra))
        if not changed and new == old and draft.api_version == stored.api_version:
            return stored.resource
        if changed:
            new["generation"] = old["generation"] + 1
        stored = stored._replace(
            api_version=draft.api_version, spec=draft.spec, extra=draft.extra, metadata=encode(new)
        )
        if "deletionTimestamp" in new and "finalizers" not in new:
            self._collect([stored])
            return stored.resource
        if old.get("ownerReferences") != new.get("ownerReferences"):
            self._execute("DELETE FROM owners WHERE id = ?", stored.id)
            self._own(stored.id, draft.owners)
        return self._write_body(stored, draft.target.key).resource

    def _write_body(self, stored: _Stored, key: Key) -> _Stored:
        revision = self._changed(key, stored.uid)
        self._execute("UPDATE objects SET revision = ? WHERE id = ?", revision, stored.id)
        self._execute(
            "UPDATE bodies SET revision = ?, api_version = ?, metadata = ?, spec = ?, extra = ? "
            "WHERE id = ?",
            revision,
            stored.api_version,
            stored.metadata,
            stored.spec,
            stored.extra,
            stored.id,
        )
        return stored._replace(revision=revision)

    def _own(self, id_: int | None, owners: Iterable[str]) -> None:
        for owner in dict.fromkeys(owners):
            self._execute("INSERT INTO owners VALUES (?, ?)", owner, id_)

    def _collect(self, doomed: list[_Stored]) -> None:
        """Delete objects, and what they alone own, down to the last grandchild."""
        waiting = list(doomed)
        while waiting:
            stored = waiting.pop()
            metadata = decode(stored.metadata)
            key = Key(stored.kind, metadata["namespace"], metadata["name"])
            if "finalizers" in metadata:
                self._mark(stored, key, metadata)
                continue
            self._erase(stored, key)
            children = self._execute("SELECT id FROM owners WHERE owner = ?", stored.uid).fetchall()
            for (id_,) in children:
                child = self._by_id(id_)
                if self._abandoned(child):
                    waiting.append(child)

    def _mark(self, stored: _Stored, key: Key, metadata: dict[str, Any]) -> None:
        if "deletionTimestamp" in metadata:
            return
        metadata["deletionTimestamp"] = stamp(self._clock())
        metadata["generation"] += 1  # as the API server does (registry/rest, markAsDeleting)
        self._write_body(stored._replace(metadata=encode(metadata)), key)

    def _abandoned(self, child: _Stored) -> bool:
        """Whether no owner is left; if some are, the references to the others go."""
        metadata = decode(child.metadata)
        references = metadata["ownerReferences"]
        left = [reference for reference in references if self._exists(reference["uid"])]
        if not left:
            return True
        metadata["ownerReferences"] = left
        self._execute("DELETE FROM owners WHERE id = ?", child.id)
        self._own(child.id, [reference["uid"] for reference in left])
        key = Key(child.kind, metadata["namespace"], metadata["name"])
        self._write_body(child._replace(metadata=encode(metadata)), key)
        return False

    def _exists(self, uid: str) -> bool:
        return self._execute("SELECT 1 FROM objects WHERE uid = ?", uid).fetchone() is not None

    def _erase(self, stored: _Stored, key: Key) -> None:
        for table in ("objects", "bodies", "applied", "owners"):
            self._execute(f"DELETE FROM {table} WHERE id = ?", stored.id)
        self._execute(
            "INSERT INTO tombstones (revision, kind, namespace, name, uid, at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            self._changed(key, stored.uid, deleted=True),
            *key,
            stored.uid,
            self._clock(),
        )
        self._erased = True

    def _prune(self) -> None:
        # Ids rise: few rows are looked at, however many there are.
        self._execute(
            "DELETE FROM tombstones WHERE id <= (SELECT max(id) FROM tombstones) - ?", TOMBSTONES
        )
        self._execute(
            "DELETE FROM tombstones WHERE id <= (SELECT max(id) FROM "
            "(SELECT id, at FROM tombstones ORDER BY id LIMIT 256) WHERE at < ?)",
            self._clock() - TOMBSTONE_SECONDS,
        )


def _same(new: str | None, old: str | None) -> bool:
    """Whether two compact JSON texts say the same; usually they are equal to the letter."""
    if new == old or new is None or old is None or len(new) != len(old):
        return new == old
    one, other = decode(new), decode(old)
    # The texts decide, since Python takes 1 and 1.0 for equal.
    return bool(one == other) and _sorted(one) == _sorted(other)


def _sorted(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
