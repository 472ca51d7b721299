"""Applying manifests to the store: created, configured, unchanged; all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.store.apply import ApplyRequest
from controller.store.base import Conflict, Key, Resource, StoreError
from controller.store.database import Database
from tests.store.helpers import insist, key, names, project, reference, request, revision_of, task


class Invalid(Exception):
    """What an admission raises."""


def refuse(merged: Resource, live: Resource | None) -> Resource:
    raise Invalid("spec.prompt: too long")


def with_defaults(merged: Resource, live: Resource | None) -> Resource:
    merged["spec"].setdefault("retry", {"limit": 1})
    return merged


def test_created_unchanged_configured(database: Database) -> None:
    made, action = database.apply(request(task("a", {"replicas": 1})))
    assert action == "created"
    assert made == database.get(key("a"))
    assert made["metadata"]["generation"] == 1

    again, action = database.apply(request(task("a", {"replicas": 1})))
    assert action == "unchanged"
    assert again == made

    other, action = database.apply(request(task("a", {"replicas": 2})))
    assert action == "configured"
    assert other == database.get(key("a"))
    assert other["metadata"]["generation"] == 2


def test_labels_are_configured_without_a_generation(database: Database) -> None:
    database.apply(request(task("a")))
    made, action = database.apply(request(task("a", labels={"x": "y"})))
    assert action == "configured"
    assert made["metadata"]["generation"] == 1
    made, action = database.apply(request(task("a")))
    assert action == "configured"
    assert "labels" not in made["metadata"]


def test_what_others_set_stays_until_the_manifest_names_it(database: Database) -> None:
    manifest = task("a", {"model": "m"})
    database.apply(request(manifest))
    insist(database, "a", lambda obj: obj["spec"].update(replicas=5))
    made, action = database.apply(request(manifest))
    assert (made["spec"], action) == ({"model": "m", "replicas": 5}, "unchanged")
    made, action = database.apply(request(task("a", {"replicas": 5})))
    assert (made["spec"], action) == ({"replicas": 5}, "configured")


def test_naming_what_is_so_already_makes_it_the_manifests(database: Database) -> None:
    database.create(task("a", {"x": 1, "y": 1}))
    before = database.get(key("a"))
    assert database.apply(request(task("a", {"x": 1}))) == (before, "unchanged")
    assert database.apply(request(task("a", {"y": 1}))).resource["spec"] == {"y": 1}


def test_last_applied_goes_with_the_object(database: Database) -> None:
    database.apply(request(task("a", {"x": 1})))
    database.delete(key("a"))
    database.create(task("a", {"x": 1, "y": 1}))
    made, _ = database.apply(request(task("a", {"y": 2})))
    assert made["spec"] == {"x": 1, "y": 2}


def test_last_applied_is_not_in_metadata(database: Database) -> None:
    made, _ = database.apply(request(task("a", annotations={"x": "y"})))
    assert made["metadata"]["annotations"] == {"x": "y"}


def test_status_finalizers_and_owners_are_not_for_manifests(database: Database) -> None:
    owner = database.create(project("p"))
    database.create(task("a", owner=owner, finalizers=["x/y"]))
    live = database.get(key("a"))
    assert live is not None
    live = database.update_status({**live, "status": {"phase": "Running"}})
    manifest = task("a", {"prompt": "new"}, uid="mine", finalizers=[], ownerReferences=[])
    made, _ = database.apply(request({**manifest, "status": {"phase": "Done"}}))
    assert made["status"] == {"phase": "Running"}
    assert made["metadata"]["finalizers"] == ["x/y"]
    assert made["metadata"]["ownerReferences"] == [reference(owner)]
    assert made["metadata"]["uid"] == live["metadata"]["uid"]
    new, _ = database.apply(request(task("b", finalizers=["x/y"], uid="mine")))
    assert "finalizers" not in new["metadata"] and new["metadata"]["uid"] != "mine"


class TestAdmission:
    def test_sees_merged_and_live(self, database: Database) -> None:
        seen: list[tuple[Resource, Resource | None]] = []

        def admit(merged: Resource, live: Resource | None) -> Resource:
            seen.append((merged, live))
            return merged

        made, _ = database.apply(ApplyRequest(task("a", {"x": 1}), admit))
        database.apply(ApplyRequest(task("a", {"y": 1}), admit))
        assert seen[0][1] is None
        assert seen[1][1] == made
        assert seen[1][0]["spec"] == {"y": 1}
        assert "status" not in seen[1][0]

    def test_defaults_are_not_the_manifests(self, database: Database) -> None:
        made, action = database.apply(ApplyRequest(task("a", {"x": 1}), with_defaults))
        assert made["spec"] == {"x": 1, "retry": {"limit": 1}}
        insist(database, "a", lambda obj: obj["spec"].update(retry={"limit": 3}))
        made, action = database.apply(ApplyRequest(task("a", {"x": 1}), with_defaults))
        assert (made["spec"]["retry"], action) == ({"limit": 3}, "unchanged")

    def test_may_change_what_it_is_given(self, database: Database) -> None:
        def admit(merged: Resource, live: Resource | None) -> Resource:
            merged["spec"]["list"].append(1)
            if live is not None:
                live["spec"].clear()
            return merged

        database.create(task("a", {"list": []}))
        made, action = database.apply(ApplyRequest(task("a", {}, labels={"x": "y"}), admit))
        assert (made["spec"], action) == ({"list": [1], "prompt": "go"}, "configured")

    def test_a_refusal_passes_through_and_nothing_is_applied(self, database: Database) -> None:
        requests = [request(task("a")), ApplyRequest(task("b"), refuse), request(task("c"))]
        with pytest.raises(Invalid, match="too long"):
            database.apply_many(requests)
        assert database.list("Task") == []
        assert database.changes_since(0) == ([], 0)


class TestMany:
    def test_in_one_commit_in_order(self, database: Database) -> None:
        database.apply(request(task("b")))
        statements: list[str] = []
        database._connection.set_trace_callback(statements.append)
        done = database.apply_many(
            [request(project("p")), request(task("b")), request(task("a", {"x": 1}))]
        )
        assert [applied.action for applied in done] == ["created", "unchanged", "created"]
        assert names([applied.resource for applied in done]) == ["p", "b", "a"]
        assert statements.count("COMMIT") == 1

    def test_unchanged_needs_no_transaction(self, database: Database) -> None:
        requests = [request(task("a")), request(task("b"))]
        database.apply_many(requests)
        statements: list[str] = []
        database._connection.set_trace_callback(statements.append)
        database.apply_many(requests)
        assert not [text for text in statements if text.startswith("BEGIN")]

    def test_none(self, database: Database) -> None:
        assert database.apply_many([]) == []

    def test_the_same_object_twice_is_refused(self, database: Database) -> None:
        with pytest.raises(StoreError, match="task/a is named by two manifests"):
            database.apply_many([request(task("a")), request(task("a", namespace="default"))])
        assert database.list("Task") == []


class TestDryRun:
    def test_tells_and_writes_nothing(self, database: Database) -> None:
        database.apply(request(task("a", {"x": 1})))
        before = database.get(key("a"))
        assert before is not None
        wanted = [task("a", {"x": 2}), task("b", {"y": 1})]
        told = database.apply_many([request(one) for one in wanted], dry_run=True)
        assert database.get(key("a")) == before
        assert database.get(key("b")) is None
        assert [applied.action for applied in told] == ["configured", "created"]
        made = database.apply_many([request(one) for one in wanted])
        for dry, real in zip(told, made, strict=True):
            assert dry.action == real.action
            assert dry.resource["spec"] == real.resource["spec"]
        assert told[0].resource["metadata"]["generation"] == 2
        assert revision_of(told[0].resource) == revision_of(before)


class Meddler:
    """An admission during which somebody else changes the object."""

    def __init__(self, path: Path, meddle: Any, times: int) -> None:
        self.calls = 0
        self._path, self._meddle, self._times = path, meddle, times

    def __call__(self, merged: Resource, live: Resource | None) -> Resource:
        self.calls += 1
        if self.calls <= self._times:
            with Database(self._path) as other:
                self._meddle(other)
        return merged


class TestMeanwhile:
    def test_a_change_makes_it_decide_again(self, database: Database, path: Path) -> None:
        database.apply(request(task("a", {"mine": 1})))

        def meddle(other: Database) -> None:
            insist(other, "a", lambda obj: obj["spec"].update(theirs=1))

        admit = Meddler(path, meddle, 1)
        calm = Meddler(path, meddle, 0)
        database.apply_many(
            [ApplyRequest(task("b"), calm), ApplyRequest(task("a", {"mine": 2}), admit)]
        )
        made = database.get(key("a"))
        assert made is not None and made["spec"] == {"mine": 2, "theirs": 1}
        assert (admit.calls, calm.calls) == (2, 1)

    def test_so_does_a_creation(self, database: Database, path: Path) -> None:
        admit = Meddler(path, lambda other: other.create(task("a", {"theirs": 1})), 1)
        made, action = database.apply(ApplyRequest(task("a", {"mine": 1}), admit))
        assert (made["spec"], action) == ({"theirs": 1, "mine": 1}, "configured")

    def test_so_does_a_deletion(self, database: Database, path: Path) -> None:
        database.create(task("a", {"theirs": 1}))
        admit = Meddler(path, lambda other: other.delete(key("a")), 1)
        made, action = database.apply(ApplyRequest(task("a", {"mine": 1}), admit))
        assert (made["spec"], action) == ({"mine": 1}, "created")

    def test_a_status_does_not(self, database: Database, path: Path) -> None:
        made = database.create(task("a", {"theirs": 1}))

        def meddle(other: Database) -> None:
            other.update_status({**made, "status": {"phase": "Running"}})

        admit = Meddler(path, meddle, 1)
        made, _ = database.apply(ApplyRequest(task("a", {"mine": 1}), admit))
        assert made["status"] == {"phase": "Running"}
        assert admit.calls == 1

    def test_it_gives_up_in_the_end(self, database: Database, path: Path) -> None:
        database.create(task("a", {"n": 0}))

        def meddle(other: Database) -> None:
            insist(other, "a", lambda obj: obj["spec"].update(n=obj["spec"]["n"] + 1))

        with pytest.raises(Conflict, match="task/a is being changed all the time"):
            database.apply(ApplyRequest(task("a", {"x": 1}), Meddler(path, meddle, 1000)))


def test_lists_merge_as_the_schema_says(database: Database) -> None:
    schema = {
        "properties": {
            "spec": {
                "properties": {
                    "tasks": {
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {},
                    }
                }
            }
        }
    }
    manifest = project("p")
    manifest["spec"] = {"tasks": [{"name": "a"}]}
    database.apply(request(manifest, schema))
    live = database.get(Key("Project", "default", "p"))
    assert live is not None
    live["spec"]["tasks"].append({"name": "theirs"})
    database.update(live)
    manifest["spec"]["tasks"][0]["prompt"] = "go"
    made, _ = database.apply(request(manifest, schema))
    assert made["spec"]["tasks"] == [{"name": "a", "prompt": "go"}, {"name": "theirs"}]
