"""What Swarm, class and built-in defaults come to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.admission import admit, status_errors
from controller.resources.effective import effective, for_status, merge, missing_parameters
from controller.resources.manifest import load
from controller.resources.swarm_views import SwarmSpec

MANIFESTS = Path(__file__).parent / "manifests"


def test_built_in_defaults_on_this_machine() -> None:
    assert effective({"provider": {"local": {}}}, None) == {
        "provider": {"local": {}},
        "agent": {
            "runtime": "codex",
            "approvalPolicy": "never",
            "sandboxMode": "workspace-write",
            "networkAccess": False,
            "freshThreadPerPrompt": False,
            "codex": {"inheritLogin": True},
        },
        "launch": {"softTimeoutSeconds": 120, "hardTimeoutSeconds": 480},
        "termination": {"gracePeriodSeconds": 45, "archive": False},
        "heartbeatTimeoutSeconds": 30,
        "startupGraceSeconds": 10,
        "approvals": {"timeoutSeconds": 86400, "defaultDecision": "deny"},
        "workspaceSubdir": "repo",
    }


@pytest.mark.parametrize("kind", ["slurm", "aws"])
def test_built_in_defaults_elsewhere(kind: str) -> None:
    found = effective({"provider": {kind: {}}}, None)
    assert found["launch"] == {"softTimeoutSeconds": 900, "hardTimeoutSeconds": 2700}
    assert found["agent"]["codex"] == {"inheritLogin": False}
    assert found["provider"][kind]["retry"] == {"attempts": 4, "delaySeconds": 1.5}


def test_a_volume_is_100_gib_and_kept() -> None:
    aws = effective({"provider": {"aws": {"volume": {"type": "io2"}}}}, None)["provider"]["aws"]
    assert aws["volume"] == {"sizeGib": 100, "type": "io2", "deleteOnTermination": False}


def test_the_swarm_goes_before_its_class_field_by_field() -> None:
    swarm = {
        "className": "lab",
        "agent": {"model": "m", "env": [{"name": "B", "value": "own"}, {"name": "C", "value": ""}]},
        "provider": {"slurm": {"partition": "b", "sbatchOptions": ["-x"]}},
    }
    given_class = {
        "label": "Lab",
        "provider": {
            "slurm": {"loginHost": "lab", "partition": "a", "sbatchOptions": ["-y", "-z"]}
        },
        "agent": {
            "runtime": "mock",
            "env": [{"name": "A", "value": "class"}, {"name": "B", "valueFrom": {"env": "X"}}],
        },
        "launch": {"softTimeoutSeconds": 60},
    }
    found = effective(swarm, given_class)
    slurm = found["provider"]["slurm"]
    assert (slurm["loginHost"], slurm["partition"]) == ("lab", "b")
    assert slurm["sbatchOptions"] == ["-x"]
    assert found["agent"]["runtime"] == "mock"
    assert found["agent"]["mock"] == {"delaySeconds": 0}
    assert found["agent"]["env"] == [
        {"name": "A", "value": "class"},
        {"name": "B", "value": "own"},
        {"name": "C", "value": ""},
    ]
    assert found["launch"] == {"softTimeoutSeconds": 60, "hardTimeoutSeconds": 2700}
    assert found["className"] == "lab" and "label" not in found


def test_of_fields_that_exclude_each_other_the_swarms_choice_counts() -> None:
    given_class = {
        "systemPrompt": "class",
        "provider": {"local": {}},
        "agent": {"persona": {"configMapRef": {"name": "x"}}},
    }
    swarm = {
        "className": "c",
        "systemPromptFrom": {"path": "a.md"},
        "agent": {"persona": {"path": "p"}},
    }
    found = effective(swarm, given_class)
    assert "systemPrompt" not in found
    assert found["agent"]["persona"] == {"path": "p"}
    assert effective({"className": "c"}, given_class)["systemPrompt"] == "class"


def test_a_class_of_another_kind_gives_no_provider() -> None:
    swarm = {"className": "c", "provider": {"local": {}}}
    assert effective(swarm, {"provider": {"slurm": {"loginHost": "x"}}})["provider"] == {
        "local": {}
    }


def test_without_any_provider_there_is_none() -> None:
    assert "provider" not in effective({"className": "c"}, {})


def test_a_deadline_that_is_given_moves_the_other() -> None:
    hard = effective({"provider": {"local": {}}, "launch": {"hardTimeoutSeconds": 5}}, None)
    assert hard["launch"] == {"softTimeoutSeconds": 5, "hardTimeoutSeconds": 5}
    soft = effective({"provider": {"local": {}}, "launch": {"softTimeoutSeconds": 999}}, None)
    assert soft["launch"] == {"softTimeoutSeconds": 999, "hardTimeoutSeconds": 999}


def test_what_a_provider_cannot_do_without_is_named() -> None:
    found = effective({"provider": {"slurm": {"loginHost": "x"}}}, None)
    assert missing_parameters(found) == ["provider.slurm.workspaceRoot"]
    assert missing_parameters(effective({"provider": {"local": {}}}, None)) == []
    assert missing_parameters(effective({"className": "x"}, None)) == []


def test_status_shows_no_values_and_no_long_texts() -> None:
    swarm = {
        "provider": {"local": {}},
        "systemPrompt": "s" * 5000,
        "agent": {
            "env": [{"name": "A", "value": "hush"}, {"name": "B", "valueFrom": {"env": "X"}}]
        },
    }
    found = effective(swarm, None)
    shown = for_status(found)
    assert "hush" not in str(shown)
    assert shown["agent"]["env"] == [{"name": "A"}, {"name": "B", "valueFrom": {"env": "X"}}]
    assert len(shown["systemPrompt"]) == 1024
    assert found["agent"]["env"][0]["value"] == "hush"


def contract_swarms() -> list[Any]:
    objects = [admit(d.obj) for d in load([str(MANIFESTS)])]
    classes = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "SwarmClass"}
    return [
        pytest.param(o, classes.get(o["spec"].get("className")), id=o["metadata"]["name"])
        for o in objects
        if o["kind"] == "Swarm"
    ]


@pytest.mark.parametrize(("swarm", "given_class"), contract_swarms())
def test_effective_settings_fit_the_status_and_the_view(swarm: Any, given_class: Any) -> None:
    before = copy.deepcopy((swarm, given_class))
    found = effective(swarm["spec"], given_class)
    assert (swarm, given_class) == before
    assert status_errors("Swarm", {"effective": for_status(found)}) == []
    assert missing_parameters(found) == []
    view = SwarmSpec.from_object(swarm, found)
    assert view.replicas == swarm["spec"]["replicas"]
    assert view.parameters == found["provider"][view.provider]


VALUES = st.recursive(
    st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@given(OBJECTS, OBJECTS, OBJECTS)
def test_merging_is_a_merge(a: Any, b: Any, c: Any) -> None:
    assert merge({}, a) == merge(a, {}) == merge(a, a) == a
    assert merge(a, b).keys() == a.keys() | b.keys()
    for name, value in b.items():
        if not isinstance(value, dict):
            assert merge(a, b)[name] == value
    del c
