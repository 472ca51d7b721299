"""Keeps the books of a swarm's machines in its status (see ``domain.machines``).

A machine leaves the running ones and gets into the sum in one write.  What only goes on is written
every ten minutes: a status does not tick.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from controller.domain.cost import parse, text
from controller.domain.machines import (
    Bill,
    Books,
    Ended,
    Listed,
    Running,
    bill,
    close,
    look,
)
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import Context
from controller.reconcile.infos import everything_folded
from controller.reconcile.spending import put_cost
from controller.reconcile.sums import present
from controller.store.base import Resource, key_of
from providers.base import Machine, Provider, ProviderError, SwarmHandle

LOOK_SECONDS = 10.0
"""A provider that does not tell by then is asked another time."""
EVERY_SECONDS = 600
"""Between two writes that say only that machines run on."""
MAX_ROWS = 2000
MAX_ID, MAX_KIND = 128, 128


class Accounts:
    """One for all swarms of a controller."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._looked: dict[str, tuple[Mapping[str, Any], Books]] = {}
        """By uid: what was stored, and the books since then."""

    def forget(self, uid: str) -> None:
        """A swarm is gone."""
        self._looked.pop(uid, None)

    async def look(
        self, obj: Resource, provider: Provider, parameters: Mapping[str, Any] | None
    ) -> Resource:
        """Take in which machines a swarm has now; the swarm as it is stored then.

        Nothing changes where the provider cannot tell.

        Raises: Conflict, NotFound.
        """
        if not provider.rents:
            return obj
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await provider.machines(bare_handle(obj, parameters))
        except (ProviderError, TimeoutError):
            return obj
        before, prices = self._books(obj), self._ctx.settings.instance_pricing
        books = look(before, map(_listed, found), int(self._ctx.clock.now()), prices)
        self._looked[obj["metadata"]["uid"]] = (_stored(obj), books)
        due = _is_due(books_of(obj), books)
        if not due and books.running:  # a price may have come since, or gone
            now_unpriced = list(bill(books, prices).unpriced)
            due = now_unpriced != (_stored(obj).get("unpriced") or [])
        return await self._write(obj, books) if due else obj

    async def settle(
        self, obj: Resource, provider: Provider, parameters: Mapping[str, Any] | None
    ) -> None:
        """Close the books of a swarm whose machines are gone, and tell of them.

        Raises: Conflict, NotFound.
        """
        obj = await self.look(obj, provider, parameters)
        books = close(self._books(obj), self._ctx.settings.instance_pricing)
        if not books.ended:
            return
        await self._write(obj, books)
        total = bill(books, self._ctx.settings.instance_pricing)
        cost = f"{total.shown} USD" if total.priced else total.shown
        self._ctx.event(obj, "MachinesEnded", f"its machines ran {total.hours} hours: {cost}")

    def _books(self, obj: Resource) -> Books:
        """The books as of the last look; after a restart as they were stored."""
        stored, books = self._looked.get(obj["metadata"]["uid"], (None, Books()))
        return books if stored == _stored(obj) else books_of(obj)

    async def _write(self, obj: Resource, books: Books) -> Resource:
        status = dict(obj.get("status") or {})
        total = bill(books, self._ctx.settings.instance_pricing)
        status["machines"] = _to_status(books, total)
        spent = everything_folded(obj)
        spent += present(self._ctx.world, key_of(obj), status.get("foldedUids") or ())
        put_cost(status, spent, total)
        stored = await self._ctx.write_status(obj, status)
        self._looked[obj["metadata"]["uid"]] = (_stored(stored), books)
        return stored


def bare_handle(obj: Resource, parameters: Mapping[str, Any] | None) -> SwarmHandle:
    """A swarm's identity without what lets us in: that is not needed to ask for its machines."""
    meta = obj["metadata"]
    return SwarmHandle(meta["namespace"], meta["name"], meta["uid"], parameters or {})


def _is_due(stored: Books, books: Books) -> bool:
    """Whether the books say something else than those that are stored, or those are old."""
    if (stored.running, stored.ended) != (books.running, books.ended):
        return True
    return bool(books.running) and books.as_of - stored.as_of >= EVERY_SECONDS


def _listed(machine: Machine) -> Listed:
    """Every second that was begun counts."""
    until = None if machine.until is None else math.ceil(machine.until)
    return Listed(machine.id[:MAX_ID], machine.kind[:MAX_KIND], int(machine.since), until)


# --- as status has them ------------------------------------------------------------------------


def _stored(obj: Resource) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (obj.get("status") or {}).get("machines") or {}
    return found


def _time(value: str | None) -> int:
    return int(seconds_of(value) or 0)


def _or_none(value: str | None) -> int | None:
    return _time(value) if value else None


def books_of(obj: Resource) -> Books:
    """A swarm's books as they are stored; empty ones, where there are none."""
    stored = _stored(obj)
    running = [
        Running(
            row["id"],
            row["kind"],
            _time(row["since"]),
            seen=_or_none(row.get("seen")),
            missed=_or_none(row.get("missed")),
        )
        for row in stored.get("running") or ()
    ]
    ended = [
        Ended(row["kind"], row["seconds"], parse(row.get("costUsd")))
        for row in stored.get("ended") or ()
    ]
    counted = {row["id"]: _time(row["at"]) for row in stored.get("counted") or ()}
    return Books(
        tuple(sorted(running)), tuple(ended), MappingProxyType(counted), _time(stored.get("asOf"))
    )


def _to_status(books: Books, total: Bill) -> dict[str, Any]:
    newest = sorted(books.counted.items(), key=lambda item: -item[1])[:MAX_ROWS]
    return {
        "count": len(books.running),
        "hours": total.hours,
        "costUsd": total.shown,
        "asOf": stamp(books.as_of),
        **({"unpriced": list(total.unpriced)} if total.unpriced else {}),
        "running": [_running(one) for one in books.running[:MAX_ROWS]],
        "ended": [_ended(row) for row in books.ended],
        "counted": [{"id": id, "at": stamp(at)} for id, at in sorted(newest)],
    }


def _running(one: Running) -> dict[str, Any]:
    times = (("seen", one.seen), ("missed", one.missed))
    missing = {name: stamp(at) for name, at in times if at is not None}
    return {"id": one.id, "kind": one.kind, "since": stamp(one.since), **missing}


def _ended(row: Ended) -> dict[str, Any]:
    cost = {} if row.cost is None else {"costUsd": text(row.cost)}
    return {"kind": row.kind, "seconds": row.seconds, **cost}
