"""A SqliteStore inside an event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controller.store.base import Change
from controller.store.database import Database
from controller.store.sqlite import SqliteStore


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
