"""What a swarm's machines cost: the books of those that run, and of those that have ended.

A machine is in the books once: it runs, or its seconds are part of a sum.  The books are kept in a
status, and every look at what there is gives new ones; a look may be repeated, may lack machines
that are there all the same, and may have been the last for hours.  All times are whole seconds
since the epoch; a second that was begun counts.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from controller.domain.cost import EXACT, NO_COST, UNPRICED, parse, text

LEAST_SECONDS = 60
"""What is paid for at least, for each machine."""
MISSING_SECONDS = 7200
"""A machine that is not listed for so long has ended; until then it may be listed again."""
APART_SECONDS = 1800
"""Looks that are further apart tell nothing of the time between them."""
LISTED_SECONDS = 7200
"""One that ended longer ago is not counted any more when it is first heard of: so long, at least,
it is known which were counted."""
MAX_KINDS = 50
OTHER = "other"
"""Stands for the kinds that a bounded list has no room for."""
SPOT = "spot:"
_HOUR = Decimal(3600)
_STEP = Decimal("1e-9")

Prices = Mapping[str, Decimal]
"""US dollars an hour, by kind."""


class Listed(NamedTuple):
    """A machine as its provider tells of it."""

    id: str
    kind: str
    since: int
    until: int | None = None


class Running(NamedTuple):
    """A machine that had not ended when it was last seen."""

    id: str
    kind: str
    since: int
    seen: int | None = None
    """When it was seen last, if it is not listed (any more)."""
    missed: int | None = None
    """When it was not listed for the first time since."""


class Ended(NamedTuple):
    """A sum of machines of one kind that have ended; those with and without a price are two."""

    kind: str
    seconds: int
    cost: Decimal | None
    """US dollars, with the prices at their ends; None: there was none."""


@dataclass(frozen=True, slots=True)
class Books:
    """What is known of a swarm's machines."""

    running: tuple[Running, ...] = ()
    """By id."""
    ended: tuple[Ended, ...] = ()
    """By kind."""
    counted: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Ids of machines that are in ``ended`` and may be listed still, and when they got there."""
    as_of: int = 0
    """When there was a look last: those that run count up to then."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What machines come to."""

    seconds: int = 0
    cost: Decimal = NO_COST
    """US dollars of what has a price."""
    unpriced: tuple[str, ...] = ()
    """Kinds without one, sorted."""
    priced: bool = False
    """Whether anything has a price."""

    @property
    def shown(self) -> str:
        """As ``costUsd`` says it: ``"1.25"``, ``"unpriced"``, or ``"1.25 + unpriced"``."""
        known = [text(self.cost)] if self.priced else []
        return " + ".join(known + ([UNPRICED] if self.unpriced else []))

    @property
    def hours(self) -> str:
        """With two digits after the point."""
        return format((Decimal(self.seconds) / _HOUR).quantize(Decimal("0.01")), "f")


NO_BILL = Bill()


def bill_of_status(stored: Mapping[str, Any]) -> Bill:
    """The cost that ``status.machines`` of a Swarm says; its seconds are not taken from there."""
    cost = parse(stored.get("costUsd"))
    return Bill(
        cost=cost or NO_COST,
        unpriced=tuple(stored.get("unpriced") or ()),
        priced=cost is not None,
    )


def price_of(kind: str, prices: Prices) -> Decimal | None:
    """The price of a kind; of a spot machine without one of its own that of its type."""
    found = prices.get(kind)
    return prices.get(kind.removeprefix(SPOT)) if found is None else found


def _paid(since: int, until: int) -> int:
    return max(LEAST_SECONDS, until - since)


def _cost(seconds: int, price: Decimal | None) -> Decimal | None:
    if price is None:
        return None
    exact = EXACT.divide(EXACT.multiply(Decimal(seconds), price), _HOUR)
    return exact.quantize(_STEP, rounding=decimal.ROUND_HALF_EVEN, context=EXACT)


