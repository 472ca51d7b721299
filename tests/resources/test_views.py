"""Views and CRDs name and type the same fields."""

from __future__ import annotations

import dataclasses
import re
import time
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from controller.resources import kinds, swarm_views, views
from controller.resources.admission import admit
from controller.resources.manifest import load

MANIFESTS = Path(__file__).parent / "manifests"


def schema_at(kind: str, *path: str) -> dict[str, Any]:
    node = kinds.open_api_schema(kind)
    for part in path:
        node = node["items"] if part == "[]" else node["properties"][part]
    return node


PLACES: list[tuple[type, str, tuple[str, ...]]] = [
    (views.Retry, "Project", ("spec", "retry")),
    (views.Retry, "Task", ("spec", "retry")),
    (views.Budget, "Project", ("spec", "budget")),
    (views.Budget, "Swarm", ("spec", "budget")),
    (views.Target, "Task", ("spec", "target")),
    (views.Head, "Task", ("spec", "integration", "heads", "[]")),
    (views.IntegrationWork, "Task", ("spec", "integration")),
    (views.TaskSpec, "Task", ("spec",)),
    (views.TaskTemplate, "Project", ("spec", "tasks", "[]")),
    (views.Credentials, "Project", ("spec", "repository", "credentials")),
    (views.Repository, "Project", ("spec", "repository")),
    (views.Planner, "Project", ("spec", "planner")),
    (views.Integration, "Project", ("spec", "integration")),
    (views.ProjectSpec, "Project", ("spec",)),
    (swarm_views.AgentSpec, "Swarm", ("spec", "agent")),
    (swarm_views.Launch, "Swarm", ("spec", "launch")),
    (swarm_views.Termination, "Swarm", ("spec", "termination")),
    (swarm_views.Approvals, "Swarm", ("spec", "approvals")),
    (swarm_views.Routing, "Swarm", ("spec", "routing")),
    (swarm_views.SwarmSpec, "Swarm", ("spec",)),
    (swarm_views.ApprovalRequest, "Approval", ("spec", "request")),
    (swarm_views.Decision, "Approval", ("spec", "decision")),
    (swarm_views.ApprovalSpec, "Approval", ("spec",)),
]
TYPES: dict[type, set[str]] = {
    str: {"string"},
    int: {"integer"},
    float: {"number"},
    bool: {"boolean"},
    tuple: {"array"},
}
NOT_FIELDS = {("SwarmSpec", "parameters"), ("SwarmSpec", "provider"), ("ProjectSpec", "workers")}


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda m: m[1].upper(), name)


def wanted_types(hint: Any) -> set[str]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found: set[str] = set()
    for option in options:
        plain = typing.get_origin(option) or option
        found |= TYPES.get(plain, {"object"} if plain is not types.NoneType else set())
    return found


@pytest.mark.parametrize(
    ("view", "kind", "path"), PLACES, ids=lambda p: getattr(p, "__name__", None)
)
def test_every_field_of_a_view_is_in_the_crd(view: type, kind: str, path: tuple[str, ...]) -> None:
    properties = schema_at(kind, *path)["properties"]
    hints = typing.get_type_hints(view)
    for field in dataclasses.fields(view):
        if (view.__name__, field.name) in NOT_FIELDS:
            continue
        assert camel(field.name) in properties, field.name
        schema = properties[camel(field.name)]
        have = {"string", "integer"} if "x-kubernetes-int-or-string" in schema else {schema["type"]}
        assert wanted_types(hints[field.name]) == have, field.name


@pytest.mark.parametrize(
    ("view", "kind", "left_out"),
    [
        (views.TaskSpec, "Task", set()),
        (views.ProjectSpec, "Project", set()),
        (swarm_views.SwarmSpec, "Swarm", set()),
        (swarm_views.ApprovalSpec, "Approval", set()),
    ],
)
def test_a_view_of_a_spec_has_every_field(view: type, kind: str, left_out: set[str]) -> None:
    names = {camel(f.name) for f in dataclasses.fields(view)} | left_out
    assert schema_at(kind, "spec")["properties"].keys() <= names


def test_views_are_frozen_and_slotted() -> None:
    for view, _, _ in PLACES:
        assert view.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert hasattr(view, "__slots__")


def test_a_project_is_decoded() -> None:
    objects = {d.obj["metadata"]["name"]: admit(d.obj) for d in load([str(MANIFESTS)])}
    greeter = views.ProjectSpec.from_object(objects["greeter"])
    assert [t.name for t in greeter.tasks] == ["library", "docs", "command"]
    assert greeter.tasks[2].depends_on == ("library",)
    assert greeter.retry == views.Retry(2, 1, 60)
    assert greeter.integration.verify == ("python3 src/main.py World",)
    assert greeter.workers == ("builders",) and greeter.planner is None
    calculator = views.ProjectSpec.from_object(objects["calculator"])
    assert calculator.planner is not None and calculator.planner.swarm == "planners"
    assert calculator.retry == views.DEFAULT_RETRY
    prompt = views.TaskSpec.from_object(objects["hello-everyone"])
    assert prompt.target == views.Target("builders", "all") and prompt.type == "prompt"


def test_a_tasks_retry_goes_before_its_projects() -> None:
    own = views.Retry(limit=5)
    assert own.over(views.Retry(2, 1, 60)) == views.Retry(5, 1, 60)


def test_an_approval_is_decoded() -> None:
    request = {"id": "0", "kind": "command", "decisions": ["approve"], "swarm": "a", "job": "j"}
    view = swarm_views.ApprovalSpec.from_object({"spec": {"request": request}})
    assert view.decision is None and view.request.decisions == ("approve",)


def test_decoding_a_task_is_cheap() -> None:
    """Not a benchmark: a generous bound that only something quadratic or reflective exceeds."""
    task = {"spec": {"project": "demo", "prompt": "x" * 300, "dependsOn": ["a"], "revision": 1}}
    started = time.process_time()
    for _ in range(2000):
        views.TaskSpec.from_object(task)
    assert (time.process_time() - started) / 2000 < 200e-6
