"""Three-way merge, as ``kubectl apply`` does it: pure functions on plain values.

What the manifest names is set; what the last applied manifest named and this one does not is
removed; everything else of the live object stays.  ``null`` removes.  Lists that the schema
calls maps (``x-kubernetes-list-type: map``) are merged by their keys; others are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.store.base import Resource

Schema = Mapping[str, Any]

_MAPS = ("labels", "annotations")
_TOP = frozenset({"apiVersion", "kind", "metadata", "status"})


def manifest_of(obj: Resource) -> Resource:
    """What is kept of a manifest: without status and without what is not for manifests to say."""
    meta = obj["metadata"]
    named = {"name": meta["name"], "namespace": meta.get("namespace") or "default"}
    named |= {field: meta[field] for field in _MAPS if meta.get(field) is not None}
    rest = {field: value for field, value in obj.items() if field not in _TOP}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": named, **rest}


def merge_resource(
    last_applied: Resource | None,
    manifest: Resource,
    live: Resource | None,
    schema: Schema | None,
) -> Resource:
    """The object as it should be now, without status.

    Args:
        last_applied, manifest: as ``manifest_of`` gives them.
        live: the stored object; None where there is none yet.
        schema: ``openAPIV3Schema`` of the kind's CRD; None: no list is a map.
    """
    live, last_applied = live or {}, last_applied or {}
    metadata = dict(live.get("metadata", {}))
    metadata |= {field: manifest["metadata"][field] for field in ("name", "namespace")}
    for field in _MAPS:
        old, new, now = (
            part.get("metadata", {}).get(field) or {} for part in (last_applied, manifest, live)
        )
        merged = three_way(old, new, now)
        metadata.pop(field, None)
        if merged:
            metadata[field] = merged
    parts = [
        {field: value for field, value in part.items() if field not in _TOP}
        for part in (last_applied, manifest, live)
    ]
    rest = three_way(parts[0], parts[1], parts[2], schema)
    head = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata}
    return {**head, **rest}


def three_way(
    last_applied: Mapping[str, Any],
    manifest: Mapping[str, Any],
    live: Mapping[str, Any],
    schema: Schema | None = None,
) -> dict[str, Any]:
    """Merge maps; see the head of this module.

    Args:
        schema: the OpenAPI node of these maps, where lists that are maps are found.

    Returns:
        A new map; parts of the arguments may be shared with it.
    """
    merged = {
        name: value for name, value in live.items() if name in manifest or name not in last_applied
    }
    for name, value in manifest.items():
        if value is None:
            merged.pop(name, None)
        else:
            node = _child(schema, name)
            merged[name] = _value(last_applied.get(name), value, live.get(name), node)
    return merged


def _value(last: Any, wanted: Any, live: Any, schema: Schema | None) -> Any:
    if isinstance(wanted, Mapping):
        return three_way(_map(last), wanted, _map(live), schema)
    keys = list_keys(schema)
    if isinstance(wanted, list) and keys and schema is not None:
        return _list_map(last, wanted, live, keys, schema.get("items"))
    return wanted


def _list_map(
    last: Any, wanted: list[Any], live: Any, keys: tuple[str, ...], items: Schema | None
) -> list[Any]:
    """The manifest's items in its order, then those that others have added."""
    by_wanted = _index(wanted, keys, items)
    by_live = _index(live, keys, items)
    if by_wanted is None or by_live is None:
        return wanted  # not a map: as it stands, for validation to refuse
    by_last = _index(last, keys, items) or {}
    merged = [
        three_way(by_last.get(key, {}), item, by_live.get(key, {}), items)
        for key, item in by_wanted.items()
    ]
    added = [item for key, item in by_live.items() if key not in by_wanted and key not in by_last]
    return merged + added


def _index(
    value: Any, keys: tuple[str, ...], items: Schema | None
) -> dict[tuple[Any, ...], Mapping[str, Any]] | None:
    """Items by their keys; None where an item has no key or shares it with another."""
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, Mapping):
            return None
        key = tuple(_key_part(item, name, items) for name in keys)
        if key in found or any(isinstance(part, (dict, list, type(None))) for part in key):
            return None
        found[key] = item
    return found


def _key_part(item: Mapping[str, Any], name: str, items: Schema | None) -> Any:
    value = item.get(name)
    node = _child(items, name)
    return node.get("default") if value is None and node is not None else value


def list_keys(schema: Schema | None) -> tuple[str, ...]:
    """The keys of a list that is a map; none for any other node."""
    if schema is None or schema.get("x-kubernetes-list-type") != "map":
        return ()
    return tuple(schema.get("x-kubernetes-list-map-keys", ()))


def _child(schema: Schema | None, name: str) -> Schema | None:
    if schema is None:
        return None
    node = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
    return node if isinstance(node, Mapping) else None


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
