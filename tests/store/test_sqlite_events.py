"""SqliteStore: events."""

from __future__ import annotations

from pathlib import Path

from controller.store.database import Database
from controller.store.sqlite import SqliteStore
from tests.store.driven import commits_of, drive, reports_of
from tests.store.helpers import key, task, until


class TestEvents:
    def test_are_written_with_the_next_commit(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            commits = commits_of(store)
            for _ in range(10):
                store.record_event(key("a"), "Normal", "Launched", "worker 0")
            await store.create(task("a"))
            assert [(event.reason, event.count) for event in store._database.events(key("a"))] == [
                ("Launched", 10)
            ]
            assert len(commits) == 1

        drive(path, test)

    def test_are_written_soon_without_one(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            commits = commits_of(store)
            seen = reports_of(store)
            for number in range(3):
                store.record_event(key("a"), "Normal", "Launched", f"worker {number}")
            assert store._database.events() == []
            await until(lambda: len(store._database.events(namespace="default")) == 3)
            assert len(commits) == 1
            assert seen == []

        drive(path, test)

    def test_are_written_before_the_end(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            store.record_event(key("a"), "Normal", "Stopped", "bye")

        drive(path, test)
        with Database(path) as database:
            assert [event.reason for event in database.events()] == ["Stopped"]
