"""Admission: the words of refusals, copies, unchanged specs, core kinds, statuses."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import kinds
from controller.resources.admission import Invalid, admit, status_errors
from controller.resources.manifest import load

MANIFESTS = Path(__file__).parent / "manifests"
TASK: dict[str, Any] = {
    "apiVersion": "codeswarm.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "demo.library"},
    "spec": {"project": "demo", "prompt": "x"},
}


def spec(change: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {**TASK["spec"], **change}}


def refusal(obj: Any, old: Any = None) -> str:
    with pytest.raises(Invalid) as caught:
        admit(obj, old)
    return str(caught.value)


@pytest.mark.parametrize(
    "document", load([str(MANIFESTS)]), ids=lambda d: d.obj["metadata"]["name"]
)
def test_the_contracts_manifests_are_admitted(document: Any) -> None:
    given = copy.deepcopy(document.obj)
    admitted = admit(document.obj)
    assert document.obj == given
    assert admit(admitted) == admitted


def test_defaults_are_applied_and_the_input_is_left_alone() -> None:
    given = copy.deepcopy(TASK)
    admitted = admit(given)
    assert given == TASK
    assert admitted["spec"] == {
        "project": "demo",
        "prompt": "x",
        "revision": 1,
        "priority": 0,
        "suspend": False,
        "cancel": False,
        "whenBusy": "queue",
    }
    admitted["metadata"]["name"] = "other"
    assert given == TASK


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Tsk"}, 'kind: unknown kind "Tsk" (did you mean "Task"?)'),
        ({"apiVersion": "codeswarm.dev/v1"}, 'unknown version "codeswarm.dev/v1" of Task'),
        ({"apiVersion": None}, "apiVersion: is required"),
        ({"metadata": {"name": "Demo_X"}}, 'such as "demo-x"'),
        ({"metadata": {"name": 3}}, "metadata.name: must be a string, not the number 3"),
        ({"metadata": {}}, "metadata.name: is required"),
        ({"metadata": {"generateName": "a-"}}, "generateName is not supported"),
        ({"metadata": None}, "metadata.name: is required"),
        ({"metadata": {"name": "a.b", "lables": {}}}, 'did you mean "labels"?'),
        ({"metadata": {"name": "a.b", "labels": {"a": 1}}}, "metadata.labels[a]: must be a string"),
        ({"metadata": {"name": "a.b", "labels": {"-": "x"}}}, "metadata.labels[-]: the key"),
        ({"metadata": {"name": "a.b", "namespace": "A"}}, "metadata.namespace"),
        ({"metadata": {"name": "a.b", "finalizers": ["x y"]}}, "metadata.finalizers[0]"),
        ({"metadata": {"name": "a.b", "ownerReferences": [{}]}}, "ownerReferences[0].apiVersion"),
        ({"metadata": {"name": "a", "annotations": {"a": "x" * 300_000}}}, "at most 262144 bytes"),
        (spec({"promt": "x"}), 'spec.promt: unknown field (did you mean "prompt"?)'),
        (spec({"zzz": 1}), "known here: project, target"),
        (spec({"prompt": 3}), "not the number 3 (write it in quotes)"),
        (spec({"priority": "3"}), "(write it without quotes)"),
        (spec({"dependsOn": "a"}), "a list of one is written [a]"),
        (spec({"type": "wrk"}), 'did you mean "work"?'),
        (spec({"retry": {"limit": 101}}), "must be at most 100, not 101"),
        (spec({"title": "t" * 201}), "at most 200 characters, not 201"),
        (spec({"suspend": "yes"}), "must be true or false"),
    ],
)
def test_a_refusal_says_where_what_and_what_would_be_right(
    change: dict[str, Any], words: str
) -> None:
    assert words in refusal({**TASK, **change})


def test_all_errors_are_told_at_once() -> None:
    bad = {**TASK, "spec": {"project": "Demo", "promt": "x", "priority": "x"}}
    text = refusal(bad)
    assert all(f"Task/demo.library: spec.{f}" in text for f in ("project", "promt", "priority"))


def test_a_secret_in_a_manifest_gets_a_hint() -> None:
    swarm = {
        **TASK,
        "kind": "Swarm",
        "metadata": {"name": "a"},
        "spec": {"provider": {"aws": {"accessKeyId": "x"}}},
    }
    assert "credentials never stand in a manifest" in refusal(swarm)


def test_what_is_no_object_is_refused() -> None:
    assert "must be an object" in refusal(["x"])


def test_status_is_dropped_on_creation_and_kept_on_update() -> None:
    old = {**admit({**TASK, "status": {"phase": "Failed"}}), "status": {"phase": "Running"}}
    assert "status" not in admit({**TASK, "status": {"phase": "Failed"}})
    assert admit({**TASK, "status": {"phase": "Failed"}}, old)["status"] == {"phase": "Running"}


def test_an_unchanged_spec_is_not_judged_again() -> None:
    old = {**TASK, "spec": {**admit(TASK)["spec"], "retry": {"limit": 1000}}}
    labelled = {**old, "metadata": {"name": "demo.library", "labels": {"a": "b"}}}
    assert admit(labelled, old)["metadata"]["labels"] == {"a": "b"}
    assert "spec.retry.limit" in refusal({**old, "spec": {**old["spec"], "priority": 1}}, old)


def test_rules_can_be_left_out_for_a_spec_known_to_satisfy_them() -> None:
    both = {**TASK, "spec": {**TASK["spec"], "promptFrom": {"path": "a"}}}
    assert "exactly one" in refusal(both)
    assert admit(both, rerun_rules=False)["spec"]["prompt"] == "x"


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}


def test_string_data_is_folded_into_data() -> None:
    encoded = base64.b64encode(b"old").decode()
    secret = admit({**SECRET, "data": {"a": encoded, "b": encoded}, "stringData": {"a": "nové"}})
    assert base64.b64decode(secret["data"]["a"]).decode() == "nové"
    assert secret["data"]["b"] == encoded
    assert "stringData" not in secret and secret["type"] == "Opaque"


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ({**SECRET, "data": {"a": "not base64!"}}, "data[a]: is not base64"),
        ({**SECRET, "data": {"a": 3}}, "data[a]: must be a string"),
        ({**SECRET, "data": []}, "data: must be an object"),
        ({**SECRET, "stringdata": {}}, 'did you mean "stringData"?'),
        ({**SECRET, "stringData": {"a/b": "x"}}, "stringData[a/b]: the key is not valid"),
        ({**SECRET, "stringData": {"..": "x"}}, "the key is not valid"),
        ({**CONFIG, "binaryData": {"a": "*"}}, "binaryData[a]: is not base64"),
        ({**CONFIG, "data": {"a": "x"}, "binaryData": {"a": "eA=="}}, "the key is in data as well"),
        ({**CONFIG, "immutable": "yes"}, "immutable: must be true or false"),
        ({**CONFIG, "data": {"a": "x" * 1_500_000}}, "at most 1048576 bytes"),
        ({**CONFIG, "spec": {}}, "spec: unknown field"),
    ],
)
def test_bad_secrets_and_config_maps_are_refused(obj: dict[str, Any], words: str) -> None:
    assert words in refusal(obj)


def test_a_refused_secret_is_not_told() -> None:
    assert "12345678" not in refusal({**SECRET, "data": {"a": 12345678, "b": "12345678!"}})


def test_an_immutable_config_map_stays_as_it_is() -> None:
    old = admit({**CONFIG, "immutable": True, "data": {"a": "x"}})
    assert "cannot be changed" in refusal({**old, "data": {"a": "y"}}, old)
    assert "cannot be taken back" in refusal({**old, "immutable": False}, old)
    assert admit(old, old) == old


STATUS = yaml.safe_load((Path(__file__).parent / "status.yaml").read_text())


@pytest.mark.parametrize("kind", ["Swarm", "Project", "Task", "Approval"])
def test_a_full_status_fits_the_crd(kind: str) -> None:
    assert status_errors(kind, STATUS[kind]) == []
    fields = kinds.open_api_schema(kind)["properties"]["status"]["properties"]
    assert fields.keys() == STATUS[kind].keys()


def test_a_bad_status_is_told() -> None:
    errors = status_errors("Task", {"phase": "Done", "tasks": 3})
    assert {e.path for e in errors} == {"phase", "tasks"}
    assert status_errors("SwarmClass", {}) == []
