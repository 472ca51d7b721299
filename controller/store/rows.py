"""Between resources and rows: what is stored of an object, and how it is read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.store.base import Change, Event, Key, Resource, key_of

_NOT_EXTRA = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SYSTEM = frozenset(
    {
        "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink",
    }
)  # fmt: skip

encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Compact JSON in ASCII: a lone surrogate in an agent's output stays storable."""

decode = json.loads

COLUMNS = "b.api_version, o.kind, o.revision, b.metadata, b.spec, b.extra, o.status"
SELECT = f"SELECT {COLUMNS} FROM objects o JOIN bodies b USING (id)"
GET = f"{SELECT} WHERE o.kind = ? AND o.namespace = ? AND o.name = ?"
_EVENTS = "SELECT kind, namespace, name, type, reason, message, first, last, count FROM events"
_CHANGES = """SELECT revision, kind, namespace, name, uid, 0 FROM objects WHERE revision > ?1
    UNION ALL SELECT revision, kind, namespace, name, uid, 1 FROM tombstones WHERE revision > ?1
    ORDER BY 1"""
_HAS_LABEL = (
    "EXISTS (SELECT 1 FROM json_each(b.metadata, '$.labels') l WHERE l.key = ? AND l.value = ?)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Which object, in which state, a caller wants to change."""

    key: Key
    uid: str | None
    revision: str | None


@dataclass(frozen=True, slots=True)
class StatusDraft:
    """A status that a caller wants stored."""

    target: Target
    status: str | None


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller wants stored, without status.

    A snapshot, as the others are: a queued write does not see what the caller changes later.
    """

    target: Target
    api_version: str
    metadata: dict[str, Any]
    """Labels, annotations, ownerReferences, finalizers: without what the store itself sets."""
    spec: str | None
    extra: str | None
    """Other fields of the top level, as a ConfigMap's ``data``."""
    owners: tuple[str, ...]
    """Uids of the owners, each once."""


def status_draft_of(obj: Resource) -> StatusDraft:
    """Snapshot of the status of ``obj``.

    Raises:
        KeyError, TypeError, ValueError: it is not a resource, or not JSON.
    """
    status = obj.get("status")
    return StatusDraft(_target_of(obj), None if status is None else encode(status))


def draft_of(obj: Resource) -> Draft:
    """Snapshot of ``obj`` without its status.

    Raises:
        KeyError, TypeError, ValueError: it is not a resource, or not JSON.
    """
    meta = obj["metadata"]
    metadata = {name: value for name, value in meta.items() if name not in _SYSTEM and value}
    owners = [str(reference["uid"]) for reference in metadata.get("ownerReferences", ())]
    extra = {name: value for name, value in obj.items() if name not in _NOT_EXTRA}
    return Draft(
        target=_target_of(obj),
        api_version=obj["apiVersion"],
        metadata=decode(encode(metadata)),
        spec=encode(obj["spec"]) if obj.get("spec") is not None else None,
        extra=encode(extra) if extra else None,
        owners=tuple(dict.fromkeys(owners)),
    )


def _target_of(obj: Resource) -> Target:
    meta = obj["metadata"]
    return Target(checked(key_of(obj)), meta.get("uid"), meta.get("resourceVersion"))


def checked(key: Key) -> Key:
    """``key``, known to be storable.

    Raises:
        ValueError: a part of it is empty or no Unicode text.
    """
    for part in key:
        if not isinstance(part, str) or not part or not part.isprintable():
            raise ValueError(f"{part!r} is not a name")
    return key


def resource_of(row: tuple[Any, ...]) -> Resource:
    """The resource of a row of ``COLUMNS``."""
    api_version, kind, revision, metadata, spec, extra, status = row
    meta = decode(metadata)
    meta["resourceVersion"] = str(revision)
    resource: Resource = {"apiVersion": api_version, "kind": kind, "metadata": meta}
    if extra is not None:
        resource.update(decode(extra))
    if spec is not None:
        resource["spec"] = decode(spec)
    if status is not None:
        resource["status"] = decode(status)
    return resource


def read_list(
    connection: sqlite3.Connection,
    kind: str,
    namespace: str | None,
    owner_uid: str | None,
    labels: Mapping[str, str] | None,
) -> list[Resource]:
    """Objects of a kind by namespace and name, as ``Reader.list`` promises."""
    source, where, arguments = "objects o", ["o.kind = ?"], [kind]
    if owner_uid is not None:
        # CROSS JOIN fixes the order: first the owner's few children, by the index.
        source = "owners w CROSS JOIN objects o USING (id)"
        where.append("w.owner = ?")
        arguments.append(owner_uid)
    if namespace is not None:
        where.append("o.namespace = ?")
        arguments.append(namespace)
    for name, value in (labels or {}).items():
        where.append(_HAS_LABEL)
        arguments += [name, value]
    statement = (
        f"SELECT {COLUMNS} FROM {source} JOIN bodies b USING (id) WHERE {' AND '.join(where)} "
        "ORDER BY o.namespace, o.name"
    )
    return [resource_of(row) for row in connection.execute(statement, arguments)]


def read_events(
    connection: sqlite3.Connection, key: Key | None, namespace: str | None
) -> list[Event]:
    """Events by the time of their last occurrence, as ``Reader.events`` promises."""
    where, arguments = "", []
    if key is not None:
        where, arguments = " WHERE kind = ? AND namespace = ? AND name = ?", list(key)
    elif namespace is not None:
        where, arguments = " WHERE namespace = ?", [namespace]
    rows = connection.execute(f"{_EVENTS}{where} ORDER BY last, id", arguments)
    return [
        Event(Key(kind, space, name), type_, reason, message, first, last, count)
        for kind, space, name, type_, reason, message, first, last, count in rows
    ]


def read_changes(connection: sqlite3.Connection, revision: int) -> tuple[list[Change], int]:
    """What changed after ``revision``, in order, and the revision that this reaches to."""
    rows = connection.execute(_CHANGES, (revision,)).fetchall()
    changes = [
        Change(Key(kind, namespace, name), uid, bool(deleted), str(version))
        for version, kind, namespace, name, uid, deleted in rows
    ]
    return changes, rows[-1][0] if rows else revision


def read_meta(connection: sqlite3.Connection, name: str) -> int:
    """A counter of the ``meta`` table."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0])
