"""Changes are reported: each object once, in order, deletions included."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store import transaction
from controller.store.base import Change
from controller.store.database import Database
from tests.store.helpers import key, project, task


def test_each_object_once_in_order(database: Database) -> None:
    owner = database.create(project("p"))
    child = database.create(task("a", owner=owner))
    _, revision = database.changes_since(0)
    owner = database.update_status({**owner, "status": {"phase": "x"}})
    other = database.create(task("b"))
    database.update_status({**owner, "status": {"phase": "y"}})
    changes, latest = database.changes_since(revision)
    assert changes == [
        Change(key("b"), other["metadata"]["uid"]),
        Change(key("p", "Project"), owner["metadata"]["uid"]),
    ]
    assert latest == database.revision() == 5
    assert database.changes_since(latest) == ([], latest)
    database.delete(key("p", "Project"))
    gone, _ = database.changes_since(latest)
    assert gone == [
        Change(key("p", "Project"), owner["metadata"]["uid"], deleted=True),
        Change(key("a"), child["metadata"]["uid"], deleted=True),
    ]


def test_an_object_made_anew_is_another_one(database: Database) -> None:
    first = database.create(task("a"))["metadata"]["uid"]
    database.delete(key("a"))
    second = database.create(task("a"))["metadata"]["uid"]
    changes, _ = database.changes_since(0)
    assert changes == [Change(key("a"), first, deleted=True), Change(key("a"), second)]


def test_data_version_tells_of_others(database: Database, path: Path) -> None:
    before = database.data_version()
    database.create(task("a"))
    assert database.data_version() == before
    with Database(path) as other:
        other.create(task("b"))
    assert database.data_version() != before


def test_old_deletions_are_forgotten(path: Path) -> None:
    now = [1e9]
    with Database(path, clock=lambda: now[0]) as database:
        for name in ("old", "young", "youngest"):
            database.create(task(name))
        database.delete(key("old"))
        now[0] += transaction.TOMBSTONE_SECONDS - 1
        database.delete(key("young"))
        now[0] += 2
        database.delete(key("youngest"))
        assert [change.key.name for change in database.changes_since(0)[0]] == ["young", "youngest"]


def test_deletions_beyond_the_limit_are_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "TOMBSTONES", 3)
    for number in range(5):
        database.create(task(f"t{number}"))
        database.delete(key(f"t{number}"))
    assert [c.key.name for c in database.changes_since(0)[0]] == ["t2", "t3", "t4"]
