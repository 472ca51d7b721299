"""Task: from accepted to settled, one attempt after another."""

from __future__ import annotations

from typing import Any

from controller.reconcile.approval import ensure_approvals
from controller.reconcile.attempts import Undeliverable, open_attempt
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.dispatch import deliver
from controller.reconcile.infos import TaskInfo
from controller.reconcile.interrupts import Interrupter, wanted_interrupt
from controller.reconcile.prompts import PromptGroup
from controller.reconcile.readiness import explain, stale_success
from controller.reconcile.settle import Settler
from controller.reconcile.task_end import TaskEnd
from controller.reconcile.task_status import merge_usage, reset, task_conditions
from controller.reconcile.turns import TurnFacts
from controller.resources.texts import Unresolved, resolve_text
from controller.store.base import Key, Resource
from providers.base import ProviderError

FIRST_LOOK_SECONDS = 1.0
"""A task that gets a worker within this time is never written as waiting."""
REDELIVER_SECONDS = 10.0
USAGE_SECONDS = 1.0
RETRY_ANNOTATION = "codeswarm.dev/retry"


class TaskReconciler:
    """One pass: settle, interrupt or follow the open attempt, else say why there is none."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._interrupter = Interrupter(ctx)
        self._settler = Settler(ctx)
        self._group = PromptGroup(ctx)
        self._end = TaskEnd(ctx)
        self._delivered_at: dict[str, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Task; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None:
            return None
        info = self._ctx.world.info_of(obj)
        status = obj.get("status") or {}
        attempt = open_attempt(status)
        if attempt is not None:
            return await self._open(obj, info, attempt)
        if info.deleting:
            return await self._end.release(obj, info)
        if info.expands:
            return await self._group.reconcile(obj)
        if info.finished:
            return await self._finished(obj, info)
        return await self._waiting(obj, info)

    async def gone(self, info: TaskInfo) -> None:
        """A Task is not there any more."""
        await self._end.gone(info)

    # --- an open attempt -------------------------------------------------------------------

    async def _open(self, obj: Resource, info: TaskInfo, attempt: dict[str, Any]) -> float | None:
        ctx = self._ctx
        turn = ctx.turns.turns.get(attempt["injectionId"])
        if turn is not None and turn.complete is not None:
            return await self._settler.settle(obj, info, attempt, turn)
        if self._worker_gone(info, attempt):
            return await self._settler.lost(obj, info, attempt, turn)
        if not self._known(info):
            return 1.0
        reason = wanted_interrupt(ctx, obj, info, attempt, turn)
        if reason:
            return await self._interrupter.step(obj, attempt, turn, reason)
        if turn is None or turn.accepted_at is None:
            return await self._redeliver(obj, attempt)
        return await self._follow(obj, info, attempt, turn)

    def _known(self, info: TaskInfo) -> bool:
        swarm = self._ctx.world.swarms.get(Key("Swarm", info.key.namespace, info.open_swarm))
        return swarm is not None and swarm.observed

    def _worker_gone(self, info: TaskInfo, attempt: dict[str, Any]) -> bool:
        swarm = self._ctx.world.swarms.get(Key("Swarm", info.key.namespace, attempt["swarm"]))
        if swarm is None:
            return True
        return swarm.observed and attempt["job"] not in swarm.workers

    async def _redeliver(self, obj: Resource, attempt: dict[str, Any]) -> float:
        """Give the record again: after a restart, or when no acknowledgement came."""
        injection = attempt["injectionId"]
        now = self._ctx.clock.now()
        last = self._delivered_at.get(injection)
        if last is None and injection in self._ctx.delivered:
            last = self._delivered_at[injection] = now
        if last is None or now - last >= REDELIVER_SECONDS:
            try:
                await deliver(self._ctx, obj)
            except (ProviderError, Undeliverable) as error:
                self._ctx.event(obj, "NotDelivered", str(error), warning=True)
                return 1.0
            self._delivered_at[injection] = now
        return REDELIVER_SECONDS

    async def _follow(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts
    ) -> float | None:
        """The turn runs: note when it began and what it has used so far."""
        self._delivered_at.pop(attempt["injectionId"], None)
        status = dict(obj["status"])
        new = dict(attempt)
        if new["state"] == "Assigned":
            new["state"] = "Running"
            new["startedAt"] = self._ctx.now()
        if turn.working_at is not None and "turnStartedAt" not in new:
            new["turnStartedAt"] = stamp(turn.working_at)
        merge_usage(new, turn)
        status["attempts"] = [*status["attempts"][:-1], new]
        status["phase"] = "Running"
        status["observedGeneration"] = obj["metadata"]["generation"]
        task_conditions(self._ctx, obj, status)
        obj = await self._end.guard(await self._ctx.write_status(obj, status), info)
        await ensure_approvals(self._ctx, obj, new, turn)
        return self._interrupter.next_deadline(info, new, turn)

    # --- no open attempt ---------------------------------------------------------------------

    async def _finished(self, obj: Resource, info: TaskInfo) -> float | None:
        status = obj["status"]
        token = (obj["metadata"].get("annotations") or {}).get(RETRY_ANNOTATION, "")
        if token and token != status.get("observedRetry", ""):
            if info.phase != "Succeeded" and not info.cancel:
                self._ctx.event(obj, "RetryRequested", "a person asked for another attempt")
                await self._ctx.write_status(obj, reset(self._ctx, obj, "Retried", retry=token))
                return FIRST_LOOK_SECONDS
            await self._ctx.write_status(obj, {**status, "observedRetry": token})
            return None
        reason = stale_success(self._ctx.world, info)
        if reason:
            self._ctx.event(obj, "Reset", reason)
            await self._ctx.write_status(obj, reset(self._ctx, obj, "Reset"))
            return FIRST_LOOK_SECONDS
        if status.get("observedGeneration") != obj["metadata"]["generation"]:
            fresh = {**status, "observedGeneration": obj["metadata"]["generation"]}
            task_conditions(self._ctx, obj, fresh)
            obj = await self._ctx.write_status(obj, fresh)
        return await self._end.expire(obj, info)

    async def _waiting(self, obj: Resource, info: TaskInfo) -> float | None:
        status = dict(obj.get("status") or {})
        if info.cancel:
            status.update(phase="Cancelled", reason="Cancelled", finishedAt=self._ctx.now())
            status.pop("blocker", None)
            task_conditions(self._ctx, obj, status)
            self._ctx.event(obj, "Cancelled", "cancelled before it began")
            await self._ctx.write_status(obj, status)
            return None
        age = self._ctx.clock.now() - (seconds_of(info.created) or 0.0)
        if not status and 0 <= age < FIRST_LOOK_SECONDS:
            return FIRST_LOOK_SECONDS
        if self._ctx.world.is_reserved(info.key):
            return 1.0
        self._ctx.refresh(info)
        problem = self._unresolved(obj)
        blocker = explain(self._ctx.world, info, self._ctx.clock.now())
        writer = ConditionWriter(obj, self._ctx.now())
        if problem is not None:
            blocker = {"reason": problem.reason, "message": problem.message}
            writer.set("Accepted", False, problem.reason, problem.message)
        else:
            writer.set("Accepted", True, "Accepted")
        status["conditions"] = writer.conditions
        status["phase"] = "Waiting" if problem is None else "Pending"
        status["observedGeneration"] = obj["metadata"]["generation"]
        status["blocker"] = blocker
        status["reason"] = blocker["reason"]
        task_conditions(self._ctx, obj, status)
        await self._ctx.write_status(obj, status)
        if problem is not None:
            return 30.0
        if info.next_at > self._ctx.clock.now():
            return info.next_at - self._ctx.clock.now() + 0.005
        return None

    def _unresolved(self, obj: Resource) -> Unresolved | None:
        if "promptFrom" not in obj["spec"]:
            return None
        text = resolve_text(obj, obj["spec"], "prompt", self._ctx.store.get)
        return text if isinstance(text, Unresolved) else None
