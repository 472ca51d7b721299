"""What was used and what it cost, by model: sums that can be added, taken away and folded.

Usage is priced row by row, a row being the tokens of one session and model.  What a row cost
stands beside its tokens from then on, so that a later price list does not rewrite the past, and
sums never depend on when they are made.  A row without a price has none: it is never zero.

All arithmetic is decimal and exact; see ``EXACT``.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from controller.domain.usage import ZERO, Usage, add, from_status, to_status
from controller.resources.prices import ModelPrice, Prices

EXACT = decimal.Context(prec=100, rounding=decimal.ROUND_HALF_EVEN)
"""Prices have 9 decimals for a million tokens, so sums 15: no sum of counts needs more digits."""
NO_COST = Decimal(0)
UNPRICED, MIXED, UNKNOWN = "unpriced", "mixed", "(unknown)"
OTHER = "other"
"""Stands for the models that a bounded list of rows has no room for."""
CODEX_MODEL = "gpt-5.4"
"""What Codex is priced as where nobody says which model it uses."""
_MILLION = Decimal(10**6)


class Part(NamedTuple):
    """Which part of a sum: one model, with or without a price."""

    model: str
    """As the price list spells it; of an unpriced one its own name, empty where nobody told."""
    priced: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """A sum of usage and cost, by model."""

    parts: Mapping[Part, tuple[Usage, Decimal]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __add__(self, other: Spent) -> Spent:
        if not self.parts or not other.parts:
            return self if self.parts else other
        return self._with(other, 1)

    def __sub__(self, other: Spent) -> Spent:
        return self._with(other, -1) if other.parts else self

    def _with(self, other: Spent, sign: int) -> Spent:
        parts = dict(self.parts)
        for part, (usage, cost) in other.parts.items():
            known, paid = parts.get(part, (ZERO, NO_COST))
            if sign > 0:
                parts[part] = known + usage, EXACT.add(paid, cost)
            else:
                parts[part] = known - usage, EXACT.subtract(paid, cost)
            if not any(parts[part]):
                del parts[part]
        return Spent(parts)

    @property
    def usage(self) -> Usage:
        """All tokens, class by class."""
        return add(usage for usage, _ in self.parts.values())

    @property
    def cost(self) -> Decimal:
        """US dollars of what has a price."""
        total = NO_COST
        for _, cost in self.parts.values():
            total = EXACT.add(total, cost)
        return total

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models without a price, sorted; an unnamed one is ``(unknown)``."""
        return tuple(sorted(p.model or UNKNOWN for p in self.parts if not p.priced))

    @property
    def label(self) -> str:
        """The model that all of it was priced as, ``mixed`` or ``unpriced``."""
        if not any(part.priced for part in self.parts):
            return UNPRICED
        return next(iter(self.parts)).model if len(self.parts) == 1 else MIXED


NOTHING = Spent()


def total(spents: Iterable[Spent]) -> Spent:
    """The sum of several."""
    result = NOTHING
    for spent in spents:
        result += spent
    return result


# --- prices ------------------------------------------------------------------------------------


def cost_of(used: Usage, price: ModelPrice) -> Decimal:
    """US dollars of some tokens.

    Cached input and cache writes are part of the input and taken out of it; reasoning is part of
    the output.  A class without a price of its own costs what its whole costs.
    """

    def of(own: Decimal | None, other: Decimal) -> Decimal:
        return other if own is None else own

    parts = (
        (max(0, used.input - used.cached_input - used.cache_write), price.input),
        (used.cached_input, of(price.cached_input, price.input)),
        (used.cache_write, of(price.cache_write, price.input)),
        (max(0, used.output - used.reasoning_output), price.output),
        (used.reasoning_output, of(price.reasoning_output, price.output)),
    )
    result = NO_COST
    for count, each in parts:
        result = EXACT.add(result, EXACT.multiply(Decimal(count), each))
    return EXACT.divide(result, _MILLION)


