"""How status says what was used and what it cost: of an owner, and of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.domain.cost import (
    EXACT,
    UNPRICED,
    Spent,
    put,
    shown,
    spent_of_rows,
    text,
    to_rows,
)
from controller.domain.machines import Bill
from controller.domain.usage import to_status

MAX_MODELS = 50
MAX_MODELS_OF_A_WORKER = 10


def put_spent(status: dict[str, Any], spent: Spent) -> None:
    """Set ``usage``, ``costUsd`` and ``pricingModel``; nothing where nothing was used."""
    if spent:
        status["usage"] = to_status(spent.usage)
    else:
        status.pop("usage", None)
    put(status, spent)


def put_cost(status: dict[str, Any], spent: Spent, machines: Bill) -> None:
    """Set a Swarm's ``costUsd``: of its agents' models, and of its machines."""
    known = [part.priced for part in spent.parts]
    found = []
    if any(known) or machines.priced:
        found.append(text(EXACT.add(spent.cost, machines.cost)))
    if spent.unpriced or machines.unpriced:
        found.append(UNPRICED)
    if found:
        status["costUsd"] = " + ".join(found)
    else:
        status.pop("costUsd", None)


def put_folded(status: dict[str, Any], spent: Spent) -> None:
    """Set what is folded into a Project or a Swarm: the sum, and the same by model."""
    if spent:
        status["foldedUsage"] = to_status(spent.usage)
        status["foldedByModel"] = to_rows(spent, MAX_MODELS)
    else:
        status.pop("foldedUsage", None)
        status.pop("foldedByModel", None)


def folded_of_worker(row: Mapping[str, Any]) -> Spent:
    """What tasks that are gone have used of a worker."""
    return spent_of_rows(row.get("foldedByModel"))


def put_folded_of_worker(row: dict[str, Any], spent: Spent) -> None:
    """The inverse; a worker's row is short."""
    if spent:
        row["foldedByModel"] = [_short(r) for r in to_rows(spent, MAX_MODELS_OF_A_WORKER)]


def put_spent_of_worker(row: dict[str, Any], spent: Spent) -> None:
    """Set a worker's ``usage`` and ``costUsd``."""
    if spent:
        row["usage"] = _short(to_status(spent.usage))
        row["costUsd"] = shown(spent)


def short_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the classes of tokens of which there are none."""
    return [_short(row) for row in rows]


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if v or not isinstance(v, int)}
