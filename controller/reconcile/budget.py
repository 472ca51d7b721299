"""Budgets: whether new turns may start, and running ones go on, within what a person allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from controller.domain.blockers import Cause
from controller.domain.cost import EXACT, Spent, text
from controller.domain.machines import NO_BILL, Bill
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.infos import ProjectInfo, SwarmInfo, TaskInfo, project_key
from controller.reconcile.sums import spent_by
from controller.reconcile.world import World
from controller.resources.conditions import find
from controller.store.base import Key, Resource, key_of

EXCEEDED, UNPRICED = "BudgetExceeded", "Unpriced"
IDLE_SECONDS = 600.0
MAX_SHOWN = 3
"""Models or types of machines named in a message."""


def exceeded(budget: Mapping[str, Any], spent: Spent, machines: Bill = NO_BILL) -> Cause | None:
    """What stops new turns under a budget, or None.

    ``BudgetExceeded`` also ends running turns.  A cost limit cannot be judged while something has
    no price, so any unpriced usage or machine stops new turns (``Unpriced``).
    """
    limit = budget.get("maxTokens")
    if limit is not None:
        used = spent.usage.total
        if used >= limit:
            return Cause(EXCEEDED, f"{used} of {limit} tokens are used")
    most = budget.get("maxCostUsd")
    if most is None:
        return None
    cost = EXACT.add(spent.cost, machines.cost)
    if cost >= Decimal(most):
        part = f", {text(machines.cost)} of them for machines" if machines.cost else ""
        return Cause(EXCEEDED, f"{text(cost)} of {text(Decimal(most))} USD are spent{part}")
    if spent.unpriced:
        return Cause(
            UNPRICED,
            f"there is no price for model {_listed(spent.unpriced)}, under a cost limit: give it "
            "one in modelPricing of the configuration, or name another by agent.pricingModel",
        )
    if machines.unpriced:
        return Cause(
            UNPRICED,
            f"there is no price for machines of type {_listed(machines.unpriced)}, under a cost "
            "limit: give it one in instancePricing of the configuration",
        )
    return None


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return f"{', '.join(names[:MAX_SHOWN])}{more}"


def halted(world: World, info: ProjectInfo | SwarmInfo) -> Cause | None:
    """What stops new turns of a Project or Swarm now: its last turn's usage is counted.

    A Swarm's machines count for its own budget, and for no Project's.
    """
    if not info.budget:
        return None
    machines = info.machines if isinstance(info, SwarmInfo) else NO_BILL
    return exceeded(info.budget, spent_by(world, info.key, info.folded), machines)


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


def has_idled(world: World, obj: Resource, now: float) -> bool:
    """Whether a Swarm's workers have had nothing to do for long, since its budget is used up.

    Then it is not worth what machines cost to have them wait.
    """
    known = find((obj.get("status") or {}).get("conditions") or [], "WithinBudget") or {}
    since = seconds_of(known.get("lastTransitionTime"))
    info = world.swarms.get(key_of(obj))
    if info is None or known.get("status") != "False" or since is None:
        return False
    at_work = any(job in world.open_jobs for job in info.workers)
    return now - since >= IDLE_SECONDS and not at_work and halted(world, info) is not None


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
    writer: ConditionWriter,
    budget: Mapping[str, Any] | None,
    spent: Spent,
    machines: Bill = NO_BILL,
) -> bool:
    """Set ``WithinBudget``; whether it is another one than before."""
    cause = exceeded(budget or {}, spent, machines)
    before, _ = writer.status_of("WithinBudget")
    if cause is not None:
        writer.set("WithinBudget", False, cause.reason, cause.message)
    else:
        writer.set("WithinBudget", True, "WithinLimits" if budget else "NoLimit")
    return before not in ("", writer.status_of("WithinBudget")[0])
