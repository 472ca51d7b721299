"""Both homes take and refuse the same manifests, and store the same of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.resources import kinds
from controller.resources.admission import admit
from controller.store.apply import ApplyRequest
from controller.store.base import Key
from controller.store.kube_rest import path_of
from tests.kube import ApiError, Cluster
from tests.lab import Lab
from tests.resources.table import REFUSALS, Case, load_cases

STRICT = "fieldValidation=Strict"
Judge = Callable[[Case], dict[str, Any] | str]
"""What a home has stored, or why it did not."""


@pytest.fixture(scope="module")
def cluster_judge(server: Cluster) -> Iterator[Judge]:
    """An API server with strict field validation."""
    with server.namespace() as namespace:

        def path(kind: str, name: str = "") -> str:
            known = kind if kind in {k.kind for k in kinds.kinds()} else "Swarm"
            return path_of(known, namespace, name)

        def judge(case: Case) -> dict[str, Any] | str:
            obj = case.object
            kind = str((obj or {}).get("kind") or ("Task" if "kind: Task" in case.text else ""))
            try:
                if case.old is None:
                    query = f"?{STRICT}&dryRun=All"
                    if obj is None:
                        return server.request(
                            "POST", path(kind) + query, case.text, "application/yaml"
                        )
                    return server.request("POST", path(kind) + query, obj)
                assert obj is not None
                return _replace(server, path(kind), case.old, obj)
            except ApiError as error:
                return str(error)

        yield judge


def _replace(
    server: Cluster, path: str, old: dict[str, Any], new: dict[str, Any]
) -> dict[str, Any]:
    stored = server.request("POST", f"{path}?{STRICT}", old)
    where = f"{path}/{stored['metadata']['name']}"
    version = {"resourceVersion": stored["metadata"]["resourceVersion"]}
    try:
        body = {**new, "metadata": {**new["metadata"], **version}}
        return server.request("PUT", f"{where}?{STRICT}&dryRun=All", body)
    finally:
        server.request("DELETE", where)


@pytest.fixture(scope="module")
def file_judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A file home."""
    with Lab(tmp_path_factory.mktemp("judge")) as lab:

        def judge(case: Case) -> dict[str, Any] | str:
            try:
                obj = case.read()
                if case.old is not None:
                    lab.db.apply_many([request_of(case.old)])
                    try:
                        return lab.db.apply_many([request_of(obj)], dry_run=True)[0].resource
                    finally:
                        lab.db.delete(Key(obj["kind"], "default", obj["metadata"]["name"]))
                admit(obj)
                return lab.db.apply_many([request_of(obj)], dry_run=True)[0].resource
            except REFUSALS as refusal:
                return str(refusal)

        yield judge


def request_of(obj: dict[str, Any]) -> ApplyRequest:
    """An apply of a manifest as the CLI makes it."""
    group = kinds.get(obj["kind"]).group
    return ApplyRequest(obj, admit, kinds.open_api_schema(obj["kind"]) if group else None)


@pytest.fixture(scope="module")
def version(server: Cluster) -> tuple[int, int]:
    """That of the API server."""
    found = server.request("GET", "/version")
    return int(found["major"]), int(found["minor"].rstrip("+"))


@pytest.mark.parametrize("case", load_cases())
def test_both_homes_judge_alike_and_store_the_same(
    case: Case, file_judge: Judge, cluster_judge: Judge, version: tuple[int, int]
) -> None:
    if version < case.since:
        pytest.skip(f"older API servers judge otherwise: {version} < {case.since}")
    on_file, in_cluster = file_judge(case), cluster_judge(case)
    assert isinstance(on_file, dict) == case.accept, on_file
    assert isinstance(in_cluster, dict) == case.cluster_accepts, in_cluster
    if isinstance(on_file, dict) and isinstance(in_cluster, dict):
        assert stored(on_file) == stored(in_cluster)
    else:
        for refusal in (on_file, in_cluster):
            assert isinstance(refusal, dict) or case.phrase.lower() in refusal.lower()


def stored(obj: dict[str, Any]) -> str:
    """What a home keeps of what a person has written, to the letter."""
    metadata = obj["metadata"]
    parts = {name: metadata.get(name) or {} for name in ("labels", "annotations")}
    parts["labels"] = {k: v for k, v in parts["labels"].items() if v}
    parts["annotations"] = {k: v for k, v in parts["annotations"].items() if v}
    data = {name: obj.get(name) or {} for name in ("data", "binaryData")}
    rest = {name: obj.get(name) for name in ("spec", "type", "immutable")}
    return json.dumps({**parts, **data, **rest}, sort_keys=True)
