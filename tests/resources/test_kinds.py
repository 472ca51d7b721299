"""The registry of kinds, and what every CRD must hold to."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from controller.resources import conditions, kinds

OWN = [k.kind for k in kinds.kinds() if k.group]
TYPES = {"string", "integer", "number", "boolean", "date"}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("proj", "Project"),
        ("projects", "Project"),
        ("PROJECT", "Project"),
        ("project.codeswarm.dev", "Project"),
        ("projects.v1alpha1.codeswarm.dev", "Project"),
        ("sw", "Swarm"),
        ("swc", "SwarmClass"),
        ("ct", "Task"),
        ("appr", "Approval"),
        ("cm", "ConfigMap"),
        ("secrets", "Secret"),
    ],
)
def test_a_kind_is_found_by_each_of_its_names(word: str, kind: str) -> None:
    assert kinds.resolve(word).kind == kind


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(kinds.UnknownKind, match='did you mean "Project"'):
        kinds.resolve("projcts")
    with pytest.raises(kinds.UnknownKind):
        kinds.get("project")


def test_lists_and_the_category_stand_for_their_kinds() -> None:
    assert [k.kind for k in kinds.expand("ct,sw,tasks")] == ["Task", "Swarm"]
    assert [k.kind for k in kinds.expand("codeswarm")] == OWN


def test_names_and_versions() -> None:
    assert kinds.get("Task").api_version == "codeswarm.dev/v1alpha1"
    assert kinds.get("Task").qualified == "tasks.codeswarm.dev"
    assert kinds.get("Secret").api_version == "v1"


@pytest.mark.parametrize("kind", OWN)
def test_the_head_says_what_the_whole_crd_says(kind: str) -> None:
    known, whole = kinds.get(kind), kinds.crd(kind)["spec"]
    version = whole["versions"][0]
    assert list(version)[-1] == "schema"
    assert whole["names"]["plural"] == known.plural
    assert tuple(whole["names"]["shortNames"]) == known.short_names
    columns = version["additionalPrinterColumns"]
    assert [c["name"] for c in columns] == [c.name for c in known.columns]
    assert {c.type for c in known.columns} <= TYPES
    assert known.has_status == ("status" in version["schema"]["openAPIV3Schema"]["properties"])
    assert (files("crds") / f"{known.plural}.yaml").is_file()


def every_level(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, sub in schema.get("properties", {}).items():
        yield from every_level(sub, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from every_level(schema[name], f"{path}[]")


@pytest.mark.parametrize("kind", OWN)
def test_every_field_is_described_and_bounded(kind: str) -> None:
    for path, node in every_level(kinds.open_api_schema(kind), kind):
        assert "nullable" not in node, path
        assert "x-kubernetes-preserve-unknown-fields" not in node, path
        if path != f"{kind}.metadata":
            assert node.get("description"), path
        if path in (f"{kind}.apiVersion", f"{kind}.kind"):
            continue
        if node.get("type") == "string":
            assert "maxLength" in node, path
        if node.get("type") == "array":
            assert "maxItems" in node and "x-kubernetes-list-type" in node, path
            keys = node.get("x-kubernetes-list-map-keys", [])
            assert set(keys) <= set(node["items"].get("required", [])), path


def without_rules(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: without_rules(v) for k, v in node.items() if k != "x-kubernetes-validations"}
    return [without_rules(v) for v in node] if isinstance(node, list) else node


def test_swarm_class_and_effective_settings_have_the_same_shape() -> None:
    swarm = kinds.open_api_schema("Swarm")["properties"]
    own = swarm["spec"]["properties"]
    given = kinds.open_api_schema("SwarmClass")["properties"]["spec"]["properties"]
    shown = swarm["status"]["properties"]["effective"]["properties"]
    shared = given.keys() - {"label", "description"}
    assert shared == shown.keys() - {"className"}
    for name in shared:
        assert without_rules(own[name]) == without_rules(given[name]) == without_rules(shown[name])


def test_what_a_class_can_give_has_no_default() -> None:
    schema = kinds.open_api_schema("SwarmClass")["properties"]["spec"]
    assert not [path for path, node in every_level(schema, "spec") if "default" in node]


@pytest.mark.parametrize("kind", OWN)
def test_columns_lead_to_fields(kind: str) -> None:
    root = kinds.open_api_schema(kind)
    for column in kinds.get(kind).columns:
        node = root
        parts = column.path.replace("[-1:]", ".[]").strip(".").split(".")
        for part in parts if parts[0] != "metadata" else ():
            node = node["items"] if part == "[]" else node["properties"][part]


@pytest.mark.parametrize("kind", [k for k in OWN if k in conditions.OWNED])
def test_the_crd_names_the_condition_types_that_are_owned(kind: str) -> None:
    status = kinds.open_api_schema(kind)["properties"]["status"]["properties"]
    described = status["conditions"]["description"].rpartition(": ")[2].rstrip(".").split(", ")
    assert tuple(described) == conditions.OWNED[kind]
