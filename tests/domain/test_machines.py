"""The books of machines: each machine's seconds once, whatever looks see and writes are lost."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.machines import (
    LEAST_SECONDS,
    LISTED_SECONDS,
    MAX_KINDS,
    MISSING_SECONDS,
    Books,
    Ended,
    Listed,
    bill,
    close,
    look,
    price_of,
)

START = 1_760_000_000
PRICES = {"c7i.large": Decimal("0.09"), "c7i.xlarge": Decimal("0.18")}
KINDS = ("c7i.large", "spot:c7i.large", "c7i.xlarge", "strange")


def paid(machine):
    return max(LEAST_SECONDS, machine.until - machine.since)


@st.composite
def histories(draw):
    """Machines, and looks at them: each may lack some, and its write may be lost."""
    machines = []
    for number in range(draw(st.integers(1, 6))):
        since = START + draw(st.integers(0, 20_000))
        until = since + draw(st.one_of(st.integers(0, 90), st.integers(90, 30_000)))
        machines.append(Listed(f"i-{number}", draw(st.sampled_from(KINDS)), since, until))
    end = max(m.until for m in machines) + 1
    looks, now, before = [], START, set()
    while now < end:
        now += draw(st.integers(60, 9000))
        hidden = draw(st.sets(st.sampled_from([m.id for m in machines]), max_size=2))
        kept = draw(st.booleans())
        looks.append((now, hidden - before, kept))
        if kept:
            before = hidden - before
    return machines, looks, end


def seen(machines, now, hidden=()):
    """What is listed at a time: those that ended within the last hour too."""
    for one in machines:
        ended = one.until <= now
        if one.since <= now and one.id not in hidden and not (ended and now - one.until > 3600):
            yield one if ended else one._replace(until=None)


@given(history=histories(), again=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_each_second_counts_once(history, again):
    machines, looks, end = history
    books, told = Books(), set()
    for now, hidden, kept in looks:
        for _ in range(again):
            listed = list(seen(machines, now, hidden))
            if kept:
                books = look(books, listed, now, PRICES)
                told |= {one.id for one in listed if one.until is not None}
    last = max(end, looks[-1][0])
    for delay in (0, 60, 3600):  # the provider tells of all that ended within the last hour
        books = look(books, seen(machines, last + delay), last + delay, PRICES)
    heard = told | {m.id for m in machines if last - m.until <= 3600}
    for now in range(last + 3 * 3600, last + 10 * 3600, 600):
        books = look(books, [], now, PRICES)
    assert not books.running
    assert not books.counted, "nothing is remembered for ever"
    total = sum(row.seconds for row in books.ended)
    exact = sum(paid(m) for m in machines if m.id in heard)
    others = sum(paid(m) for m in machines if m.id not in heard)
    assert exact <= total <= exact + others
    if not others:
        assert total == exact
        assert bill(books, PRICES).seconds == exact


def test_a_machine_counts_while_it_runs_and_when_it_has_ended():
    one = Listed("i-1", "c7i.large", START)
    books = look(Books(), [one], START + 10, PRICES)
    assert bill(books, PRICES).seconds == 60, "the least that is paid for"
    books = look(books, [one], START + 3600, PRICES)
    found = bill(books, PRICES)
    assert (found.seconds, found.shown, found.hours) == (3600, "0.09", "1.00")
    books = look(books, [one._replace(until=START + 7200)], START + 7300, PRICES)
    assert books.running == ()
    assert books.ended == (Ended("c7i.large", 7200, Decimal("0.18")),)
    again = look(books, [one._replace(until=START + 7200)], START + 7400, PRICES)
    assert again.ended == books.ended


def test_one_that_is_not_listed_may_come_back():
    one = Listed("i-1", "c7i.large", START)
    books = look(Books(), [one], START + 100, PRICES)
    books = look(books, [], START + 200, PRICES)
    assert bill(books, PRICES).seconds == 100, "it counts up to when it was seen last"
    books = look(books, [], START + 5000, PRICES)
    assert bill(books, PRICES).seconds == 100
    books = look(books, [one], START + 6000, PRICES)
    assert bill(books, PRICES).seconds == 6000
    books = look(books, [], START + 50_000, PRICES)
    assert books.running, "it was missed only now"
    books = look(books, [], START + 50_000 + MISSING_SECONDS, PRICES)
    assert books.running, "who looks again after hours knows nothing of them"
    for now in range(58_000, 58_000 + MISSING_SECONDS, 600):
        books = look(books, [], START + now, PRICES)
    assert not books.running
    assert bill(books, PRICES).seconds == 6000
    books = look(books, [one], START + 66_000, PRICES)
    assert bill(books, PRICES).seconds == 6000, "what is counted is not counted again"


def test_one_that_came_and_went_between_two_looks_counts():
    one = Listed("i-1", "c7i.large", START, START + 500)
    assert bill(look(Books(), [one], START + 3000, PRICES), PRICES).seconds == 500
    late = START + 500 + LISTED_SECONDS
    assert not look(Books(), [one], late, PRICES).ended, "it may have been counted"


def test_without_a_price_there_is_none():
    books = look(Books(), [Listed("i-1", "strange", START)], START + 3600, PRICES)
    found = bill(books, PRICES)
    assert (found.shown, found.unpriced, found.priced) == ("unpriced", ("strange",), False)
    two = [Listed("i-1", "strange", START), Listed("i-2", "c7i.xlarge", START)]
    assert bill(look(books, two, START + 7200, PRICES), PRICES).shown == "0.36 + unpriced"
    books = close(books, PRICES)
    assert books.ended == (Ended("strange", 3600, None),)
    priced = {**PRICES, "strange": Decimal("1")}
    assert bill(books, priced).shown == "1"
    books = look(books, [], START + 8000, priced)
    assert books.ended == (Ended("strange", 3600, Decimal(1)),)
    assert bill(books, {}).shown == "1", "the past keeps its prices"


def test_a_spot_machine_costs_what_its_type_does_unless_it_has_a_price():
    assert price_of("spot:c7i.large", PRICES) == Decimal("0.09")
    assert price_of("spot:c7i.large", {**PRICES, "spot:c7i.large": Decimal("0.03")}) == Decimal(
        "0.03"
    )
    assert price_of("spot:strange", PRICES) is None


def test_a_clock_that_was_set_back_takes_nothing_away():
    one = Listed("i-1", "c7i.large", START)
    books = look(Books(), [one], START + 5000, PRICES)
    assert bill(look(books, [one], START + 100, PRICES), PRICES).seconds == 5000


def test_many_kinds_become_one():
    many = [Listed(f"i-{n}", f"k{n}.large", START, START + 100) for n in range(80)]
    prices = {f"k{n}.large": Decimal(36) for n in range(0, 80, 2)}
    books = look(Books(), many, START + 200, prices)
    more = [Listed(f"j-{n}", f"q{n}.large", START, START + 100) for n in range(80)]
    books = look(books, [*many, *more], START + 300, prices)
    assert len(books.ended) <= MAX_KINDS
    assert len({(row.kind, row.cost is None) for row in books.ended}) == len(books.ended)
    found = bill(books, prices)
    assert (found.seconds, found.cost) == (160 * 100, Decimal(40))
