"""SqliteStore: change notification across processes, and the pipe that wakes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from controller.store.base import Change
from controller.store.database import Database
from controller.store.sqlite import SqliteStore
from controller.store.wake import WakePipe, poke
from tests.store.driven import drive, reports_of, writer_of
from tests.store.helpers import insist, key, project, python, task, until

CREATOR = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import task

database = Database(Path(sys.argv[1]))
database.create(task("theirs"))
sys.stdin.readline()
"""


class TestChanges:
    def test_own_writes_are_reported_once(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            owner = await store.create(project("p"))
            child = await store.create(task("a", owner=owner))
            await store.delete(key("p", "Project"))
            polls: list[str] = []
            writer_of(store).set_trace_callback(polls.append)
            await until(lambda: len(polls) >= 5)
            uids = [obj["metadata"]["uid"] for obj in (owner, child)]
            assert seen == [
                Change(key("p", "Project"), uids[0]),
                Change(key("a"), uids[1]),
                Change(key("p", "Project"), uids[0], deleted=True),
                Change(key("a"), uids[1], deleted=True),
            ]

        drive(path, test, poll_seconds=0.005)

    def test_are_there_when_the_writer_goes_on(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            await store.create(task("a"))
            assert [change.key for change in seen] == [key("a")]

        drive(path, test)

    def test_come_in_the_event_loop(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            threads: set[int] = set()
            store.subscribe(lambda changes: threads.add(threading.get_ident()))
            await store.create(task("a"))
            with Database(path) as other:
                other.create(task("b"))
            await until(lambda: len(store.list("Task")) == 2)
            assert threads == {threading.get_ident()}

        drive(path, test)

    def test_others_writes_are_found_by_polling(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            path.with_name("wake").unlink()
            with Database(path) as other:
                made = other.create(task("b"))
            await until(lambda: bool(seen))
            assert seen == [Change(key("b"), made["metadata"]["uid"])]

        drive(path, test, poll_seconds=0.01)

    def test_others_writes_are_seen_at_once_by_the_hint(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            process = python(CREATOR, path)
            try:
                await until(lambda: bool(seen), 30)  # far less than a poll
                assert [change.key for change in seen] == [key("theirs")]
            finally:
                process.communicate("\n", timeout=30)

        drive(path, test)

    def test_mixed_with_own_writes_all_are_reported_once(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            expected = set()

            def others() -> None:
                with Database(path) as other:
                    for number in range(60):
                        other.create(task(f"theirs-{number}"))

            theirs = asyncio.get_running_loop().run_in_executor(None, others)
            for number in range(60):
                await asyncio.gather(*[store.create(task(f"{name}-{number}")) for name in "xyz"])
            await theirs
            expected = {obj["metadata"]["name"] for obj in store.list("Task")}
            assert len(expected) == 240
            await until(lambda: len(seen) >= 240)
            assert len(seen) == 240
            assert {change.key.name for change in seen} == expected

        drive(path, test, poll_seconds=0.005)

    def test_a_failing_subscriber_is_logged(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def test(store: SqliteStore) -> None:
            def broken(changes: Iterable[Change]) -> None:
                raise ZeroDivisionError

            store.subscribe(broken)
            seen = reports_of(store)
            await store.create(task("a"))
            assert len(seen) == 1

        drive(path, test)
        assert "a subscriber failed" in caplog.text

    def test_only_what_comes_after_the_start(self, path: Path) -> None:
        with Database(path) as database:
            database.create(task("before"))

        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            await store.create(task("after"))
            assert [change.key.name for change in seen] == ["after"]

        drive(path, test)


class TestIdle:
    def test_it_writes_nothing(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            await store.create(task("a"))
            statements: list[str] = []
            writer_of(store).set_trace_callback(statements.append)
            await until(lambda: len(statements) >= 20)
            assert set(statements) == {"PRAGMA data_version"}

        drive(path, test, poll_seconds=0.002)


class TestWake:
    def test_pokes_are_folded(self, tmp_path: Path) -> None:
        pipe = WakePipe(tmp_path)
        try:
            for _ in range(70_000):
                poke(tmp_path)  # never blocks, though the pipe is full
            pipe.drain()
            pipe.drain()
        finally:
            pipe.close()
        poke(tmp_path)  # nobody listens

    def test_a_file_of_that_name_is_no_pipe(self, path: Path) -> None:
        path.parent.mkdir()
        path.with_name("wake").write_text("mine")

        async def test(store: SqliteStore) -> None:
            seen = reports_of(store)
            with Database(path) as other:
                insist_on = other.create(task("a"))
                insist(other, "a", lambda obj: obj["spec"].update(n=1))
            await until(lambda: bool(seen))
            assert seen[0].uid == insist_on["metadata"]["uid"]

        drive(path, test, poll_seconds=0.01)
        assert path.with_name("wake").read_text() == "mine"
