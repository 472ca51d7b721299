"""What ends of attempts say of a credential: refused by its provider, or served again."""

from __future__ import annotations

from typing import Any

from controller.domain.outcome import Outcome
from controller.domain.pauses import Pause, describe
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.infos import WorkerInfo
from controller.reconcile.pauses import REFUSALS, quota_condition
from controller.reconcile.turns import TurnFacts
from controller.store.base import Key, Resource


class Refusals:
    """Takes outcomes into the pauses; the swarm has them in its status before the attempt ends."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def note(
        self, obj: Resource, attempt: dict[str, Any], turn: TurnFacts | None, outcome: Outcome
    ) -> dict[str, Any] | None:
        """Learn from an attempt's outcome; safe to repeat.

        Returns: the blocker of a task whose attempt was refused; None where nothing was, or where
        no pause follows since the swarm is gone or has another credential by now.

        Raises: Conflict, NotFound.
        """
        swarm = Key("Swarm", obj["metadata"]["namespace"], attempt["swarm"])
        info = self._ctx.world.swarms.get(swarm)
        worker = info.workers.get(attempt["job"]) if info else None
        if worker is None or not worker.credential:
            return None
        began = seconds_of(attempt.get("assignedAt")) or 0.0
        if outcome.failure in REFUSALS:
            return await self._refused(worker, began, outcome)
        if turn is not None and (turn.complete or {}).get("status") == "completed":
            pauses, credential = self._ctx.world.pauses, worker.credential
            if pauses.served(credential, began=began):
                owner = self._ctx.store.get(swarm)
                if owner is not None:
                    self._ctx.event(owner, "QuotaAvailable", "the model's provider serves again")
                self._wake(credential)
        return None

    async def _refused(
        self, worker: WorkerInfo, began: float, outcome: Outcome
    ) -> dict[str, Any] | None:
        ctx, swarm = self._ctx, worker.swarm
        failure = outcome.failure
        if failure is None:
            return None
        before = ctx.world.pauses.of(worker.credential)
        pause = ctx.world.pauses.refused(
            worker.credential,
            failure,
            began=began,
            now=ctx.clock.now(),
            retry_after=outcome.retry_after,
            message=outcome.message,
            origin=swarm.namespace,
        )
        text = describe(pause, swarm.namespace)
        if pause != before:
            ctx.event_for(swarm, pause.reason, text)
            self._wake(worker.credential)
        await self._write(worker, pause)
        return {
            "reason": pause.reason,
            "message": text,
            "on": {"kind": "Swarm", "name": swarm.name},
        }

    async def _write(self, worker: WorkerInfo, pause: Pause) -> None:
        """Have the swarm say so, unless it does already."""
        ctx, swarm = self._ctx, worker.swarm
        obj = ctx.store.get(swarm)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        status, writer = dict(obj.get("status") or {}), ConditionWriter(obj, ctx.now())
        quota_condition(
            writer, status, worker.credential, ctx.world.pauses,
            namespace=swarm.namespace, now=ctx.clock.now(),
        )  # fmt: skip
        status["conditions"], status["reason"] = writer.conditions, pause.reason
        await ctx.write_status(obj, status)

    def _wake(self, credential: str) -> None:
        """Every swarm of this credential shows it, and looks when it is over."""
        for info in self._ctx.world.swarms.values():
            if info.credential == credential:
                self._ctx.queue.add(info.key)
