"""Budgets: whether new turns may start, and running ones go on, within what a person allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from controller.domain.blockers import Cause
from controller.domain.cost import Spent, text
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.infos import ProjectInfo, SwarmInfo, TaskInfo, project_key
from controller.reconcile.sums import spent_by
from controller.reconcile.world import World
from controller.store.base import Key

EXCEEDED = "BudgetExceeded"
MAX_SHOWN = 3
"""Models named in a message."""


def exceeded(budget: Mapping[str, Any], spent: Spent) -> Cause | None:
    """What stops new turns under a budget, or None.

    ``BudgetExceeded`` also ends running turns.  A cost limit cannot be judged while usage has no
    price, so any unpriced usage stops new turns (``Unpriced``).
    """
    limit = budget.get("maxTokens")
    if limit is not None:
        used = spent.usage.total
        if used >= limit:
            return Cause(EXCEEDED, f"{used} of {limit} tokens are used")
    most = budget.get("maxCostUsd")
    if most is None:
        return None
    if spent.cost >= Decimal(most):
        return Cause(EXCEEDED, f"{text(spent.cost)} of {text(Decimal(most))} USD are spent")
    if spent.unpriced:
        return Cause("Unpriced", _unpriced(spent.unpriced))
    return None


def _unpriced(models: tuple[str, ...]) -> str:
    more = f" and {len(models) - MAX_SHOWN} more" if len(models) > MAX_SHOWN else ""
    return (
        f"there is no price for model {', '.join(models[:MAX_SHOWN])}{more}, under a cost limit: "
        "give it one in modelPricing of the configuration, or name another by agent.pricingModel"
    )


def halted(world: World, info: ProjectInfo | SwarmInfo) -> Cause | None:
    """What stops new turns of a Project or Swarm now: its last turn's usage is counted."""
    if not info.budget:
        return None
    return exceeded(info.budget, spent_by(world, info.key, info.folded))


def _owners(
    world: World, info: TaskInfo, swarms: Iterable[str]
) -> Iterator[ProjectInfo | SwarmInfo]:
    """The owners with a budget that a Task's turns on some swarms count for."""
    project = world.projects.get(project_key(info)) if info.project else None
    if project is not None and project.budget:
        yield project
    for name in swarms:
        swarm = world.swarms.get(Key("Swarm", info.key.namespace, name))
        if swarm is not None and swarm.budget:
            yield swarm


def overspent(world: World, info: TaskInfo) -> bool:
    """Whether the running turn of a Task must end: a budget that it counts for is used up."""
    causes = (halted(world, owner) for owner in _owners(world, info, (info.open_swarm,)))
    return any(cause is not None and cause.reason == EXCEEDED for cause in causes)


class Budgets:
    """Watches what is spent while turns run, and ends them where a budget is used up."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._over: set[Key] = set()

    def spent(self, info: TaskInfo) -> None:
        """A Task's turn has used more."""
        swarms = dict.fromkeys(share.swarm for share in info.shares)
        for owner in _owners(self._ctx.world, info, swarms):
            self.look(owner)

    def look(self, owner: ProjectInfo | SwarmInfo) -> None:
        """Ask for passes of the running Tasks of an owner whose budget is used up."""
        world = self._ctx.world
        cause = halted(world, owner)
        if cause is None or cause.reason != EXCEEDED:
            self._over.discard(owner.key)
            return
        if owner.key not in self._over:
            self._over.add(owner.key)
            self._ctx.queue.add(owner.key)  # its condition says so
        running = (
            owner.running
            if isinstance(owner, ProjectInfo)
            else [world.open_jobs[job] for job in owner.workers if job in world.open_jobs]
        )
        for key in running:
            self._ctx.queue.add(key)


def budget_condition(
    writer: ConditionWriter, budget: Mapping[str, Any] | None, spent: Spent
) -> bool:
    """Set ``WithinBudget``; whether it is another one than before."""
    cause = exceeded(budget or {}, spent)
    before, _ = writer.status_of("WithinBudget")
    if cause is not None:
        writer.set("WithinBudget", False, cause.reason, cause.message)
    else:
        writer.set("WithinBudget", True, "WithinLimits" if budget else "NoLimit")
    return before not in ("", writer.status_of("WithinBudget")[0])
