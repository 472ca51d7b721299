"""The documentation of kinds and fields out of the CRDs, as ``kubectl explain`` shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from cli.errors import CliError, suggestion
from cli.selectors import kind_of
from controller.resources import kinds as registry

WIDTH = 88
_METADATA = "Standard object's metadata: name, namespace, labels, annotations."


def document(path: str) -> Iterator[str]:
    """Lines about ``swarm`` or ``swarm.spec.agent``.

    Raises: CliError for a kind or field that is not there.
    """
    word, *fields = path.split(".")
    kind = kind_of(word)
    if not kind.group:
        raise CliError(f"{kind.kind} is Kubernetes' own: `kubectl explain {kind.plural}`")
    node: Mapping[str, Any] = registry.open_api_schema(kind.kind)
    walked: list[str] = []
    for field in fields:
        properties = _properties(node)
        if field not in properties:
            where = ".".join([kind.singular, *walked])
            raise CliError(f'{where} has no field "{field}"{suggestion(field, properties)}')
        node = properties[field]
        walked.append(field)
    yield f"GROUP:      {kind.group}"
    yield f"KIND:       {kind.kind}"
    yield f"VERSION:    {kind.version}"
    yield ""
    if walked:
        yield f"FIELD: {walked[-1]} <{_type(node)}>"
        yield ""
    yield "DESCRIPTION:"
    yield from _wrapped(node.get("description", "<no description>"), 4)
    yield from _limits(node)
    properties = _properties(node)
    if properties:
        yield ""
        yield "FIELDS:"
        required = set(_object(node).get("required") or ())
        for name in sorted(properties):
            mark = " -required-" if name in required else ""
            yield f"  {name}\t<{_type(properties[name])}>{mark}"
            described = _METADATA if name == "metadata" else properties[name].get("description", "")
            yield from _wrapped(described, 4)
            yield ""


def _object(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node whose fields are meant: a list's items, else itself."""
    items = node.get("items")
    return _object(items) if isinstance(items, Mapping) else node


def _properties(node: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _object(node).get("properties") or {}
    return found


def _type(node: Mapping[str, Any]) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if node.get("type") == "array":
        return f"[]{_type(node.get('items') or {})}"
    if isinstance(node.get("additionalProperties"), Mapping):
        return f"map[string]{_type(node['additionalProperties'])}"
    return "Object" if node.get("type") == "object" else str(node.get("type", "Object"))


def _limits(node: Mapping[str, Any]) -> Iterator[str]:
    if node.get("enum"):
        yield "    One of: " + ", ".join(str(value) for value in node["enum"])
    if "default" in node:
        yield f"    Default: {node['default']}"
    lowest = "Above" if node.get("exclusiveMinimum") else "At least"
    for word, label in (("minimum", lowest), ("maximum", "At most")):
        if word in node:
            yield f"    {label}: {node[word]}"


def _wrapped(text: str, indent: int) -> Iterator[str]:
    pad = " " * indent
    yield from textwrap.wrap(text, WIDTH, initial_indent=pad, subsequent_indent=pad)
