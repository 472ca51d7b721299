"""SqliteStore: asynchronous use, group commit, trouble with the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from controller.store import group_commit
from controller.store.base import Conflict, Key, NotFound, Store, StoreUnavailable
from controller.store.database import Database
from controller.store.sqlite import SqliteStore
from tests.store.driven import commits_of, drive, reports_of, writer_of
from tests.store.helpers import key, names, project, task


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
