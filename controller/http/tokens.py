"""Tokens and cost as counters: what was used since the start, by swarm, project and model.

Status says what an object has used altogether; that total goes with the object, and its models
are not told apart there.  A counter must only rise, so here each increase of an attempt's totals
is added once, as it is observed, and what was there at the start is where counting begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from controller.domain.cost import EXACT, NO_COST, parse
from controller.domain.usage import ZERO, Usage, from_status
from controller.reconcile.infos import SwarmInfo, TaskInfo
from controller.reconcile.world import World
from controller.store.base import Key

MAX_MODELS = 100
"""Names of models come from agents: so many are told apart, the rest is ``other``."""
MAX_NAME = 64
UNKNOWN, OTHER = "unknown", "other"

Rows = dict[str, tuple[Usage, Decimal]]
"""By model: what was used, and what of it cost so far as it has a price."""
NONE = (ZERO, NO_COST)


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose tokens they are."""

    namespace: str
    swarm: str
    project: str
    """Empty for prompts and system prompts."""
    model: str


class Tokens:
    """Sums that only rise."""

    def __init__(self) -> None:
        self.totals: dict[Spender, Usage] = {}
        self.costs: dict[Spender, Decimal] = {}
        """US dollars, of those who used something that has a price."""
        self._models: dict[str, str] = {}
        self._open: dict[str, tuple[int, Rows]] = {}
        """By uid of a Task: the number of its open attempt, and what is counted of that."""
        self._system: dict[Key, dict[str, Rows]] = {}
        """By swarm and job: what is counted of the system prompt's turns."""

    def task(
        self, before: TaskInfo | None, info: TaskInfo, obj: Mapping[str, Any], initial: bool
    ) -> None:
        """A Task as it is now."""
        if initial or before is None or before.uid != info.uid:
            if info.open_job:
                self._open[info.uid] = (info.attempt, _rows(obj)[1])
            return
        number, counted = self._open.get(info.uid, (0, {}))
        if info.shares != before.shares:
            swarm, rows = _rows(obj)
            if number != info.attempt:
                counted = {}
            self._add(info.key.namespace, swarm, info.project, rows, counted)
            counted = rows
        elif number != info.attempt:
            counted = {}
        if info.open_job:
            self._open[info.uid] = (info.attempt, counted)
        else:
            self._open.pop(info.uid, None)

    def _add(self, namespace: str, swarm: str, project: str, rows: Rows, counted: Rows) -> None:
        for model, (used, cost) in rows.items():
            before, paid = counted.get(model, NONE)
            spender = Spender(namespace, swarm, project, self._model(model))
            # Never less: a counter that falls would be taken for a restart.
            more, dearer = ZERO.merge(used - before), max(NO_COST, EXACT.subtract(cost, paid))
            if more:
                self.totals[spender] = self.totals.get(spender, ZERO) + more
            if dearer:
                self.costs[spender] = EXACT.add(self.costs.get(spender, NO_COST), dearer)

    def _model(self, name: str) -> str:
        found = self._models.get(name)
        if found is not None:
            return found
        if len(self._models) >= MAX_MODELS:
            return OTHER
        clean = "".join(c if c.isprintable() else "?" for c in name[:MAX_NAME]) or UNKNOWN
        self._models[name] = clean
        return clean

    def swarm(self, info: SwarmInfo, obj: Mapping[str, Any], initial: bool) -> None:
        """A Swarm as it is now: the turns of its workers' system prompts."""
        status = obj.get("status") or {}
        now = {
            row["job"]: _by_model(row["systemUsage"])
            for row in status.get("workers") or ()
            if row.get("systemUsage")
        }
        counted = self._system.pop(info.key, {})
        if now:
            self._system[info.key] = now
        if initial:
            return
        for job, rows in now.items():
            self._add(info.key.namespace, info.key.name, "", rows, counted.get(job, {}))

    def gone(self, info: TaskInfo) -> None:
        """A Task is not there any more."""
        self._open.pop(info.uid, None)

    def prune(self, world: World) -> None:
        """Drop what belongs to swarms and projects that are gone, so that series do not pile up."""
        for spender in [s for s in self.totals if not _lives(world, s)]:
            del self.totals[spender]
            self.costs.pop(spender, None)
        for key in [k for k in self._system if k not in world.swarms]:
            del self._system[key]


def _lives(world: World, spender: Spender) -> bool:
    swarm = Key("Swarm", spender.namespace, spender.swarm)
    return swarm in world.swarms or Key("Project", spender.namespace, spender.project) in (
        world.projects
    )


def _rows(obj: Mapping[str, Any]) -> tuple[str, Rows]:
    """Swarm and totals by model of a Task's last attempt, the only one that still grows."""
    attempts = (obj.get("status") or {}).get("attempts") or ()
    if not attempts:
        return "", {}
    return attempts[-1]["swarm"], _by_model(attempts[-1].get("usage") or ())


def _by_model(sessions: Iterable[Mapping[str, Any]]) -> Rows:
    rows: Rows = {}
    for session in sessions:
        model = str(session.get("model", ""))
        used, cost = rows.get(model, NONE)
        more = parse(session.get("costUsd")) or NO_COST
        rows[model] = used + from_status(session), EXACT.add(cost, more)
    return rows
