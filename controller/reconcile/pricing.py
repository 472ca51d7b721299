"""Prices of what is used: which model's price holds for a swarm's agents, and rows that get a cost.

A row of usage keeps the cost that it was given as long as its tokens are the same, so that
another price list changes no past.  A row without a price gets one as soon as there is one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controller.domain.cost import Agent, priced, put, spent_of_rows
from controller.domain.usage import entries_from_status, entries_to_status, from_status, merge
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo
from controller.reconcile.turns import TurnFacts
from controller.resources.settings import EnvProfile
from controller.store.base import Key

NO_AGENT = Agent()


def agent_of(settings: Mapping[str, Any], profiles: Mapping[str, EnvProfile]) -> Agent:
    """An effective ``agent`` block, as far as prices depend on it."""
    profile = profiles.get(settings.get("envProfile", ""))
    return Agent(
        runtime=settings.get("runtime", ""),
        model=settings.get("model") or _model_in(settings.get("codex") or {}),
        pricing_model=settings.get("pricingModel", ""),
        profile_model=profile.model if profile else "",
    )


def _model_in(codex: Mapping[str, Any]) -> str:
    """The model that Codex's own configuration names."""
    try:
        model = tomllib.loads(codex.get("config") or "").get("model")
    except tomllib.TOMLDecodeError:
        return ""  # its runtime says what is wrong with it; of a long one status has a part only
    return model if isinstance(model, str) else ""


def agent_for(ctx: Context, namespace: str, swarm: str) -> Agent:
    """The agent of a swarm as its last pass resolved it; nothing is known of one that is gone."""
    info = ctx.world.swarms.get(Key("Swarm", namespace, swarm))
    return agent_of(info.agent, ctx.settings.env_profiles) if info else NO_AGENT


def merged(
    ctx: Context,
    agent: Agent,
    job: str,
    rows: Sequence[Mapping[str, Any]] | None,
    turn: TurnFacts | None,
) -> list[dict[str, Any]]:
    """Rows by session with what a turn has told since: totals that only grow, and their cost."""
    before = list(rows or ())
    told = turn.usage if turn is not None else ()
    fresh = entries_to_status(merge(entries_from_status(0, job, before), told))
    return with_costs(ctx, agent, before, fresh)


def with_costs(
    ctx: Context,
    agent: Agent,
    before: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Rows with costs: the one that was given before for the same tokens, else today's.

    Args:
        before: the same sessions' rows as they are stored.
    """
    known = {(row.get("session", ""), row.get("model", "")): row for row in before}
    return [_with_cost(ctx, agent, known.get(_who(row), {}), row) for row in rows]


def _who(row: Mapping[str, Any]) -> tuple[str, str]:
    return row.get("session", ""), row.get("model", "")


def _with_cost(
    ctx: Context, agent: Agent, before: Mapping[str, Any], row: Mapping[str, Any]
) -> dict[str, Any]:
    if "costUsd" in before and from_status(before) == from_status(row):
        kept = {k: before[k] for k in ("costUsd", "pricingModel") if k in before}
        return {**row, **kept}
    if agent is NO_AGENT and before.get("pricingModel"):
        agent = Agent(pricing_model=before["pricingModel"])
    return priced(row, agent, ctx.prices)


def merge_usage(
    ctx: Context, namespace: str, attempt: dict[str, Any], turn: TurnFacts | None
) -> None:
    """Take what a turn has used into its attempt, and what that cost."""
    if turn is None or not turn.usage:
        return
    agent = agent_for(ctx, namespace, attempt["swarm"])
    attempt["usage"] = merged(ctx, agent, attempt["job"], attempt.get("usage"), turn)
    put(attempt, spent_of_rows(attempt["usage"]))


def newly_priced(ctx: Context, info: TaskInfo, status: Mapping[str, Any]) -> dict[str, Any] | None:
    """A Task's status in which what had no price has one now; None where nothing is new."""
    if not any(share.spent.unpriced for share in info.shares):
        return None
    new, namespace = dict(status), info.key.namespace
    new["attempts"] = [
        _priced_attempt(ctx, namespace, attempt) for attempt in status.get("attempts") or ()
    ]
    folded = status.get("folded") or {}
    if folded.get("usage"):
        rows = [_priced_row(ctx, namespace, row["swarm"], row) for row in folded["usage"]]
        new["folded"] = {**folded, "usage": rows}
    return new if new != {"attempts": [], **status} else None


def _priced_attempt(ctx: Context, namespace: str, attempt: Mapping[str, Any]) -> dict[str, Any]:
    if not attempt.get("usage"):
        return dict(attempt)
    rows = [_priced_row(ctx, namespace, attempt["swarm"], row) for row in attempt["usage"]]
    new = {**attempt, "usage": rows}
    if rows != attempt["usage"]:
        put(new, spent_of_rows(rows))
    return new


def _priced_row(ctx: Context, namespace: str, swarm: str, row: Mapping[str, Any]) -> dict[str, Any]:
    if "costUsd" in row or not from_status(row):
        return dict(row)
    new = priced(row, agent_for(ctx, namespace, swarm), ctx.prices)
    if "costUsd" not in new and row.get("pricingModel"):
        new = priced(row, Agent(pricing_model=row["pricingModel"]), ctx.prices)
    return new if "costUsd" in new else dict(row)


def price_folded(ctx: Context, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of what is gone, by model: what had no price gets one as soon as there is one."""
    found = []
    for row in rows:
        new = row if "costUsd" in row else priced(row, NO_AGENT, ctx.prices)
        if "costUsd" in new and "pricingModel" in new:
            new = {**new, "model": new["pricingModel"]}
        found.append({k: v for k, v in new.items() if k != "pricingModel"})
    return found
