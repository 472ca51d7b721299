"""The controller's store on ``state.db``: awaited writes that share commits, and subscriptions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from controller.store.base import Change, Key, Resource, StoreUnavailable
from controller.store.database import Database
from controller.store.events import happening
from controller.store.group_commit import GroupWriter
from controller.store.rows import checked, draft_of, status_draft_of
from controller.store.transaction import stamp
from controller.store.wake import WakePipe

log = logging.getLogger(__name__)

Subscriber = Callable[[Iterable[Change]], None]
# Named, since within the class ``list`` is a method.
_Changes = list[Change]
_Subscribers = list[Subscriber]


class SqliteStore:
    """``controller.store.base.Store`` on a Database, for use within one running event loop.

    Args:
        database: the reading side; stays the caller's to close, after ``close``.
        poll_seconds: how often other processes' writes are looked for without a hint.
    """

    def __init__(self, database: Database, *, poll_seconds: float = 1.0) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._subscribers: _Subscribers = []
        self._group: GroupWriter | None = None
        self._pipe: WakePipe | None = None

    async def start(self) -> None:
        """Begin to write and to watch. Changes are reported from here on.

        Raises:
            StoreUnavailable: the state cannot be opened.
        """
        database = self._database
        self._group = GroupWriter(
            database.path,
            busy_seconds=database.busy_seconds,
            poll_seconds=self._poll_seconds,
            clock=database.clock,
            report=self._report,
        )
        try:
            self._pipe = WakePipe(database.path.parent)
        except OSError as error:
            log.warning("no wake-up hints (%s): other processes' writes are seen later", error)
        else:
            asyncio.get_running_loop().add_reader(self._pipe.fd, self._on_hint)

    async def close(self) -> None:
        """Write what is queued, then stop."""
        group, self._group = self._group, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            asyncio.get_running_loop().remove_reader(pipe.fd)
            pipe.close()
        if group is not None:
            await group.close()

    # --- reads -------------------------------------------------------------------------------

    def get(self, key: Key) -> Resource | None:
        """As ``Reader.get``."""
        return self._database.get(key)

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Resource]:
        """As ``Reader.list``."""
        return self._database.list(kind, namespace, owner_uid=owner_uid, labels=labels)

    # --- writes ------------------------------------------------------------------------------

    async def create(self, obj: Resource) -> Resource:
        """As ``Store.create``; status is ignored, as by the API server."""
        draft = draft_of(obj)
        return await self._writer.submit(lambda transaction: transaction.create(draft))

    async def update(self, obj: Resource) -> Resource:
        """As ``Store.update``."""
        draft = draft_of(obj)
        return await self._writer.submit(lambda transaction: transaction.update(draft))

    async def update_status(self, obj: Resource) -> Resource:
        """As ``Store.update_status``."""
        draft = status_draft_of(obj)
        return await self._writer.submit(lambda transaction: transaction.update_status(draft))

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """As ``Store.delete``."""
        checked(key)
        await self._writer.submit(lambda transaction: transaction.delete(key, uid))

    async def collect_orphans(self) -> int:
        """As ``Database.collect_orphans``."""
        return await self._writer.submit(lambda transaction: transaction.collect_orphans())

    def record_event(self, key: Key, type: str, reason: str, message: str) -> None:
        """As ``Store.record_event``."""
        if self._group is None:
            log.warning("event %s of %s was not recorded: the store is closed", reason, key)
            return
        at = stamp(self._database.clock())
        self._group.record(happening(key, type, reason, message, at))

    def subscribe(self, callback: Subscriber) -> None:
        """As ``Store.subscribe``; what a callback raises is logged."""
        self._subscribers.append(callback)

    @property
    def _writer(self) -> GroupWriter:
        if self._group is None:
            raise StoreUnavailable("the store is closed")
        return self._group

    def _report(self, changes: _Changes) -> None:
        for callback in self._subscribers:
            try:
                callback(changes)
            except Exception:
                log.exception("a subscriber failed; changes: %s", changes)

    def _on_hint(self) -> None:
        if self._pipe is not None and self._group is not None:
            self._pipe.drain()
            self._group.wake()
