"""The controller's store: awaited writes that share commits, and reports of every change."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.store import group_commit
from controller.store.base import Change, Conflict, Key, NotFound, Store, StoreUnavailable
from controller.store.database import Database
from controller.store.sqlite import SqliteStore
from controller.store.wake import WakePipe, poke
from tests.store.helpers import insist, key, names, project, python, task, until

CREATOR = """
import sys
from pathlib import Path
from controller.store.database import Database
from tests.store.helpers import task

database = Database(Path(sys.argv[1]))
database.create(task("theirs"))
sys.stdin.readline()
"""


@asynccontextmanager
async def running(path: Path, poll_seconds: float = 60.0) -> AsyncIterator[SqliteStore]:
    """A started store. It is not to find others' writes by polling unless told to."""
    with Database(path) as database:
        store = SqliteStore(database, poll_seconds=poll_seconds)
        await store.start()
        try:
            yield store
        finally:
            await store.close()


def drive(path: Path, test: Callable[[SqliteStore], Awaitable[None]], **options: Any) -> None:
    """Run a test inside an event loop, with a time limit."""

    async def main() -> None:
        async with asyncio.timeout(60), running(path, **options) as store:
            await test(store)

    asyncio.run(main())


def writer_of(store: SqliteStore) -> sqlite3.Connection:
    assert store._group is not None
    return store._group._connection