@dataclass(frozen=True, slots=True)
class Agent:
    """What a swarm says about the models that its agents use."""

    runtime: str = ""
    model: str = ""
    """As ``agent.model``, or the runtime's own configuration, names it."""
    pricing_model: str = ""
    profile_model: str = ""
    """The model that its environment profile leads to."""


def price_label(reported: str, agent: Agent, prices: Prices) -> str:
    """The name under which the price of some usage is looked up.

    ``agent.pricingModel``; else for Codex, where nobody names a model, ``gpt-5.4`` unless the
    configuration has a price for the one that it reports; else the model that the agent reports,
    or its profile's if that has no price, or ``agent.model`` if it reports none.

    Args:
        reported: the model that the usage was reported for; may be empty.
    """
    if agent.pricing_model:
        return agent.pricing_model
    named = agent.model or agent.profile_model
    if not named and agent.runtime == "codex" and not prices.configured(reported):
        return CODEX_MODEL
    if agent.profile_model and prices.find(reported) is None:
        return agent.profile_model
    return reported or named


# --- rows of a status --------------------------------------------------------------------------


def priced(row: Mapping[str, Any], agent: Agent, prices: Prices) -> dict[str, Any]:
    """A row of usage with its cost, if its model has a price, and the label of that.

    Args:
        row: ``{model, ...tokens}`` and more, which stays.
    """
    result = {k: v for k, v in row.items() if k not in ("costUsd", "pricingModel")}
    model = str(row.get("model", ""))
    label = price_label(model, agent, prices)
    price = prices.find(label)
    if price is not None:
        label = price.name or label
        result["costUsd"] = text(cost_of(from_status(row), price))
    if label != model:
        result["pricingModel"] = label
    return result


def spent_of_row(row: Mapping[str, Any]) -> Spent:
    """What one row of a status says."""
    usage = from_status(row)
    if not usage:
        return NOTHING
    cost = parse(row.get("costUsd"))
    model = str(row.get("pricingModel") or row.get("model") or "")
    return Spent({Part(model, cost is not None): (usage, cost or NO_COST)})


def spent_of_rows(rows: Iterable[Mapping[str, Any]] | None) -> Spent:
    """What several rows of a status come to."""
    return total(spent_of_row(row) for row in rows or ())


def to_rows(spent: Spent, limit: int) -> list[dict[str, Any]]:
    """The parts of a sum as rows of a status, in the order of their models.

    Of more than ``limit`` the last ones become one row for what has a price and one for what has
    none.
    """
    parts = sorted(spent.parts.items())
    if len(parts) > limit:
        kept = max(0, limit - 2)
        other = total(Spent({Part(OTHER, part.priced): amount}) for part, amount in parts[kept:])
        parts = sorted((Spent(dict(parts[:kept])) + other).parts.items())
    return [
        {
            **({"model": part.model} if part.model else {}),
            **({"costUsd": text(cost)} if part.priced else {}),
            **to_status(usage),
        }
        for part, (usage, cost) in parts
    ]


def put(status: dict[str, Any], spent: Spent) -> None:
    """Set ``costUsd`` and ``pricingModel`` of a status, or leave them out where nothing is used."""
    for name in ("costUsd", "pricingModel"):
        status.pop(name, None)
    if spent:
        status["costUsd"], status["pricingModel"] = shown(spent), spent.label


def shown(spent: Spent) -> str:
    """As ``costUsd`` says it: ``"1.25"``, ``"unpriced"``, or ``"1.25 + unpriced"``."""
    known = [text(spent.cost)] if any(part.priced for part in spent.parts) else []
    return " + ".join(known + ([UNPRICED] if spent.unpriced else []))


def text(amount: Decimal) -> str:
    """An exact amount in its one canonical form: no exponent, no zeros at the end."""
    if not amount:
        return "0"
    return format(amount.normalize(EXACT), "f")


def parse(value: Any) -> Decimal | None:
    """The amount that a text says, or None where it says none (``unpriced``)."""
    if not isinstance(value, str) or not value:
        return None
    try:
        amount = Decimal(value.removesuffix(f" + {UNPRICED}"))
    except decimal.InvalidOperation:
        return None
    return amount if amount.is_finite() else None