def look(books: Books, listed: Iterable[Listed], now: int, prices: Prices) -> Books:
    """The books after a look at a swarm's machines.

    Args:
        books: as they were.
        listed: what the provider tells of now.
        now: when.
        prices: those of today; what has ended keeps the price that it got.
    """
    found = {one.id: one for one in listed}
    now = max(now, books.as_of)  # a clock that was set back takes nothing away
    ended, counted = _by_kind(_priced(books.ended, prices)), dict(books.counted)
    running = []
    apart = now - books.as_of > APART_SECONDS  # what was missed then is not known to be gone

    def close(one: Running, until: int) -> None:
        counted[one.id] = now
        _add(ended, one, until, prices)

    known = {one.id: one for one in books.running}
    for one in books.running:
        there = found.get(one.id)
        if there is None:
            seen = books.as_of if one.seen is None else one.seen
            missed = now if one.missed is None or apart else one.missed
            if now - missed < MISSING_SECONDS:
                running.append(one._replace(seen=seen, missed=missed))
            else:
                close(one, seen)
        elif there.until is None:
            running.append(one._replace(seen=None, missed=None))
        else:
            close(one, there.until)
    for there in found.values():
        if there.id in known or there.id in counted:
            continue
        new = Running(there.id, there.kind, there.since)
        if there.until is None:
            running.append(new)
        elif now - there.until < LISTED_SECONDS:
            close(new, there.until)
    kept = {id: at for id, at in counted.items() if id in found or now - at < LISTED_SECONDS}
    return Books(tuple(sorted(running)), _bounded(ended), MappingProxyType(kept), now)


def close(books: Books, prices: Prices) -> Books:
    """The books when there is nobody left to look: what has not ended did when it was seen last."""
    ended = _by_kind(_priced(books.ended, prices))
    for one in books.running:
        _add(ended, one, books.as_of if one.seen is None else one.seen, prices)
    return replace(books, running=(), ended=_bounded(ended))


def bill(books: Books, prices: Prices) -> Bill:
    """What all of them come to, those that run up to the last look."""
    rows = list(_priced(books.ended, prices))
    for one in books.running:
        seconds = _paid(one.since, books.as_of if one.seen is None else one.seen)
        rows.append(Ended(one.kind, seconds, _cost(seconds, price_of(one.kind, prices))))
    cost = NO_COST
    for row in rows:
        cost = EXACT.add(cost, row.cost or NO_COST)
    return Bill(
        seconds=sum(row.seconds for row in rows),
        cost=cost,
        unpriced=tuple(sorted({row.kind for row in rows if row.cost is None})),
        priced=any(row.cost is not None for row in rows),
    )


_Sums = dict[tuple[str, bool], Ended]


def _by_kind(rows: Iterable[Ended]) -> _Sums:
    sums: _Sums = {}
    for row in rows:
        _sum(sums, row)
    return sums


def _sum(sums: _Sums, row: Ended) -> None:
    at = (row.kind, row.cost is not None)
    before = sums.get(at)
    if before is not None:
        cost = None if row.cost is None else EXACT.add(before.cost or NO_COST, row.cost)
        row = Ended(row.kind, before.seconds + row.seconds, cost)
    sums[at] = row


def _add(sums: _Sums, one: Running, until: int, prices: Prices) -> None:
    seconds = _paid(one.since, until)
    _sum(sums, Ended(one.kind, seconds, _cost(seconds, price_of(one.kind, prices))))


def _priced(rows: Iterable[Ended], prices: Prices) -> Iterable[Ended]:
    """What had no price gets one as soon as there is one."""
    for row in rows:
        if row.cost is None:
            yield row._replace(cost=_cost(row.seconds, price_of(row.kind, prices)))
        else:
            yield row


def _bounded(sums: _Sums) -> tuple[Ended, ...]:
    rows = [sums[at] for at in sorted(sums, key=lambda at: (at[0] == OTHER, at))]
    if len(rows) <= MAX_KINDS:
        return tuple(rows)
    kept, rest = rows[: MAX_KINDS - 2], rows[MAX_KINDS - 2 :]
    other = _by_kind(row._replace(kind=OTHER) for row in rest)
    return (*kept, *(other[at] for at in sorted(other)))
