"""CEL rules: where they run, transitions, map lists, and what a broken rule gives."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from controller.resources import cel


def rule(source: str, **more: Any) -> dict[str, Any]:
    return {"rule": source, "message": f"not: {source}", **more}


def check(schema: dict[str, Any], value: Any, old: Any = None) -> list[tuple[str, str]]:
    node = cel.build(schema)
    assert node is not None
    return [(e.path, e.message) for e in cel.check(node, value, old)]


LEAF = {"type": "integer", "x-kubernetes-validations": [rule("self > 1")]}


def test_rules_run_at_every_level() -> None:
    schema = {
        "properties": {
            "a": LEAF,
            "list": {"items": LEAF},
            "map": {"additionalProperties": LEAF},
            "free": {"type": "string"},
        },
        "x-kubernetes-validations": [rule("has(self.a)", fieldPath=".a")],
    }
    value = {"a": 1, "list": [2, 0], "map": {"x": 1}, "free": "y"}
    assert [path for path, _ in check(schema, value)] == ["a", "list[1]", "map.x"]
    assert check(schema, {"list": []}) == [("a", "not: has(self.a)")]


def test_a_schema_without_rules_has_none() -> None:
    assert cel.build({"properties": {"a": {"type": "string"}}}) is None


def test_transition_rules_run_only_where_something_was_before() -> None:
    schema = {"properties": {"a": {"x-kubernetes-validations": [rule("self >= oldSelf")]}}}
    assert check(schema, {"a": 1}) == []
    assert check(schema, {"a": 1}, {}) == []
    assert check(schema, {"a": 1}, {"a": 1}) == []
    assert check(schema, {"a": 1}, {"a": 2}) == [("a", "not: self >= oldSelf")]


def test_items_of_a_map_list_are_related_by_their_keys() -> None:
    schema = {
        "x-kubernetes-list-map-keys": ["id"],
        "items": {"x-kubernetes-validations": [rule("self.n == oldSelf.n")]},
    }
    old = [{"id": "a", "n": 1}, {"id": "b", "n": 2}]
    assert check(schema, [{"id": "b", "n": 2}, {"id": "c", "n": 5}, {"id": "a", "n": 1}], old) == []
    assert [p for p, _ in check(schema, [{"id": "b", "n": 1}], old)] == ["[0]"]


def test_items_of_other_lists_are_not_related() -> None:
    schema = {"items": {"x-kubernetes-validations": [rule("self == oldSelf")]}}
    assert check(schema, [1], [2]) == []


def test_a_rule_sees_all_that_it_names_and_self_as_a_whole() -> None:
    schema = {"x-kubernetes-validations": [rule("self.a.b == 1 && size(self) == 2")]}
    assert check(schema, {"a": {"b": 1}, "c": 2}) == []
    schema = {"x-kubernetes-validations": [rule("self.size() == 2")]}
    assert check(schema, {"a": 1, "b": 2}) == []


def test_a_rule_that_cannot_be_evaluated_refuses() -> None:
    schema = {"x-kubernetes-validations": [rule("self.a.b == 1")]}
    ((path, message),) = check(schema, {"a": {}})
    assert path == "" and "cannot be evaluated" in message


def test_the_package_can_still_be_imported_afterwards() -> None:
    code = (
        "import sys; from controller.resources.cel import evaluator; m = evaluator();"
        "assert 'prompt_toolkit' not in sys.modules;"
        "import cel; assert cel.compile('1 + 1').execute() == 2; assert evaluator() is m"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
