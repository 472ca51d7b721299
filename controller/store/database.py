"""The file home's state as any process uses it: synchronous, safe with any number of others."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from controller.store.apply import Applied, ApplyRequest, Plan, plan
from controller.store.base import Change, Conflict, Events, Key, Resource, StoreError
from controller.store.connection import BUSY_SECONDS, Guard, connect
from controller.store.events import happening
from controller.store.filesystem import prepare_place
from controller.store.rows import (
    GET,
    draft_of,
    read_changes,
    read_events,
    read_list,
    read_meta,
    resource_of,
    status_draft_of,
)
from controller.store.schema import prepare
from controller.store.transaction import Transaction, stamp
from controller.store.wake import poke

_APPLY_ATTEMPTS = 20

# Named, since within the class ``list`` is a method.
ChangesAndRevision = tuple[list[Change], int]
AllApplied = list[Applied]

log = logging.getLogger(__name__)


class Database:
    """``state.db``: reads of committed state, and writes that are durable when they return.

    Semantics are those of ``controller.store.base``.  One thread at a time may use it; every
    thread and every process opens its own.

    Args:
        path: of the file; made with its directory where missing.
        busy_seconds: how long to wait while another process writes.
        clock: seconds since the epoch, for stamps.
        mountinfo: instead of ``/proc/self/mountinfo`` (for tests).

    Raises:
        StoreUnavailable: from every method, when the state cannot be read or written now; then
            nothing was changed.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] = time.time,
        mountinfo: str | None = None,
    ) -> None:
        self.path = path
        self.busy_seconds = busy_seconds
        self.clock = clock
        self._guard = Guard(path)
        prepare_place(path, mountinfo)
        with self._guard:
            self._connection = connect(path, busy_seconds)
            try:
                prepare(self._connection, path, busy_seconds)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. The instance cannot be used any more."""
        self._connection.close()

    # --- reads -------------------------------------------------------------------------------

    def get(self, key: Key) -> Resource | None:
        """As ``Reader.get``."""
        with self._guard:
            row = self._connection.execute(GET, key).fetchone()
        return None if row is None else resource_of(row)

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Resource]:
        """As ``Reader.list``."""
        with self._guard:
            return read_list(self._connection, kind, namespace, owner_uid, labels)

    def events(self, key: Key | None = None, namespace: str | None = None) -> Events:
        """As ``Reader.events``."""
        with self._guard:
            return read_events(self._connection, key, namespace)

    def data_version(self) -> int:
        """A number that differs from before when another connection has committed something."""
        with self._guard:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def revision(self) -> int:
        """The resourceVersion of the latest change: where ``changes_since`` may begin."""
        with self._guard:
            return read_meta(self._connection, "revision")

    def changes_since(self, revision: int) -> ChangesAndRevision:
        """What changed after ``revision``, in order, and the revision to ask from next.

        Deletions more than a day or 50,000 deletions ago are no longer known.
        """
        with self._guard:
            return read_changes(self._connection, revision)

    # --- writes ------------------------------------------------------------------------------

    def create(self, obj: Resource) -> Resource:
        """As ``Store.create``; status is ignored, as by the API server."""
        draft = draft_of(obj)
        with self._transaction() as transaction:
            return transaction.create(draft)

    def update(self, obj: Resource) -> Resource:
        """As ``Store.update``."""
        draft = draft_of(obj)
        with self._transaction() as transaction:
            return transaction.update(draft)

    def update_status(self, obj: Resource) -> Resource:
        """As ``Store.update_status``."""
        draft = status_draft_of(obj)
        with self._transaction() as transaction:
            return transaction.update_status(draft)

    def delete(self, key: Key, *, uid: str | None = None) -> None:
        """As ``Store.delete``."""
        with self._transaction() as transaction:
            transaction.delete(key, uid)

    def collect_orphans(self) -> int:
        """Delete objects whose owners are all gone; how many objects that concerned."""
        with self._transaction() as transaction:
            return transaction.collect_orphans()

    def record_event(self, key: Key, type: str, reason: str, message: str) -> None:
        """As ``Store.record_event``, written at once; a failure is logged and no more."""
        new = happening(key, type, reason, message, stamp(self.clock()))
        try:
            with self._transaction() as transaction:
                transaction.record(new)
        except StoreError as error:
            log.warning("event %s of %s was not recorded: %s", reason, key, error)

    def next_epoch(self) -> int:
        """A new epoch for a controller, higher than every one before."""
        with self._transaction():
            self._connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
            return read_meta(self._connection, "epoch")

    def apply(self, request: ApplyRequest, *, dry_run: bool = False) -> Applied:
        """``apply_many`` of one."""
        return self.apply_many([request], dry_run=dry_run)[0]

    def apply_many(self, requests: Sequence[ApplyRequest], *, dry_run: bool = False) -> AllApplied:
        """Make objects as their manifests say, all of them or none, in one transaction.

        Admission runs before the transaction, so that others can write meanwhile, and once
        more for objects that were changed until then.

        Raises:
            StoreError: two of the manifests name the same object.
            Conflict: others kept changing the same objects.
            Exception: whatever a request's ``admit`` raises.
        """
        plans: dict[int, Plan] = {}
        stale: Sequence[int] = range(len(requests))
        for _ in range(_APPLY_ATTEMPTS):
            with self._guard:
                plans |= {index: plan(self._connection, requests[index]) for index in stale}
            ordered = [plans[index] for index in range(len(requests))]
            _refuse_twins(ordered)
            if dry_run or not any(one.writes for one in ordered):
                return [Applied(one.resource, one.action) for one in ordered]
            with self._transaction() as transaction:
                stale = [
                    index
                    for index, one in enumerate(ordered)
                    if transaction.body_revision(one.key) != one.revision
                ]
                if not stale:
                    return [_carry_out(transaction, one) for one in ordered]
        raise Conflict(f"{plans[stale[0]].key} is being changed all the time: try again")

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        connection = self._connection
        with self._guard:
            connection.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(connection, self.clock)
                yield transaction
                transaction.finish()
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:  # after an error; some end it by themselves
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
        if transaction.changes:
            poke(self.path.parent)


def _carry_out(transaction: Transaction, one: Plan) -> Applied:
    if not one.writes:
        return Applied(one.resource, one.action)
    return Applied(transaction.apply(one.draft, one.manifest), one.action)


def _refuse_twins(plans: Sequence[Plan]) -> None:
    seen: set[Key] = set()
    for one in plans:
        if one.key in seen:
            raise StoreError(f"{one.key} is named by two manifests")
        seen.add(one.key)
