"""What usage costs: prices by class of token, and sums that stay exact however they are made."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.cost import (
    NOTHING,
    Agent,
    Part,
    Spent,
    cost_of,
    parse,
    price_label,
    priced,
    put,
    shown,
    spent_of_row,
    spent_of_rows,
    text,
    to_rows,
    total,
)
from controller.domain.usage import Usage, to_status
from controller.resources.price_list import built_in
from controller.resources.prices import ModelPrice, Prices

PRICES = Prices({}, built_in())
amounts = st.decimals(0, 10**9, allow_nan=False, places=9)
counts = st.integers(0, 2**53)
usages = st.builds(Usage, *[st.integers(0, 10**12)] * 6)
parts = st.tuples(st.sampled_from(["a", "b", "c", ""]), st.booleans()).map(lambda p: Part(*p))


@st.composite
def spents(draw: st.DrawFn) -> Spent:
    found = {}
    for part in draw(st.lists(parts, max_size=4, unique=True)):
        usage = draw(usages)
        if usage:
            found[part] = usage, draw(amounts) if part.priced else Decimal(0)
    return Spent(found)


def test_each_class_of_token_has_its_price() -> None:
    price = ModelPrice(
        Decimal("10"), Decimal("40"), cached_input=Decimal("1"), cache_write=Decimal("12.5")
    )
    used = Usage(
        input=1_000_000, cached_input=400_000, cache_write=100_000, output=500_000,
        reasoning_output=200_000,
    )  # fmt: skip
    assert cost_of(used, price) == Decimal("5") + Decimal("0.4") + Decimal("1.25") + Decimal("20")
    dearer = ModelPrice(Decimal("10"), Decimal("40"), reasoning_output=Decimal("100"))
    assert cost_of(used, dearer) == Decimal("10") + Decimal("12") + Decimal("20")


def test_a_turn_costs_what_the_agent_itself_says() -> None:
    """Figures that Claude Code told for 1000 tokens, 200 of the cache and 50 of output."""
    used = Usage(input=1200, cached_input=200, output=50, total=1250)
    for model, cost in (("claude-sonnet-5-5", "0.00252"), ("claude-opus-5-5", "0.00504")):
        price = PRICES.find(model)
        assert price is not None and text(cost_of(used, price)) == cost


@given(st.tuples(*[counts] * 5), st.tuples(*[amounts] * 5))
def test_arithmetic_is_exact(tokens: tuple[int, ...], each: tuple[Decimal, ...]) -> None:
    plain, cached, written, out, thought = tokens
    used = Usage(plain + cached + written, cached, written, out + thought, thought, 0)
    price = ModelPrice(each[0], each[3], each[1], each[2], each[4])
    true = sum(Fraction(cost) * count for cost, count in zip(each, tokens, strict=True))
    assert Fraction(cost_of(used, price)) == true / 10**6
    assert len(text(cost_of(used, price))) <= 48


@given(amounts)
def test_an_amount_has_one_form(amount: Decimal) -> None:
    shown_as = text(amount)
    assert parse(shown_as) == amount
    assert text(amount * Decimal("1.000")) == shown_as
    assert "E" not in shown_as and not ("." in shown_as and shown_as.endswith("0"))


@pytest.mark.parametrize("value", ["unpriced", "", None, 1.5, "NaN", "Infinity", "1,5", "$1"])
def test_what_is_no_amount(value: object) -> None:
    assert parse(value) is None


@given(spents(), spents(), spents())
def test_sums_do_not_depend_on_their_order(a: Spent, b: Spent, c: Spent) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert (a + b) - b == a
    assert (a - a) == NOTHING and not (a - a)
    assert total([a, b, c]).usage == a.usage + b.usage + c.usage


@given(st.lists(spents(), max_size=5), st.integers(2, 12))
def test_rows_of_a_status_keep_the_sum(found: list[Spent], limit: int) -> None:
    spent = total(found)
    rows = to_rows(spent, limit)
    assert len(rows) <= limit
    again = spent_of_rows(rows)
    assert (again.usage, again.cost) == (spent.usage, spent.cost)
    assert bool(again.unpriced) == bool(spent.unpriced)
    if len(spent.parts) <= limit:
        assert again == spent
    priced_only = [row for row in rows if "costUsd" in row]
    assert spent_of_rows(priced_only).cost == spent.cost


def row(model: str, cost: str | None = None, **more: object) -> dict[str, object]:
    cost_field = {} if cost is None else {"costUsd": cost}
    return {"model": model, **to_status(Usage(input=10, total=10)), **cost_field, **more}


@pytest.mark.parametrize(
    ("rows", "cost", "label"),
    [
        ([], None, None),
        ([row("m", "0.5")], "0.5", "m"),
        ([row("m", "0.5"), row("m", "0.50")], "1", "m"),
        ([row("m", "0.5", pricingModel="n")], "0.5", "n"),
        ([row("m", "0.5"), row("n", "1")], "1.5", "mixed"),
        ([row("m", "0")], "0", "m"),
        ([row("m")], "unpriced", "unpriced"),
        ([row("m"), row("n")], "unpriced", "unpriced"),
        ([row("m", "0.5"), row("n")], "0.5 + unpriced", "mixed"),
        ([row("m", "0.5"), row("m")], "0.5 + unpriced", "mixed"),
        ([{"model": "m"}], None, None),
    ],
)
def test_how_status_says_it(
    rows: list[dict[str, object]], cost: str | None, label: str | None
) -> None:
    status: dict[str, object] = {"costUsd": "9", "pricingModel": "old"}
    spent = spent_of_rows(rows)
    put(status, spent)
    assert (status.get("costUsd"), status.get("pricingModel")) == (cost, label)
    if cost is not None and cost != "unpriced":
        assert parse(shown(spent)) == spent.cost


CONFIGURED = Prices({"own": ModelPrice(Decimal(1), Decimal(1), name="own")}, built_in())


@pytest.mark.parametrize(
    ("reported", "agent", "label"),
    [
        ("gpt-5.5", Agent("codex", "gpt-5.5", "gpt-5.4"), "gpt-5.4"),
        ("gpt-5.5", Agent("codex", "gpt-5.5"), "gpt-5.5"),
        ("", Agent("codex", "gpt-5.5"), "gpt-5.5"),
        ("gpt-5.5", Agent("codex"), "gpt-5.4"),
        ("", Agent("codex"), "gpt-5.4"),
        ("own", Agent("codex"), "own"),
        ("claude-haiku-4-5", Agent("claude", "claude-opus-5-5"), "claude-haiku-4-5"),
        ("alias", Agent("claude", profile_model="claude-opus-5-5"), "claude-opus-5-5"),
        ("", Agent("claude", profile_model="claude-opus-5-5"), "claude-opus-5-5"),
        ("claude-haiku-4-5", Agent("claude", profile_model="claude-opus-5-5"), "claude-haiku-4-5"),
        ("gpt-5.5", Agent("codex", profile_model="gpt-5.5"), "gpt-5.5"),
        ("claude-sonnet-5-5", Agent("claude"), "claude-sonnet-5-5"),
        ("mock", Agent("mock"), "mock"),
        ("", Agent(), ""),
    ],
)
def test_under_which_name_a_price_is_looked_up(reported: str, agent: Agent, label: str) -> None:
    assert price_label(reported, agent, CONFIGURED) == label


def test_a_row_gets_its_cost_and_the_name_of_its_price() -> None:
    plain = row("gpt-5.4", session="s")
    assert priced(plain, Agent(), PRICES) == {**plain, "costUsd": "0.000025"}
    dated = row("gpt-5.4-2026-03-05")
    found = priced(dated, Agent(), PRICES)
    assert (found["pricingModel"], found["costUsd"]) == ("gpt-5.4", "0.000025")
    unknown = priced(row("nobody-s", "3"), Agent(), PRICES)
    assert "costUsd" not in unknown and "pricingModel" not in unknown
    labelled = priced(row("nobody-s"), Agent(pricing_model="also-unknown"), PRICES)
    assert labelled["pricingModel"] == "also-unknown" and "costUsd" not in labelled
    assert spent_of_row(labelled).unpriced == ("also-unknown",)
    assert spent_of_row(row("")).unpriced == ("(unknown)",)
