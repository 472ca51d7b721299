"""Both homes take and refuse the same manifests, store the same of them, and come to the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.resources import kinds
from controller.resources.admission import admit
from controller.resources.conditions import OWNED
from controller.store.base import Key
from controller.store.kube_rest import path_of
from tests.cluster import tuned
from tests.cluster.homes import ClusterHome, FileHome, request_of
from tests.cluster.normal import normal, text
from tests.cluster.scenarios import Drive, Scenario, drive
from tests.cluster.scenarios import load as load_scenarios
from tests.cluster.scenarios import parameters as scenario_parameters
from tests.kube import ApiError, Cluster, KubeLab
from tests.lab import Lab
from tests.resources.table import REFUSALS, Case, load_cases

DEADLINE_SECONDS = 150.0
"""For all scenarios together, on a machine that has much else to do."""
pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 60)

DOCS = Path(__file__).parents[2] / "docs" / "resources"
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


# --- what becomes of them ------------------------------------------------------------------------

LOOKS_AGAIN = {"controller.store.kube_references:POLL_SECONDS": 1}


@pytest.fixture(scope="module")
def driven(
    server: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Drive, Drive]]:
    """All scenarios, taken to their end in both homes at once."""
    scenarios = load_scenarios()
    with (
        server.namespace() as namespace,
        Lab(tmp_path_factory.mktemp("file")) as on_file,
        KubeLab(server, namespace, tmp_path_factory.mktemp("kube")) as in_cluster,
    ):
        on_file.start()
        in_cluster.spawn(
            program=("-m", tuned.__name__), **{tuned.VARIABLE: json.dumps(LOOKS_AGAIN)}
        )
        drives = Drive(FileHome(on_file), scenarios), Drive(ClusterHome(in_cluster), scenarios)
        drive(drives, DEADLINE_SECONDS)
        yield drives


@pytest.mark.parametrize("scenario", scenario_parameters())
def test_both_homes_come_to_the_same(driven: tuple[Drive, Drive], scenario: Scenario) -> None:
    seen = []
    for one in driven:
        progress = next(p for p in one.progress if p.scenario.name == scenario.name)
        assert progress.done, f"cluster {one.home.in_cluster}: {progress.waits}"
        mine = [obj for obj in one.objects.values() if scenario.owns(obj)]
        assert order_of(mine, scenario) == list(scenario.order)
        shown = [normal(obj, one.home.root) for obj in mine]
        seen.append({f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in shown})
    if not scenario.differs:
        assert seen[0] == seen[1]


def test_both_homes_become_quiet(driven: tuple[Drive, Drive]) -> None:
    assert all(one.finished for one in driven)
    for one in driven:
        assert "Traceback" not in one.home.said and "inconsistencies" not in one.home.said


def test_both_homes_tell_the_same(driven: tuple[Drive, Drive]) -> None:
    differ = {one.scenario.name for one in driven[0].progress if one.scenario.differs}
    told = [
        {
            (kind, text(name, one.home.root), type_, reason)
            for kind, name, type_, reason in one.home.events()
            if name.partition(".")[0] not in differ
        }
        for one in driven
    ]
    assert told[0] == told[1]


def test_every_reason_is_explained(driven: tuple[Drive, Drive]) -> None:
    pages = {k: (DOCS / f"{k.lower()}.md").read_text() for k in OWNED}
    unexplained = {
        (obj["kind"], reason)
        for one in driven
        for obj in one.objects.values()
        for reason in reasons(obj.get("status") or {})
        if f"`{reason}`" not in pages[obj["kind"]]
    }
    assert not unexplained


def reasons(status: dict[str, Any]) -> set[str]:
    """Every reason that a status gives for something."""
    parts = [status, status.get("blocker") or {}]
    parts += [*(status.get("conditions") or ()), *(status.get("attempts") or ())]
    return {part["reason"] for part in parts if part.get("reason")}


def order_of(objects: list[dict[str, Any]], scenario: Scenario) -> list[str]:
    """The scenario's Tasks in the order in which they were given to workers."""
    given = [
        (obj["status"]["attempts"][0]["assignedAt"], obj["metadata"]["name"])
        for obj in objects
        if obj["metadata"]["name"] in scenario.order
    ]
    return [name for _, name in sorted(given)]
