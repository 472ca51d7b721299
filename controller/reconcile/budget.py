"""Budgets: whether new turns may start within what a person allowed to be spent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.domain.blockers import Cause
from controller.domain.usage import Usage
from controller.reconcile.context import ConditionWriter
from controller.reconcile.infos import ProjectInfo, SwarmInfo
from controller.reconcile.sums import used_by
from controller.reconcile.world import World


def exceeded(budget: Mapping[str, Any], used: Usage) -> Cause | None:
    """What stops new turns under a budget, or None.

    A cost limit cannot be judged while usage has no price, so any unpriced usage stops.
    """
    total = used.total
    limit = budget.get("maxTokens")
    if limit is not None and total >= limit:
        return Cause("BudgetExceeded", f"{total} of {limit} tokens are used")
    if budget.get("maxCostUsd") is not None and total > 0:
        message = f"{total} tokens were used by models without a price, under a cost limit"
        return Cause("Unpriced", message)
    return None


def halted(world: World, info: ProjectInfo | SwarmInfo) -> Cause | None:
    """What stops new turns of a Project or Swarm now: its last turn's usage is counted."""
    if not info.budget:
        return None
    return exceeded(info.budget, used_by(world, info.key, info.folded))


def budget_condition(
    writer: ConditionWriter, budget: Mapping[str, Any] | None, used: Usage
) -> bool:
    """Set ``WithinBudget``; whether it is another one than before."""
    cause = exceeded(budget or {}, used)
    before, _ = writer.status_of("WithinBudget")
    if cause is not None:
        writer.set("WithinBudget", False, cause.reason, cause.message)
    else:
        writer.set("WithinBudget", True, "WithinLimits" if budget else "NoLimit")
    return before not in ("", writer.status_of("WithinBudget")[0])