def commits_of(store: SqliteStore) -> list[str]:
    """Collects the commits of the store from here on."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    writer_of(store).set_trace_callback(trace)
    return seen


def reports_of(store: SqliteStore) -> list[Change]:
    """Collects what the store reports."""
    seen: list[Change] = []
    store.subscribe(seen.extend)
    return seen


def test_it_is_a_store(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        port: Store = store
        made = await port.create(task("a"))
        made["spec"] = {"prompt": "other"}
        made = await port.update(made)
        made = await port.update_status({**made, "status": {"phase": "Running"}})
        assert port.get(key("a")) == made
        assert port.list("Task", "default", labels={}) == [made]
        assert made["metadata"]["generation"] == 2
        await port.delete(key("a"), uid=made["metadata"]["uid"])
        assert port.get(key("a")) is None

    drive(path, test)


def test_writes_are_durable_when_they_return(path: Path) -> None:
    async def test(store: SqliteStore) -> None:
        with Database(path) as other:
            for number in range(20):
                await store.create(task(f"t{number}"))
                assert other.get(key(f"t{number}")) is not None

    drive(path, test)


class TestGroupCommit:
    def test_concurrent_writes_share_commits(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            commits = commits_of(store)
            async with asyncio.TaskGroup() as group:
                for number in range(400):
                    group.create_task(store.create(task(f"t{number}")))
            assert len(store.list("Task")) == 400
            assert len(commits) <= 400 / group_commit.BATCH + 2

        drive(path, test)

    def test_so_do_chains_of_writes(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            async def chain(name: str) -> None:
                obj = await store.create(task(name))
                for number in range(10):
                    obj = await store.update_status({**obj, "status": {"number": number}})

            commits = commits_of(store)
            await asyncio.gather(*[chain(f"t{number}") for number in range(20)])
            assert {obj["status"]["number"] for obj in store.list("Task")} == {9}
            assert len(commits) <= 60, "of 220 writes"

        drive(path, test)

    def test_one_that_fails_does_not_disturb_the_others(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            made = await store.create(task("a"))
            stale = {**made, "spec": {"stale": True}}
            await store.update({**made, "spec": {"n": 1}})
            commits = commits_of(store)
            results = await asyncio.gather(
                store.create(task("b")),
                store.update(stale),
                store.delete(key("absent")),
                store.create(task("c")),
                return_exceptions=True,
            )
            assert isinstance(results[1], Conflict)
            assert isinstance(results[2], NotFound)
            assert len(commits) == 1
            assert names(store.list("Task")) == ["a", "b", "c"]
            assert store.list("Task")[0]["spec"] == {"n": 1}

        drive(path, test)

    def test_in_the_order_they_were_asked_for(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            made = await store.create(task("a"))
            first, second = await asyncio.gather(
                store.update_status({**made, "status": {"n": 1}}),
                store.update_status({**made, "status": {"n": 2}}),
                return_exceptions=True,
            )
            assert isinstance(first, dict) and first["status"] == {"n": 1}
            assert isinstance(second, Conflict), "the first has changed the object"

        drive(path, test)

    def test_what_is_queued_does_not_change_with_its_source(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            obj = task("a", {"list": [1]})
            creation = asyncio.ensure_future(store.create(obj))
            await asyncio.sleep(0)
            obj["spec"]["list"].append(2)
            assert (await creation)["spec"] == {"list": [1]}

        drive(path, test)

    def test_what_is_no_json_fails_alone(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            results = await asyncio.gather(
                store.create(task("a", {"x": object()})),
                store.create(task("b", {"x": float("nan")})),
                store.create(task("c")),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [TypeError, ValueError, dict]

        drive(path, test)

    def test_a_cancelled_wait_leaves_the_store_working(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            waiting = asyncio.ensure_future(store.create(task("a")))
            await asyncio.sleep(0)
            waiting.cancel()
            await store.create(task("b"))
            assert "b" in names(store.list("Task"))

        drive(path, test)

    def test_others_that_write_are_waited_for_without_stopping_the_loop(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(store.create(task("a")))
            for _ in range(20):
                began = time.monotonic()
                await asyncio.sleep(0.002)
                assert time.monotonic() - began < 5.0, "the loop stood still"
            assert not waiting.done()
            other.execute("COMMIT")
            other.close()
            await waiting

        drive(path, test)

    def test_others_that_never_end_are_not_waited_for(self, path: Path) -> None:
        async def main() -> None:
            with Database(path, busy_seconds=0.05) as database:
                store = SqliteStore(database)
                await store.start()
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreUnavailable, match="another process is writing"):
                    await store.create(task("a"))
                other.close()
                await store.create(task("a"))
                await store.close()

        asyncio.run(main())


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


class TestTrouble:
    def test_a_full_disk_in_a_batch(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            await store.create(task("a"))
            seen = reports_of(store)
            writer = writer_of(store)
            pages = writer.execute("PRAGMA page_count").fetchone()[0]
            writer.execute(f"PRAGMA max_page_count = {pages + 3}")
            store.record_event(key("a"), "Normal", "Kept", "for later")
            results = await asyncio.gather(
                *[store.create(task(f"t{n}", {"prompt": "x" * 9000})) for n in range(8)],
                store.create(task("a")),
                return_exceptions=True,
            )
            assert {type(result).__name__ for result in results[:8]} == {"StoreUnavailable"}
            assert all("no space left" in str(result) for result in results[:8])
            assert names(store.list("Task")) == ["a"]
            assert seen == []
            writer.execute("PRAGMA max_page_count = 1000000")
            made = await store.create(task("b"))
            assert made["metadata"]["resourceVersion"] == "2", "nothing is half written"
            assert [event.reason for event in store._database.events()] == ["Kept"]
            assert [change.key.name for change in seen] == ["b"]

        drive(path, test)

    def test_a_commit_that_fails(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            def refuse(action: int, *_: object) -> int:
                ends = action == sqlite3.SQLITE_TRANSACTION and _[0] == "COMMIT"
                return sqlite3.SQLITE_DENY if ends else sqlite3.SQLITE_OK

            writer_of(store).set_authorizer(refuse)
            with pytest.raises(StoreUnavailable):
                await store.create(task("a"))
            writer_of(store).set_authorizer(None)
            await store.create(task("a"))
            assert len(store.list("Task")) == 1

        drive(path, test)

    def test_closing_ends_in_spite_of_trouble(self, path: Path) -> None:
        async def main() -> None:
            with Database(path, busy_seconds=0.01) as database:
                store = SqliteStore(database)
                await store.start()
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("BEGIN IMMEDIATE")
                store.record_event(key("a"), "Normal", "Lost", "never written")
                waiting = asyncio.ensure_future(store.create(task("a")))
                await asyncio.sleep(0)
                await asyncio.wait_for(store.close(), 10)
                with pytest.raises(StoreUnavailable):
                    await waiting
                other.close()

        asyncio.run(main())

    def test_closing_writes_what_is_queued(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            waiting = [asyncio.ensure_future(store.create(task(f"t{n}"))) for n in range(300)]
            await asyncio.sleep(0)
            await store.close()
            assert len(await asyncio.gather(*waiting)) == 300
            with pytest.raises(StoreUnavailable, match="the store is closed"):
                await store.create(task("late"))
            store.record_event(key("a"), "Normal", "Late", "is logged")

        drive(path, test)

    def test_orphans_are_collected(self, path: Path) -> None:
        async def test(store: SqliteStore) -> None:
            gone = await store.create(project("p"))
            await store.delete(Key("Project", "default", "p"))
            await store.create(task("a", owner=gone))
            assert await store.collect_orphans() == 1
            assert store.list("Task") == []

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
