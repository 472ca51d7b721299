"""Prices of models: how names match, what goes before what, and the built-in list."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.price_list import AS_OF, built_in
from controller.resources.prices import ModelPrice, Prices, price_key, spellings

PRICES = Prices({}, built_in())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-5.4", "gpt-5.4"),
        ("GPT_5_4", "gpt-5.4"),
        ("gpt-5.4-2026-03-05", "gpt-5.4"),
        ("gpt-5.4-mini", "gpt-5.4-mini"),
        ("openai/gpt-5.4", "gpt-5.4"),
        ("claude-sonnet-5-5-20260101", "claude-sonnet-5-5"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("claude-sonnet-5-5[1m]", "claude-sonnet-5-5"),
        ("openrouter/anthropic/claude-opus-5-5", "claude-opus-5-5"),
        ("us.anthropic.claude-opus-5-5-20260101-v1:0", "claude-opus-5-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("Claude Opus 5.5", "claude-opus-5-5"),
    ],
)
def test_one_model_is_found_under_many_names(name: str, model: str) -> None:
    found = PRICES.find(name)
    assert found is not None and found.name == model


@pytest.mark.parametrize(
    "name", ["", "-", "gpt-5.4-fancy", "gpt-5.4-20261", "gpt-99", "mock", "claude", "(unknown)"]
)
def test_another_model_has_no_price(name: str) -> None:
    assert PRICES.find(name) is None


def test_the_configuration_goes_before_the_list() -> None:
    own = ModelPrice(Decimal(7), Decimal(9), name="GPT-5.4")
    prices = Prices({price_key("GPT-5.4"): own}, built_in())
    assert prices.find("gpt-5.4") is own and prices.find("gpt-5.4-2026-03-05") is own
    assert prices.configured("openai/gpt-5.4") and not prices.configured("gpt-5.5")
    assert prices.find("gpt-5.5") is built_in()["gpt55"]
    exact = Prices({price_key("gpt-5.4-2026-03-05"): own}, built_in())
    assert exact.find("gpt-5.4-2026-03-05") is own
    assert exact.find("gpt-5.4") is built_in()["gpt54"]


def test_the_built_in_list() -> None:
    assert AS_OF.startswith("20")
    for model in ("gpt-5.4", "gpt-5.5", "gpt-5.4-mini", "claude-opus-5-5", "claude-sonnet-5-5"):
        assert price_key(model) in built_in()
    for price in built_in().values():
        assert 0 < price.input < price.output, price
        assert price.cached_input is None or 0 < price.cached_input < price.input, price
        assert price.cache_write is None or price.input < price.cache_write < price.output, price


@given(st.text(max_size=400))
def test_any_name_can_be_looked_up(name: str) -> None:
    keys = list(spellings(name))
    assert keys[0] == price_key(name)
    assert PRICES.find(name) is PRICES.find(name)
