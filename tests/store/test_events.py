"""Events are folded while they repeat, and kept few."""

from __future__ import annotations

import sqlite3
from itertools import count
from pathlib import Path

import pytest

from controller.store import events
from controller.store.base import Event
from controller.store.database import Database
from tests.store.helpers import key, task


def test_repetitions_are_counted(path: Path) -> None:
    clock = count(0)
    with Database(path, clock=lambda: float(next(clock))) as database:
        for reason in ("Launched", "Lost", "Launched"):
            database.record_event(key("a"), "Normal", reason, "worker 0")
        database.record_event(key("a"), "Normal", "Launched", "worker 1")
        found = database.events(key("a"))
    at = [f"1970-01-01T00:00:0{second}.000000Z" for second in range(4)]
    assert found == [
        Event(key("a"), "Normal", "Lost", "worker 0", at[1], at[1], 1),
        Event(key("a"), "Normal", "Launched", "worker 0", at[0], at[2], 2),
        Event(key("a"), "Normal", "Launched", "worker 1", at[3], at[3], 1),
    ]


def test_are_found_by_object_and_namespace(database: Database) -> None:
    database.record_event(key("a"), "Normal", "R", "m")
    database.record_event(key("a", "Project"), "Warning", "R", "m")
    database.record_event(key("a", namespace="other"), "Normal", "R", "m")
    assert [event.key for event in database.events(key("a"))] == [key("a")]
    assert len(database.events(namespace="default")) == 2
    assert len(database.events()) == 3


def test_the_oldest_of_an_object_go(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PER_OBJECT", 3)
    database.record_event(key("b"), "Normal", "R", "kept")
    for number in range(5):
        database.record_event(key("a"), "Normal", "R", str(number))
    assert [event.message for event in database.events(key("a"))] == ["2", "3", "4"]
    assert len(database.events(key("b"))) == 1


def test_the_oldest_of_all_go(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TOTAL", 120)
    monkeypatch.setattr(events, "_SLACK", 10)
    with database._transaction() as transaction:
        for number in range(300):
            new = events.happening(key(f"t{number}"), "Normal", "R", "m", f"{number:03}")
            transaction.record(new)
    found = database.events()
    assert 110 <= len(found) <= 120
    assert found[-1].key.name == "t299"


def test_odd_texts_are_stored_cut(database: Database) -> None:
    database.record_event(key("a"), "Normal", "R", "\ud800" + "x" * 5000)
    [event] = database.events(key("a"))
    assert event.message.startswith("?xxx")
    assert len(event.message) == events.MESSAGE_LENGTH


def test_outlive_their_object(database: Database) -> None:
    database.create(task("a"))
    database.record_event(key("a"), "Normal", "R", "m")
    database.delete(key("a"))
    assert len(database.events(key("a"))) == 1


def test_a_failure_is_logged_only(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    database._connection.execute("PRAGMA busy_timeout = 1")
    database.record_event(key("a"), "Normal", "Launched", "m")
    blocker.close()
    assert "event Launched of task/a was not recorded" in caplog.text
    assert database.events() == []
