"""The three-way merge, on plain values."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store.applied import manifest_of, merge_resource, three_way

TASKS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"properties": {"port": {}, "protocol": {"default": "TCP"}}},
            },
        },
    },
}
SCHEMA = {
    "properties": {
        "tasks": TASKS,
        "groups": {"additionalProperties": {"properties": {"tasks": TASKS}}},
        "set": {"x-kubernetes-list-type": "set"},
    }
}


@pytest.mark.parametrize(
    ("last", "manifest", "live", "expected"),
    [
        pytest.param({}, {"a": 1}, {}, {"a": 1}, id="set"),
        pytest.param({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, id="the manifest wins"),
        pytest.param({"a": 1}, {}, {"a": 3, "b": 1}, {"b": 1}, id="dropped by its author"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 1, "b": 4}, {"a": 1, "b": 4}, id="others stay"),
        pytest.param({}, {}, {"a": 1}, {"a": 1}, id="never named"),
        pytest.param({"a": 1}, {}, {}, {}, id="dropped and gone"),
        pytest.param({}, {"a": None}, {"a": 1}, {}, id="null removes"),
        pytest.param({}, {"a": {"b": None, "c": 1}}, {}, {"a": {"c": 1}}, id="null in a new map"),
        pytest.param(
            {"a": {"b": 1, "c": 1}},
            {"a": {"b": 2}},
            {"a": {"b": 1, "c": 1, "d": 1}},
            {"a": {"b": 2, "d": 1}},
            id="maps merge",
        ),
        pytest.param({}, {"a": {"b": 1}}, {"a": [1]}, {"a": {"b": 1}}, id="a map for a list"),
        pytest.param({}, {"a": [1]}, {"a": {"b": 1}}, {"a": [1]}, id="a list for a map"),
        pytest.param(
            {"l": [{"name": "x"}]},
            {"l": [{"name": "y"}]},
            {"l": [{"name": "x", "z": 1}]},
            {"l": [{"name": "y"}]},
            id="a list is replaced",
        ),
        pytest.param({}, {"set": [1]}, {"set": [2]}, {"set": [1]}, id="a set is replaced"),
        pytest.param(
            {"tasks": [{"name": "a", "p": 1}, {"name": "b"}]},
            {"tasks": [{"name": "c"}, {"name": "a"}]},
            {"tasks": [{"name": "a", "p": 1, "q": 2}, {"name": "b"}, {"name": "theirs"}]},
            {"tasks": [{"name": "c"}, {"name": "a", "q": 2}, {"name": "theirs"}]},
            id="a list that is a map",
        ),
        pytest.param(
            {},
            {"groups": {"g": {"tasks": [{"name": "a", "p": 1}]}}},
            {"groups": {"g": {"tasks": [{"name": "a", "q": 2}]}}},
            {"groups": {"g": {"tasks": [{"name": "a", "q": 2, "p": 1}]}}},
            id="under additionalProperties",
        ),
        pytest.param(
            {},
            {
                "tasks": [
                    {"name": "a", "ports": [{"port": 1, "x": 1}, {"port": 1, "protocol": "U"}]}
                ]
            },
            {"tasks": [{"name": "a", "ports": [{"port": 1, "protocol": "TCP", "y": 1}]}]},
            {
                "tasks": [
                    {
                        "name": "a",
                        "ports": [
                            {"port": 1, "protocol": "TCP", "y": 1, "x": 1},
                            {"port": 1, "protocol": "U"},
                        ],
                    }
                ]
            },
            id="several keys, one by default",
        ),
        pytest.param(
            {},
            {"tasks": [{"name": "a", "p": 1}, {"name": "a", "p": 2}]},
            {"tasks": [{"name": "a", "q": 1}]},
            {"tasks": [{"name": "a", "p": 1}, {"name": "a", "p": 2}]},
            id="a key twice is left for validation to refuse",
        ),
        pytest.param(
            {},
            {"tasks": [{"p": 1}, "x"]},
            {"tasks": [{"name": "a"}]},
            {"tasks": [{"p": 1}, "x"]},
            id="no key is left for validation to refuse",
        ),
        pytest.param({}, {"tasks": "x"}, {"tasks": []}, {"tasks": "x"}, id="not a list at all"),
    ],
)
def test_three_way(last: Any, manifest: Any, live: Any, expected: Any) -> None:
    arguments = copy.deepcopy((last, manifest, live))
    assert three_way(last, manifest, live, SCHEMA) == expected
    assert (last, manifest, live) == arguments, "arguments are not changed"


def test_order_follows_the_manifest() -> None:
    manifest = {"tasks": [{"name": name} for name in "cab"]}
    live = {"tasks": [{"name": name} for name in "xabc"]}
    merged = three_way(manifest, manifest, live, SCHEMA)
    assert [item["name"] for item in merged["tasks"]] == ["c", "a", "b", "x"]


class TestMetadata:
    def test_manifests_say_labels_and_annotations_only(self) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Task",
            "metadata": {
                "name": "a",
                "uid": "mine",
                "resourceVersion": "3",
                "finalizers": ["x/y"],
                "ownerReferences": [{"uid": "u"}],
                "labels": {"a": "2", "new": "1"},
                "annotations": None,
            },
            "spec": {"p": 1},
            "status": {"phase": "x"},
        }
        kept = manifest_of(manifest)
        assert kept == {
            "apiVersion": "v1",
            "kind": "Task",
            "metadata": {"name": "a", "namespace": "default", "labels": {"a": "2", "new": "1"}},
            "spec": {"p": 1},
        }
        last = {**kept, "metadata": {**kept["metadata"], "labels": {"a": "1", "dropped": "1"}}}
        system = {"name": "a", "namespace": "default", "uid": "u", "finalizers": ["f"]}
        live = {
            **kept,
            "metadata": {**system, "labels": {"a": "1", "dropped": "1", "theirs": "1"}},
            "spec": {"p": 0, "q": 0},
            "status": {"phase": "y"},
        }
        assert merge_resource(last, kept, live, None) == {
            "apiVersion": "v1",
            "kind": "Task",
            "metadata": {**system, "labels": {"a": "2", "new": "1", "theirs": "1"}},
            "spec": {"p": 1, "q": 0},
        }

    def test_labels_all_dropped_are_absent(self) -> None:
        manifest = manifest_of({"apiVersion": "v1", "kind": "T", "metadata": {"name": "a"}})
        live = {**manifest, "metadata": {**manifest["metadata"], "labels": {"a": "1"}}}
        assert merge_resource(live, manifest, live, None)["metadata"] == manifest["metadata"]


# --- properties --------------------------------------------------------------------------------

NAMES = st.sampled_from("abcd")
SCALARS = st.sampled_from([0, 1, "x", True])
LEAVES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2))
PLAIN = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6)


def _items(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    item = st.fixed_dictionaries({"name": NAMES}, optional={"p": values, "q": values})
    return st.lists(item, max_size=3, unique_by=lambda one: one["name"])


def _maps(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = dict.fromkeys("abcd", values)
    return st.fixed_dictionaries({}, optional={**fields, "tasks": _items(values)})


VALUES = _maps(PLAIN)
MANIFESTS = _maps(st.one_of(st.none(), PLAIN))


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(inner) for name, inner in value.items() if inner is not None}
    return value


@given(VALUES, MANIFESTS, VALUES)
def test_applying_again_changes_nothing(last: Any, manifest: Any, live: Any) -> None:
    once = three_way(last, manifest, live, SCHEMA)
    assert three_way(manifest, manifest, once, SCHEMA) == once
    assert three_way(last, manifest, once, SCHEMA) == once


@given(VALUES, MANIFESTS, VALUES)
def test_what_the_manifest_names_is_so(last: Any, manifest: Any, live: Any) -> None:
    def holds(wanted: Any, now: Any) -> None:
        for name, value in wanted.items():
            if value is None:
                assert name not in now
            elif isinstance(value, dict):
                holds(value, now[name])
            elif name == "tasks":
                found = {item["name"]: item for item in now[name]}
                for item in value:
                    holds(item, found[item["name"]])
            else:
                assert now[name] == value

    holds(manifest, three_way(last, manifest, live, SCHEMA))


@given(VALUES, MANIFESTS, VALUES)
def test_what_no_manifest_names_stays(last: Any, manifest: Any, live: Any) -> None:
    def stays(last: Any, manifest: Any, live: Any, merged: Any) -> None:
        for name, value in live.items():
            if name not in manifest:
                assert (name in merged) == (name not in last)
                assert name in last or merged[name] == value
            elif isinstance(manifest[name], dict) and isinstance(value, dict):
                old = last.get(name)
                stays(old if isinstance(old, dict) else {}, manifest[name], value, merged[name])

    stays(last, manifest, live, three_way(last, manifest, live, SCHEMA))


@given(VALUES, VALUES)
def test_onto_nothing_gives_the_manifest(last: Any, manifest: Any) -> None:
    assert three_way(last, manifest, {}, SCHEMA) == _pruned(manifest)


@given(VALUES)
def test_an_empty_manifest_takes_its_own_away(live: Any) -> None:
    assert three_way(live, {}, live, SCHEMA) == {}
