"""Pruning of nulls and defaults of a structural schema, as the API server does both.

See https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting-and-nullable:
nulls of fields that are not nullable are pruned (none of ours is), then defaults are applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Node:
    """What pruning and defaulting need to know of one level of a schema."""

    properties: Mapping[str, Node]
    extra: Node | None
    """The values of a map (``additionalProperties``)."""
    items: Node | None
    defaults: tuple[tuple[str, Any], ...]
    numeric: bool
    plain: bool
    """Nothing below has a default, can be pruned or is a number: a copy is enough."""


def build(schema: Mapping[str, Any]) -> Node:
    """The node of a structural schema."""
    properties = {name: build(sub) for name, sub in schema.get("properties", {}).items()}
    extra, items = schema.get("additionalProperties"), schema.get("items")
    numeric = schema.get("type") in ("integer", "number")
    numeric = numeric or bool(schema.get("x-kubernetes-int-or-string"))
    return Node(
        properties=properties,
        extra=build(extra) if isinstance(extra, dict) else None,
        items=build(items) if items else None,
        defaults=tuple(
            (name, sub["default"])
            for name, sub in schema.get("properties", {}).items()
            if "default" in sub
        ),
        numeric=numeric,
        plain=not (properties or extra or items or numeric),
    )


def prepare(value: Any, node: Node) -> Any:
    """A copy of ``value`` without nulls, with defaults.

    Nulls of unknown fields and list items stay: they are errors.  A float without a fraction
    becomes an integer, as it does on its way through the API server: 3.0 and 3 are one spec.
    """
    if isinstance(value, dict):
        return _mapping(value, node)
    if isinstance(value, list):
        items = node.items
        if items is None or items.plain:
            return value.copy()
        return [prepare(item, items) for item in value]
    if node.numeric and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _mapping(value: dict[Any, Any], node: Node) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for name, item in value.items():
        child = node.properties.get(name) or node.extra
        if child is None:
            result[name] = item
        elif item is not None:
            result[name] = item if child.plain else prepare(item, child)
    for name, default in node.defaults:
        if name not in result:
            result[name] = prepare(default, node.properties[name])
    return result
