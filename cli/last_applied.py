"""What was applied to an object last, noted on the object as kubectl notes it.

A manifest that is too large for an annotation is noted without its values: for a three-way merge
it only counts which fields there were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.resources.metadata import MAX_ANNOTATIONS_BYTES
from controller.store.applied import Schema, list_keys
from controller.store.base import Resource

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
FIELDS = "codeswarm.dev/last-applied-fields"
"""In place of the other one, where that would be too large."""
OURS = (ANNOTATION, FIELDS)
_ROOM = MAX_ANNOTATIONS_BYTES - 4096
"""The rest is for what others write later."""


def of(live: Resource | None) -> Resource | None:
    """The manifest that was applied last, perhaps without values; None if that is not noted."""
    annotations = _annotations(live)
    for name in OURS:
        text = annotations.get(name)
        if text:
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return {**found, "metadata": _maps(found.get("metadata"))}
    return None


def _maps(metadata: Any) -> dict[str, Any]:
    """Labels and annotations of a note, which anybody may have written."""
    found = metadata if isinstance(metadata, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, dict)}


def note(obj: Resource, manifest: Resource, live: Resource | None, schema: Schema | None) -> None:
    """Note a manifest on the object that it was merged into.

    Args:
        obj: changed in place.
        manifest: as ``controller.store.applied.manifest_of`` gives it.
        live: what is stored now; its note stays as it is where it says the same.
        schema: of the kind, which tells the lists whose items have keys.
    """
    metadata = obj["metadata"]
    others = {k: v for k, v in (metadata.get("annotations") or {}).items() if k not in OURS}
    text = _encoded(manifest)
    name = ANNOTATION
    if _size({**others, name: text}) > _ROOM:
        name, text = FIELDS, json.dumps(outline(manifest, schema), separators=(",", ":"))
    old = _annotations(live).get(name)
    metadata["annotations"] = {**others, name: old if old and _same(old, text) else text}


def without(obj: Resource) -> Resource:
    """An object without the note: what people compare."""
    annotations = obj["metadata"].get("annotations") or {}
    if not any(name in annotations for name in OURS):
        return obj
    kept = {k: v for k, v in annotations.items() if k not in OURS}
    metadata = {k: v for k, v in obj["metadata"].items() if k != "annotations"}
    return {**obj, "metadata": {**metadata, **({"annotations": kept} if kept else {})}}


def outline(value: Any, schema: Schema | None) -> Any:
    """A manifest without its values: fields, and the keys of items that have some."""
    if isinstance(value, Mapping):
        return {name: outline(inner, _child(schema, name)) for name, inner in value.items()}
    keys = list_keys(schema)
    if not isinstance(value, list) or not keys or schema is None:
        return 0
    return [
        {**outline(item, schema.get("items")), **{k: item[k] for k in keys if k in item}}
        for item in value
        if isinstance(item, Mapping)
    ]


def _child(schema: Schema | None, name: str) -> Schema | None:
    node = (schema or {}).get("properties", {}).get(name)
    return node if isinstance(node, Mapping) else None


def _annotations(obj: Resource | None) -> Mapping[str, Any]:
    return ((obj or {}).get("metadata") or {}).get("annotations") or {}


def _encoded(manifest: Resource) -> str:
    """To the byte as kubectl writes it, so that the two do not overwrite each other's."""
    metadata = manifest["metadata"]
    whole = {**manifest, "metadata": {**metadata, "annotations": metadata.get("annotations") or {}}}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text + "\n"


def _same(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def _size(annotations: Mapping[str, str]) -> int:
    return sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items())
