"""The CEL rules of a CRD (``x-kubernetes-validations``), evaluated as the API server does.

A rule that mentions ``oldSelf`` is a transition rule: it runs only where the value was there
before as well.  Items of lists are related to their old selves by the keys of a map list.
Rules are compiled once a kind; the evaluator is imported where it is first needed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from controller.resources import kinds
from controller.resources.errors import FieldError, join

_MODULE = "cel.cel"
_SELF_MEMBER = re.compile(r"\b(?:self|oldSelf)\b(?:\.(\w+))?")


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule."""

    program: Any
    message: str
    field: str
    """Path below the place of the rule that the error is about, e.g. ``.target``."""
    transition: bool


@dataclass(frozen=True, slots=True)
class Node:
    """The rules at one level of a schema, and the levels below that have any."""

    rules: tuple[Rule, ...]
    members: frozenset[str] | None
    """The members of ``self`` that the rules look at; None: ``self`` as a whole."""
    properties: Mapping[str, Node]
    items: Node | None
    values: Node | None
    keys: tuple[str, ...]
    """Of a map list: relates an item to its old self."""


@cache
def evaluator() -> Any:
    """The evaluator's module.

    Only the extension of the package is loaded: the package itself imports a command line
    with all that belongs to it, which takes a quarter of a second.
    """
    loaded = sys.modules.get(_MODULE)
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec("cel")
    locations = package.submodule_search_locations if package else None
    spec = importlib.machinery.PathFinder.find_spec(_MODULE, locations)
    if spec is None or spec.loader is None:
        raise ImportError("the package common-expression-language is not installed")
    module = importlib.util.module_from_spec(spec)
    # It can be initialized once only: a later `import cel` must find this one.
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    return module


@cache
def rules_of(kind: str) -> Node | None:
    """The rules of a kind; None where it has none. Raises: UnknownKind."""
    return build(kinds.open_api_schema(kind))


def build(schema: Mapping[str, Any]) -> Node | None:
    """Compile the rules of a schema and of all below it; None where there are none."""
    rules = tuple(_rule(raw) for raw in schema.get("x-kubernetes-validations", ()))
    properties = {
        name: node
        for name, sub in schema.get("properties", {}).items()
        if (node := build(sub)) is not None
    }
    items, extra = schema.get("items"), schema.get("additionalProperties")
    item_node = build(items) if items else None
    value_node = build(extra) if isinstance(extra, dict) else None
    if not (rules or properties or item_node or value_node):
        return None
    sources = [raw["rule"] for raw in schema.get("x-kubernetes-validations", ())]
    keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
    return Node(rules, _members(sources), properties, item_node, value_node, keys)


def _rule(raw: Mapping[str, Any]) -> Rule:
    program = evaluator().compile(raw["rule"])
    return Rule(
        program=program,
        message=raw["message"],
        field=raw.get("fieldPath", ""),
        transition="oldSelf" in program.variables(),
    )


def _members(sources: list[str]) -> frozenset[str] | None:
    found = {match[1] for source in sources for match in _SELF_MEMBER.finditer(source)}
    # A name followed by "(" is a method of self itself.
    if None in found or any(re.search(r"\b(?:self|oldSelf)\.\w+\(", s) for s in sources):
        return None
    return frozenset(found)


def check(node: Node, value: Any, old: Any = None, path: str = "") -> Iterator[FieldError]:
    """Evaluate all rules on a value that is valid by its schema.

    Args:
        old: the value before; None when it was not there.
    """
    if node.rules:
        yield from _evaluate(node, value, old, path)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, child in node.properties.items():
            if name in value:
                yield from check(child, value[name], before.get(name), join(path, name))
        if node.values is not None:
            for name, item in value.items():
                yield from check(node.values, item, before.get(name), join(path, name))
    elif isinstance(value, list) and node.items is not None:
        yield from _check_items(node, node.items, value, old, path)


def _check_items(
    node: Node, items: Node, value: list[Any], old: Any, path: str
) -> Iterator[FieldError]:
    def key(item: Any) -> tuple[Any, ...]:
        return tuple(item.get(k) for k in node.keys)

    before = {key(item): item for item in old or ()} if node.keys else {}
    for index, item in enumerate(value):
        previous = before.get(key(item)) if node.keys else None
        yield from check(items, item, previous, join(path, index))


def _evaluate(node: Node, value: Any, old: Any, path: str) -> Iterator[FieldError]:
    variables = {"self": _project(value, node.members)}
    if old is not None:
        variables["oldSelf"] = _project(old, node.members)
    context = evaluator().Context(variables)
    for rule in node.rules:
        if rule.transition and old is None:
            continue
        try:
            holds = rule.program.execute(context) is True
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            yield FieldError(path, f"the rule cannot be evaluated: {error} ({rule.message})")
            continue
        if not holds:
            yield FieldError((path + rule.field).lstrip("."), rule.message)


def _project(value: Any, members: frozenset[str] | None) -> Any:
    if members is None or not isinstance(value, dict):
        return value
    return {name: value[name] for name in members if name in value}
