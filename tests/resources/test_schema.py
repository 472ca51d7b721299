"""Pruning, defaulting, patterns and strictness, on small schemas."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources import kinds
from controller.resources.schema import compile_schema, object_schema, to_python_pattern

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer", "default": 1},
        "nested": {
            "type": "object",
            "default": {},
            "properties": {"on": {"type": "boolean", "default": True}},
        },
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": True, "pattern": "^a$", "maximum": 5},
        "items": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "n": {"type": "integer", "default": 3}},
            },
        },
    },
}


def errors(value: Any) -> list[str]:
    schema = compile_schema(SCHEMA)
    return [e.path for e in schema.errors(schema.prepare(value))]


def test_nulls_go_then_defaults_come_at_every_level() -> None:
    given = {
        "name": "a",
        "count": None,
        "map": {"a": None, "b": 2.0},
        "items": [{"id": "x", "n": None}],
    }
    assert compile_schema(SCHEMA).prepare(given) == {
        "name": "a",
        "count": 1,
        "nested": {"on": True},
        "map": {"b": 2},
        "items": [{"id": "x", "n": 3}],
    }


def test_nothing_is_shared_with_the_input_or_the_defaults() -> None:
    schema = compile_schema(SCHEMA)
    given: dict[str, Any] = {"name": "a", "set": ["x"]}
    first = schema.prepare(given)
    first["set"].append("y")
    first["nested"]["on"] = False
    assert given["set"] == ["x"]
    assert schema.prepare(given)["nested"] == {"on": True}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, []),
        ({"name": None}, ["name"]),
        ({"nme": 1}, ["nme"]),
        ({"nested": {"off": 1}}, ["nested.off"]),
        ({"map": {"a": "x"}}, ["map.a"]),
        ({"set": ["a", "b", "a"]}, ["set[2]"]),
        ({"items": [{"id": "a"}, {"id": "b"}, {"id": "a", "n": 4}]}, ["items[2].id"]),
        ({"either": "a"}, []),
        ({"either": 5}, []),
        ({"either": 6}, ["either"]),
        ({"either": "b"}, ["either"]),
        ({"either": True}, ["either"]),
        ({"count": True}, ["count"]),
        ({"count": 1.0}, []),
    ],
)
def test_errors_have_paths(change: dict[str, Any], where: list[str]) -> None:
    assert errors({"name": "a", **change}) == where


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("^a$", "a", True),
        ("^a$", "a\n", False),
        ("a|b$", "xb", True),
        ("[$]", "$", True),
        (r"\$", "$", True),
        (r"^\d$", "٣", False),
        ("b", "abc", True),
    ],
)
def test_patterns_mean_what_re2_means(pattern: str, text: str, matches: bool) -> None:
    assert bool(to_python_pattern(pattern).search(text)) is matches


SEGMENTS = st.lists(st.sampled_from(["a", ".", "..", "...", ".git", "", "b c", "..x"]), max_size=5)


@given(SEGMENTS)
def test_owned_paths_stay_below_the_root(segments: list[str]) -> None:
    path = "/".join(segments)
    tasks = kinds.open_api_schema("Task")["properties"]["spec"]["properties"]
    pattern = to_python_pattern(tasks["ownedPaths"]["items"]["pattern"])
    inner = segments[:-1] if len(segments) > 1 and segments[-1] == "" else segments
    safe = bool(inner) and not {"", ".", ".."} & set(inner)
    assert bool(pattern.search(path)) is safe


def test_validators_are_built_once() -> None:
    assert object_schema("Task") is object_schema("Task")
