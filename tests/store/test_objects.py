"""Objects in the store follow Kubernetes' rules."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controller.store.base import AlreadyExists, Conflict, NotFound, Resource, StoreError
from controller.store.database import Database
from tests.store.helpers import insist, key, names, project, reference, revision_of, task


def stored(database: Database, name: str, kind: str = "Task") -> Resource:
    obj = database.get(key(name, kind))
    assert obj is not None
    return obj


class TestCreate:
    def test_gives_identity_and_stamps(self, path: Path) -> None:
        with Database(path, clock=lambda: 1_700_000_000.25) as database:
            made = database.create(task("a", labels={"x": "y"}))
            assert database.get(key("a")) == made
        meta = made["metadata"]
        assert len(meta.pop("uid")) == 36
        assert meta == {
            "name": "a",
            "namespace": "default",
            "resourceVersion": "1",
            "generation": 1,
            "creationTimestamp": "2023-11-14T22:13:20.250000Z",
            "labels": {"x": "y"},
        }
        assert datetime.fromisoformat(meta["creationTimestamp"]).tzinfo == UTC

    def test_ignores_what_only_the_store_sets(self, database: Database) -> None:
        obj = task("a", uid="mine", resourceVersion="9", generation=7, deletionTimestamp="now")
        made = database.create({**obj, "status": {"phase": "Done"}})
        assert "status" not in made
        assert made["metadata"]["uid"] != "mine"
        assert made["metadata"]["generation"] == 1
        assert "deletionTimestamp" not in made["metadata"]

    def test_refuses_a_taken_name(self, database: Database) -> None:
        database.create(task("a"))
        with pytest.raises(AlreadyExists, match="task/a already exists"):
            database.create(task("a"))
        database.create(task("a", namespace="other"))
        database.create(project("a"))

    def test_keeps_other_top_level_fields(self, database: Database) -> None:
        data = {"key": "välue\ud800\u0000"}
        obj = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data}
        made = database.create(obj)
        assert made["data"] == data and "spec" not in made
        made["data"]["key"] = "other"
        assert database.update(made)["metadata"]["generation"] == 2

    @pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "a\u0000"])
    def test_refuses_a_name_that_is_none(self, database: Database, name: str) -> None:
        with pytest.raises(ValueError, match="is not a name"):
            database.create(task(name))

    def test_the_caller_owns_what_it_gets(self, database: Database) -> None:
        spec = {"prompt": "go", "list": [1]}
        made = database.create(task("a", spec))
        made["spec"]["list"].append(2)
        spec["prompt"] = "stop"
        assert stored(database, "a")["spec"] == {"prompt": "go", "list": [1]}


class TestUpdate:
    def test_of_spec_raises_generation(self, database: Database) -> None:
        made = database.create(task("a"))
        made["spec"]["prompt"] = "other"
        made["status"] = {"phase": "Ignored"}
        updated = database.update(made)
        assert updated == stored(database, "a")
        assert updated["metadata"]["generation"] == 2
        assert revision_of(updated) > revision_of(made)
        assert "status" not in updated

    @pytest.mark.parametrize(
        "metadata",
        [{"labels": {"a": "b"}}, {"annotations": {"a": "b"}}, {"finalizers": ["x/y"]}],
    )
    def test_of_metadata_leaves_generation(
        self, database: Database, metadata: dict[str, Any]
    ) -> None:
        made = database.create(task("a"))
        made["metadata"] |= metadata
        updated = database.update(made)
        assert updated["metadata"]["generation"] == 1
        assert updated["metadata"] | metadata == updated["metadata"]

    def test_cannot_change_what_only_the_store_sets(self, database: Database) -> None:
        made = database.create(task("a"))
        changed = {**made, "metadata": {**made["metadata"], "generation": 9, "managedFields": [1]}}
        changed["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z"
        assert database.update(changed) == made

    @pytest.mark.parametrize(
        "spec", [{"b": 1, "a": [1, {"x": 1, "y": 2}]}, {"a": [1, {"y": 2, "x": 1}], "b": 1}]
    )
    def test_of_the_same_content_is_none(self, database: Database, spec: Any) -> None:
        made = database.create(task("a", {"a": [1, {"x": 1, "y": 2}], "b": 1}))
        assert revision_of(database.update({**made, "spec": spec})) == revision_of(made)

    def test_tells_numbers_apart_as_json_does(self, database: Database) -> None:
        made = database.create(task("a", {"n": 1.0, "m": 10}))
        made["spec"] = {"n": 1, "m": 10.0}
        assert database.update(made)["metadata"]["generation"] == 2

    def test_needs_the_stored_resource_version(self, database: Database) -> None:
        made = database.create(task("a"))
        database.update({**made, "spec": {"prompt": "theirs"}})
        for write in (database.update, database.update_status):
            with pytest.raises(Conflict, match="task/a changed since it was read"):
                write({**made, "spec": {"prompt": "mine"}, "status": {"phase": "x"}})
        with pytest.raises(Conflict, match="missing"):
            database.update(task("a"))
        assert stored(database, "a")["spec"] == {"prompt": "theirs"}

    def test_of_an_object_made_anew_is_not_found(self, database: Database) -> None:
        made = database.create(task("a"))
        database.delete(key("a"))
        for write in (database.update, database.update_status):
            with pytest.raises(NotFound, match="task/a not found"):
                write(made)
        database.create(task("a"))
        with pytest.raises(NotFound):
            database.update(made)


class TestStatus:
    def test_changes_status_only(self, database: Database) -> None:
        made = database.create(task("a", labels={"a": "b"}))
        given = {**made, "spec": {"prompt": "ignored"}, "status": {"phase": "Running"}}
        given["metadata"] = {**made["metadata"], "labels": {}}
        updated = database.update_status(given)
        assert revision_of(updated) > revision_of(made)
        updated["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
        assert updated == {**made, "status": {"phase": "Running"}}

    def test_stays_through_an_update(self, database: Database) -> None:
        made = database.update_status(
            {**database.create(task("a")), "status": {"phase": "Running"}}
        )
        made.pop("status")
        assert database.update({**made, "spec": {"p": 1}})["status"] == {"phase": "Running"}

    def test_the_same_again_writes_nothing(self, database: Database) -> None:
        made = database.update_status({**database.create(task("a")), "status": {"a": 1, "b": [2]}})
        again = database.update_status({**made, "status": {"b": [2], "a": 1}})
        assert revision_of(again) == revision_of(made)

    def test_does_not_write_a_long_prompt_again(self, database: Database, path: Path) -> None:
        obj = database.create(task("a", {"prompt": "x" * 50_000}))
        wal = path.with_name("state.db-wal")
        before = wal.stat().st_size
        for number in range(3):
            obj = database.update_status({**obj, "status": {"number": number}})
        assert wal.stat().st_size - before < 50_000


class TestDelete:
    def test_removes_at_once_without_finalizers(self, database: Database) -> None:
        uid = database.create(task("a"))["metadata"]["uid"]
        with pytest.raises(NotFound):
            database.delete(key("a"), uid="another")
        database.delete(key("a"), uid=uid)
        assert database.get(key("a")) is None
        with pytest.raises(NotFound, match="task/a not found"):
            database.delete(key("a"))

    def test_waits_for_finalizers(self, database: Database) -> None:
        made = database.create(task("a", finalizers=["x/one", "x/two"]))
        database.delete(key("a"))
        marked = stored(database, "a")
        assert marked["metadata"]["deletionTimestamp"]
        assert marked["metadata"]["generation"] == made["metadata"]["generation"] + 1
        database.delete(key("a"))
        assert stored(database, "a") == marked, "deleting again changes nothing"
        marked["metadata"]["finalizers"] = ["x/two"]
        marked = database.update(marked)
        marked["metadata"]["finalizers"] = []
        database.update(marked)
        assert database.get(key("a")) is None

    def test_finalizers_cannot_be_added_meanwhile(self, database: Database) -> None:
        database.create(task("a", finalizers=["x/one"]))
        database.delete(key("a"))
        marked = stored(database, "a")
        marked["metadata"]["finalizers"].append("x/two")
        with pytest.raises(StoreError, match=r"task/a is being deleted.*x/two"):
            database.update(marked)

    def test_a_finalizer_taken_off_a_living_object_removes_nothing(
        self, database: Database
    ) -> None:
        made = database.create(task("a", finalizers=["x/one"]))
        made["metadata"].pop("finalizers")
        database.update(made)
        assert database.get(key("a")) is not None


class TestOwners:
    def test_what_is_owned_follows_down_to_grandchildren(self, database: Database) -> None:
        owner = database.create(project("p"))
        child = database.create(task("a", owner=owner))
        database.create(task("a.0", owner=child))
        database.create(task("held", owner=owner, finalizers=["x/y"]))
        database.create(task("other"))
        database.delete(key("p", "Project"))
        assert names(database.list("Task")) == ["held", "other"]
        assert stored(database, "held")["metadata"]["deletionTimestamp"]
        assert "deletionTimestamp" not in stored(database, "other")["metadata"]

    def test_follows_only_when_the_owner_is_really_gone(self, database: Database) -> None:
        owner = database.create(project("p", finalizers=["x/y"]))
        database.create(task("a", owner=owner))
        database.delete(key("p", "Project"))
        assert "deletionTimestamp" not in stored(database, "a")["metadata"]
        marked = stored(database, "p", "Project")
        marked["metadata"]["finalizers"] = []
        database.update(marked)
        assert database.list("Task") == []

    def test_stays_while_another_owner_is_left(self, database: Database) -> None:
        owners = [database.create(project(name)) for name in ("p", "q")]
        database.create(task("a", ownerReferences=[reference(owner) for owner in owners]))
        database.delete(key("p", "Project"))
        left = stored(database, "a")["metadata"]["ownerReferences"]
        assert left == [reference(owners[1])]
        database.delete(key("q", "Project"))
        assert database.get(key("a")) is None

    def test_owners_may_change(self, database: Database) -> None:
        one, two = (database.create(project(name)) for name in ("p", "q"))
        child = database.create(task("a", owner=one))
        child["metadata"]["ownerReferences"] = [reference(two)]
        database.update(child)
        uids = [owner["metadata"]["uid"] for owner in (one, two)]
        assert [names(database.list("Task", owner_uid=uid)) for uid in uids] == [[], ["a"]]
        database.delete(key("p", "Project"))
        assert database.get(key("a")) is not None

    def test_owners_in_a_ring_go_together(self, database: Database) -> None:
        one = database.create(task("one"))
        two = database.create(task("two", owner=one))
        one["metadata"]["ownerReferences"] = [reference(two)]
        database.update(one)
        database.delete(key("one"))
        assert database.list("Task") == []

    def test_orphans_are_accepted_then_collected(self, database: Database) -> None:
        gone = database.create(project("gone"))
        database.delete(key("gone", "Project"))
        here = database.create(project("here"))
        orphan = database.create(task("orphan", owner=gone))
        database.create(task("grandchild", owner=orphan))
        database.create(task("half", ownerReferences=[reference(gone), reference(here)]))
        database.create(task("held", owner=gone, finalizers=["x/y"]))
        assert database.collect_orphans() == 4
        assert names(database.list("Task")) == ["half", "held"]
        assert stored(database, "half")["metadata"]["ownerReferences"] == [reference(here)]
        assert stored(database, "held")["metadata"]["deletionTimestamp"]
        assert database.collect_orphans() == 0


class TestList:
    def test_by_namespace_and_name(self, database: Database) -> None:
        for namespace, name in [("b", "x"), ("a", "z"), ("b", "a"), ("a", "b")]:
            database.create(task(name, namespace=namespace))
        database.create(project("x", namespace="a"))
        found = [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in database.list("Task")]
        assert found == [("a", "b"), ("a", "z"), ("b", "a"), ("b", "x")]
        assert names(database.list("Task", "b")) == ["a", "x"]
        assert database.list("Task", "c") == []

    def test_by_labels_and_owner(self, database: Database) -> None:
        owner = database.create(project("p"))
        quoted = 'odd."key'
        database.create(task("a", labels={"codeswarm.dev/project": "p", quoted: "1"}, owner=owner))
        database.create(task("b", labels={"codeswarm.dev/project": "p"}))
        database.create(task("c", labels={"codeswarm.dev/project": "q"}, owner=owner))
        database.create(task("d"))
        label = {"codeswarm.dev/project": "p"}
        assert names(database.list("Task", labels=label)) == ["a", "b"]
        assert names(database.list("Task", labels={**label, quoted: "1"})) == ["a"]
        uid = owner["metadata"]["uid"]
        assert names(database.list("Task", "default", owner_uid=uid)) == ["a", "c"]
        assert names(database.list("Task", owner_uid=uid, labels=label)) == ["a"]

    def test_by_owner_looks_at_no_other_object(self, database: Database) -> None:
        statements: list[str] = []
        database._connection.set_trace_callback(statements.append)
        database.list("Task", owner_uid="someone")
        database._connection.set_trace_callback(None)
        plan = database._connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}").fetchall()
        steps = " | ".join(row[3] for row in plan)
        assert "SEARCH w USING PRIMARY KEY (owner=?)" in steps
        assert "SCAN" not in steps


def test_resource_versions_come_from_one_counter(database: Database) -> None:
    one = database.create(task("a"))
    two = database.create(project("p"))
    three = database.update_status({**one, "status": {"phase": "x"}})
    assert [revision_of(obj) for obj in (one, two, three)] == [1, 2, 3]
    database.delete(key("a"))
    database.delete(key("p", "Project"))
    assert revision_of(database.create(task("a"))) == 6


def test_two_connections_see_each_other(database: Database, path: Path) -> None:
    database.create(task("a", {"n": 0}))
    with Database(path) as other:
        insist(other, "a", lambda obj: obj["spec"].update(n=1))
        assert stored(database, "a")["spec"] == {"n": 1}


def test_epochs_rise_and_are_kept(database: Database, path: Path) -> None:
    assert [database.next_epoch(), database.next_epoch()] == [1, 2]
    with Database(path) as other:
        assert other.next_epoch() == 3
    assert database.next_epoch() == 4
