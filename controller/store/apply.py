"""Deciding what an apply does to one object, from what is stored; nothing is written here."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from controller.store.applied import Schema, manifest_of, merge_resource
from controller.store.base import Key, Resource, key_of
from controller.store.rows import COLUMNS, Draft, checked, decode, draft_of, encode, resource_of

Action = Literal["created", "configured", "unchanged"]

Admit = Callable[[Resource, Resource | None], Resource]
"""``admit(merged, live)`` returns the object with defaults, or raises what is wrong with it.
``merged`` carries no status; ``live`` is None for a new object."""

_PLAN = f"""SELECT b.revision, a.manifest, {COLUMNS} FROM objects o JOIN bodies b USING (id)
    LEFT JOIN applied a USING (id) WHERE o.kind = ? AND o.namespace = ? AND o.name = ?"""
_FROM_MANIFESTS = ("labels", "annotations")


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """One manifest to apply.

    Attributes:
        manifest: the resource as its author wrote it.
        admit: defaults and validation; see ``Admit``. Called again when somebody else has
            changed the object meanwhile.
        schema: ``openAPIV3Schema`` of the kind, which tells lists that are maps; None: none is.
    """

    manifest: Resource
    admit: Admit
    schema: Schema | None = None


class Applied(NamedTuple):
    """What an apply did, or with ``dry_run`` would do: ``resource`` is the object after it."""

    resource: Resource
    action: Action


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done about one request, if the object still has ``revision``."""

    key: Key
    revision: int | None
    action: Action
    resource: Resource
    draft: Draft
    manifest: str
    writes: bool


def plan(connection: sqlite3.Connection, request: ApplyRequest) -> Plan:
    """Read, merge three ways, admit.

    Raises:
        Exception: whatever ``request.admit`` raises.
    """
    key = checked(key_of(request.manifest))
    row = connection.execute(_PLAN, key).fetchone()
    revision, last = (None, None) if row is None else row[:2]

    def live() -> Resource | None:
        # Anew for each use: ``admit`` may change what it is given.
        return None if row is None else resource_of(row[2:])

    manifest = manifest_of(request.manifest)
    merged = merge_resource(decode(last) if last else None, manifest, live(), request.schema)
    wanted = _assemble(request.admit(merged, live()), live())
    draft = draft_of(wanted)
    text = encode(manifest)
    action, resource = _outcome(wanted, live())
    return Plan(key, revision, action, resource, draft, text, action != "unchanged" or text != last)


def _assemble(admitted: Resource, live: Resource | None) -> Resource:
    """The admitted object with what manifests cannot say as it is stored."""
    metadata: dict[str, Any] = dict((live or {}).get("metadata", {}))
    for field in ("name", "namespace", *_FROM_MANIFESTS):
        metadata.pop(field, None)
        if admitted["metadata"].get(field):
            metadata[field] = admitted["metadata"][field]
    whole = {**admitted, "metadata": metadata}
    whole.pop("status", None)
    if live is not None and "status" in live:
        whole["status"] = live["status"]
    return whole


def _outcome(wanted: Resource, live: Resource | None) -> tuple[Action, Resource]:
    if live is None:
        return "created", wanted
    if _text(wanted) == _text(live):
        return "unchanged", live
    ignored = ("apiVersion", "metadata")
    contents = [
        {name: value for name, value in part.items() if name not in ignored}
        for part in (wanted, live)
    ]
    if _text(contents[0]) != _text(contents[1]):
        wanted["metadata"]["generation"] = live["metadata"]["generation"] + 1
    return "configured", wanted


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
