"""Tokens as counters: what was used since the controller's start, by swarm, project and model.

Status says what an object has used altogether; that total goes with the object, and its models
are not told apart there.  A counter must only rise, so here each increase of an attempt's totals
is added once, as it is observed, and what was there at the start is where counting begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from controller.domain.usage import ZERO, Usage, from_status
from controller.reconcile.infos import SwarmInfo, TaskInfo
from controller.reconcile.world import World
from controller.resources.settings import ModelPrice, price_key
from controller.store.base import Key

MAX_MODELS = 100
"""Names of models come from agents: so many are told apart, the rest is ``other``."""
MAX_NAME = 64
UNKNOWN, OTHER = "unknown", "other"
_MILLION = Decimal(10**6)

Rows = dict[str, Usage]


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
        self._models: dict[str, str] = {}
        self._open: dict[str, tuple[int, Rows]] = {}
        """By uid of a Task: the number of its open attempt, and what is counted of that."""
        self._system: dict[Key, dict[str, Usage]] = {}
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
        if info.usage != before.usage:
            swarm, rows = _rows(obj)
            if number != info.attempt:
                counted = {}
            self._add(info, swarm, rows, counted)
            counted = rows
        elif number != info.attempt:
            counted = {}
        if info.open_job:
            self._open[info.uid] = (info.attempt, counted)
        else:
            self._open.pop(info.uid, None)

    def _add(self, info: TaskInfo, swarm: str, rows: Rows, counted: Rows) -> None:
        for model, used in rows.items():
            more = used - counted.get(model, ZERO)
            if more:
                self._count(info.key.namespace, swarm, info.project, model, more)

    def _count(self, namespace: str, swarm: str, project: str, model: str, more: Usage) -> None:
        spender = Spender(namespace, swarm, project, self._model(model))
        # Field by field never less: a counter that falls would be taken for a restart.
        self.totals[spender] = self.totals.get(spender, ZERO) + ZERO.merge(more)

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
            row["job"]: from_status(row["usage"])
            for row in status.get("workers") or ()
            if row.get("usage")
        }
        counted = self._system.pop(info.key, {})
        if now:
            self._system[info.key] = now
        if initial:
            return
        model = ((status.get("effective") or {}).get("agent") or {}).get("model", "")
        for job, used in now.items():
            more = used - counted.get(job, ZERO)
            if more:
                self._count(info.key.namespace, info.key.name, "", model, more)

    def gone(self, info: TaskInfo) -> None:
        """A Task is not there any more."""
        self._open.pop(info.uid, None)

    def prune(self, world: World) -> None:
        """Drop what belongs to swarms and projects that are gone, so that series do not pile up."""
        for spender in [s for s in self.totals if not _lives(world, s)]:
            del self.totals[spender]
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
    rows: Rows = {}
    for session in attempts[-1].get("usage") or ():
        model = str(session.get("model", ""))
        rows[model] = rows.get(model, ZERO) + from_status(session)
    return attempts[-1]["swarm"], rows


def costs(
    totals: Mapping[Spender, Usage], prices: Mapping[str, ModelPrice]
) -> Iterator[tuple[Spender, Decimal]]:
    """US dollars of what has a price."""
    for spender, used in totals.items():
        price = prices.get(price_key(spender.model))
        if price is not None:
            yield spender, cost_of(used, price)


def cost_of(used: Usage, price: ModelPrice) -> Decimal:
    """US dollars; cached input is part of the input, reasoning of the output."""

    def of(own: Decimal | None, other: Decimal) -> Decimal:
        return other if own is None else own

    plain = used.input - used.cached_input - used.cache_write
    parts = (
        (max(0, plain), price.input),
        (used.cached_input, of(price.cached_input, price.input)),
        (used.cache_write, of(price.cache_write, price.input)),
        (max(0, used.output - used.reasoning_output), price.output),
        (used.reasoning_output, of(price.reasoning_output, price.output)),
    )
    return sum((Decimal(count) * each for count, each in parts), Decimal(0)) / _MILLION
