"""Group commit: writes that are asked for while one commit runs share the next one.

Statements run on the event loop's thread, where they take microseconds; only the commit, which
waits for the disk, runs in another thread, while the next batch gathers.  (Statements in a
second thread would pass Python's global lock back and forth several times each, and under load
wait milliseconds for it every time.)
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from controller.store.base import Change, StoreError, StoreUnavailable
from controller.store.connection import connect, is_busy, unavailable
from controller.store.events import Happening
from controller.store.rows import read_changes, read_meta
from controller.store.transaction import Transaction

BATCH = 128
"""Most operations in one commit: bounds how long a batch keeps the event loop."""
EVENT_SECONDS = 0.2
"""How long an event waits for a commit to go with."""
EVENTS_WAITING = 1000

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Operation:
    work: Callable[[Transaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class GroupWriter:
    """The one writing connection of a running controller.

    Made inside the event loop in which it is used.

    Args:
        path: of the state file, which exists.
        busy_seconds: how long to wait while another process writes.
        poll_seconds: how often other processes' commits are looked for unless ``wake`` is called.
        clock: seconds since the epoch, for stamps.
        report: called in the event loop with every change, whoever made it.

    Raises:
        StoreUnavailable: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float,
        poll_seconds: float,
        clock: Callable[[], float],
        report: Callable[[list[Change]], None],
    ) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Operation] = deque()
        self._events: deque[Happening] = deque(maxlen=EVENTS_WAITING)
        self._events_due: asyncio.TimerHandle | None = None
        self._wanted = asyncio.Event()
        self._closing = False
        self._data_version = -1
        try:
            # It never waits inside SQLite, which would stop the event loop: see _begin.
            self._connection = connect(path, 0.0)
        except sqlite3.Error as error:
            raise unavailable(path, error) from error
        try:
            self._seen = read_meta(self._connection, "revision")
        except sqlite3.Error as error:
            self._connection.close()
            raise unavailable(path, error) from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="codeswarm-commit")
        self._task = self._loop.create_task(self._run(), name="codeswarm-store")

    async def submit(self, work: Callable[[Transaction], Result]) -> Result:
        """Carry out ``work`` in the next transaction; what it returns, once that is durable.

        Raises:
            StoreError: whatever ``work`` raised, or StoreUnavailable if the commit failed.
        """
        if self._closing:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.append(_Operation(work, future))
        self._wanted.set()
        return await future

    def record(self, event: Happening) -> None:
        """Write an event with the next commit, or with one of its own a little later."""
        self._events.append(event)
        if self._events_due is None:
            self._events_due = self._loop.call_later(EVENT_SECONDS, self._wanted.set)

    def wake(self) -> None:
        """Look at once for what other processes have committed."""
        self._wanted.set()

    async def close(self) -> None:
        """Write what is queued, then stop."""
        self._closing = True
        self._wanted.set()
        await self._task
        if self._events_due is not None:
            self._events_due.cancel()
        self._thread.shutdown()
        self._connection.close()

    async def _run(self) -> None:
        while not (self._closing and not self._queue and not self._events):
            if not self._queue:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._wanted.wait()
            self._wanted.clear()
            if self._queue or self._events:
                await self._commit_batch()
            self._look()

    async def _commit_batch(self) -> None:
        batch: list[_Operation] = []
        events: list[Happening] = []
        try:
            await self._begin()
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            events = self._take_events()
            changes = await self._write(batch, events)
        except Exception as error:
            self._fail(batch, events, error)
            return
        for operation in batch:
            _settle(operation)
        if changes:  # after those who wait for their own writes are told
            self._report(changes)

    def _take_events(self) -> list[Happening]:
        events = list(self._events)
        self._events.clear()
        if self._events_due is not None:
            self._events_due.cancel()
            self._events_due = None
        return events

    async def _begin(self) -> None:
        """Open the write transaction, waiting for other processes without stopping the loop."""
        deadline, pause = self._loop.time() + self._busy_seconds, 0.001
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.Error as error:
                if not is_busy(error) or self._loop.time() > deadline:
                    raise unavailable(self._path, error) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.02)

    async def _write(self, batch: list[_Operation], events: list[Happening]) -> list[Change]:
        """Carry out and commit; all changes since those last reported, others' included."""
        connection = self._connection
        try:
            transaction = Transaction(connection, self._clock)
            changes, _ = read_changes(connection, self._seen)
            for operation in batch:
                _carry_out(operation, transaction)
            for event in events:
                transaction.record(event)
            transaction.finish()
            await self._loop.run_in_executor(self._thread, connection.execute, "COMMIT")
        except sqlite3.Error as error:
            raise unavailable(self._path, error) from error
        finally:
            if connection.in_transaction:  # after an error; some end it by themselves
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
        self._seen = transaction.revision
        return changes + transaction.changes

    def _fail(self, batch: list[_Operation], events: list[Happening], error: Exception) -> None:
        if not isinstance(error, StoreError):
            log.error("writing to the store failed", exc_info=error)
        if not batch:  # it did not even begin
            batch = list(self._queue)
            self._queue.clear()
        for operation in batch:
            operation.error = operation.error or error
            _settle(operation)
        if self._closing:
            self._events.clear()
        else:
            self._events.extendleft(reversed(events))

    def _look(self) -> None:
        """Report what other connections have committed since the last look."""
        connection = self._connection
        try:
            # It changes with other connections' commits only, not with this one's.
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._data_version:
                return
            changes, self._seen = read_changes(connection, self._seen)
            self._data_version = version
        except sqlite3.Error as error:
            if not is_busy(error):
                log.warning("%s", unavailable(self._path, error))
            return
        if changes:
            self._report(changes)


def _carry_out(operation: _Operation, transaction: Transaction) -> None:
    if operation.future.cancelled():
        return
    try:
        operation.result = operation.work(transaction)
    except StoreError as error:  # this one's own: it has written nothing
        operation.error = error


def _settle(operation: _Operation) -> None:
    future = operation.future
    if future.done():  # nobody waits any more
        return
    if operation.error is None:
        future.set_result(operation.result)
    elif isinstance(operation.error, StoreUnavailable):
        future.set_exception(StoreUnavailable(str(operation.error)))
    else:
        future.set_exception(operation.error)
