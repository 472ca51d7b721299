"""Budgets: whether new turns may start within what a person allowed to be spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.domain.usage import Usage
from controller.reconcile.context import ConditionWriter


def budget_condition(writer: ConditionWriter, budget: Mapping[str, Any] | None, used: Usage) -> str:
    """Set ``WithinBudget``; the blocker reason that stops new turns, or an empty string.

    A cost limit cannot be judged while usage has no price, so any unpriced usage stops.
    """
    total = used.total
    limit = (budget or {}).get("maxTokens")
    if limit is not None and total >= limit:
        writer.set("WithinBudget", False, "BudgetExceeded", f"{total} of {limit} tokens are used")
        return "BudgetExceeded"
    if (budget or {}).get("maxCostUsd") is not None and total > 0:
        message = f"{total} tokens were used by models without a price, under a cost limit"
        writer.set("WithinBudget", False, "Unpriced", message)
        return "Unpriced"
    if budget:
        writer.set("WithinBudget", True, "WithinLimits")
    else:
        writer.set("WithinBudget", True, "NoLimit")
    return ""
