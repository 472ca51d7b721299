"""A real API server takes every CRD whole: schemas, defaults, subresources, columns, statuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import kinds
from controller.resources.admission import admit
from controller.store.kube_rest import path_of
from tests.kube import OWN, Cluster

ROOT = Path(__file__).parents[2]
RESOURCES = ROOT / "tests" / "resources"
MANIFESTS = (RESOURCES / "manifests", ROOT / "examples")
LEAST: dict[str, dict[str, Any]] = {
    "Swarm": {"provider": {"local": {}}},
    "Project": {"repository": {"url": "./x"}, "workers": [{"swarm": "a"}]},
    "Task": {"target": {"swarm": "a"}, "prompt": "x"},
    "Approval": {
        "request": {"id": "0", "kind": "command", "decisions": ["deny"], "swarm": "a", "job": "j"}
    },
}


@pytest.fixture(scope="module")
def namespace(server: Cluster) -> Iterator[str]:
    """A namespace for the whole module."""
    with server.namespace() as name:
        yield name


def test_no_crd_is_refused_in_part(server: Cluster) -> None:
    for kind in OWN:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.qualified}"
        crd = server.request("GET", path)
        conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False"
        assert conditions["NamesAccepted"] == "True"


def test_every_kind_is_in_the_category(server: Cluster, namespace: str, tmp_path: Path) -> None:
    cache = str(tmp_path)  # what kubectl knows of the server may be older than the CRDs
    done = server.kubectl("get", kinds.CATEGORY, "--cache-dir", cache, namespace=namespace)
    assert done.returncode == 0, done.stderr
    assert len(list(files("crds").glob("*.yaml"))) == len(OWN)


def example_objects() -> list[Any]:
    found = []
    for file in sorted(f for folder in MANIFESTS for f in folder.rglob("*.yaml")):
        for obj in yaml.safe_load_all(file.read_text()):
            if isinstance(obj, dict) and obj.get("apiVersion") == kinds.API_VERSION:
                name = f"{obj['kind']}/{obj['metadata']['name']}"
                found.append(pytest.param(obj, id=f"{file.name}: {name}"))
    return found


@pytest.mark.parametrize("obj", example_objects())
def test_examples_are_taken_with_the_same_defaults(
    server: Cluster, namespace: str, obj: dict[str, Any]
) -> None:
    there = {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}
    path = f"{path_of(obj['kind'], namespace)}?fieldValidation=Strict&dryRun=All"
    assert server.request("POST", path, there)["spec"] == admit(obj)["spec"]


def test_status_and_scale_are_subresources(server: Cluster, namespace: str) -> None:
    swarm = {
        "apiVersion": kinds.API_VERSION,
        "kind": "Swarm",
        "metadata": {"name": "scaled"},
        "spec": LEAST["Swarm"],
        "status": {"phase": "Running"},
    }
    stored = server.request("POST", path_of("Swarm", namespace), swarm)
    assert "status" not in stored
    done = server.kubectl("scale", "swarm/scaled", "--replicas=3", namespace=namespace)
    assert done.returncode == 0, done.stderr
    scale = server.request("GET", path_of("Swarm", namespace, "scaled", "scale"))
    assert scale["spec"]["replicas"] == 3


@pytest.mark.parametrize("kind", LEAST)
def test_a_full_status_is_stored_whole(server: Cluster, namespace: str, kind: str) -> None:
    status = yaml.safe_load((RESOURCES / "status.yaml").read_text())[kind]
    obj = {
        "apiVersion": kinds.API_VERSION,
        "kind": kind,
        "metadata": {"name": "full"},
        "spec": LEAST[kind],
    }
    stored = server.request("POST", path_of(kind, namespace), obj)
    path = f"{path_of(kind, namespace, 'full', 'status')}?fieldValidation=Strict"
    stored = server.request("PUT", path, {**stored, "status": status})
    assert json.dumps(stored["status"], sort_keys=True) == json.dumps(status, sort_keys=True)
