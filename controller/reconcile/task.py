"""Task: from accepted to settled, one attempt after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.reconcile.attempts import Undeliverable, open_attempt
from controller.reconcile.carriages import NotYet
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.dispatch import deliver
from controller.reconcile.infos import FINISHED, TaskInfo
from controller.reconcile.interrupts import (
    FROZEN_SECONDS,
    Interrupter,
    stands_still,
    wanted_interrupt,
)
from controller.reconcile.pricing import merge_usage, newly_priced
from controller.reconcile.prompts import PromptGroup
from controller.reconcile.questions import confirm_answers, ensure_approvals, show_waiting
from controller.reconcile.readiness import explain, pool_of, stale_success
from controller.reconcile.settle import Settler
from controller.reconcile.task_end import TaskEnd
from controller.reconcile.task_status import reset, sum_usage, task_conditions
from controller.reconcile.turns import TurnFacts, parse
from controller.repository.problems import RepositoryProblem
from controller.resources.texts import Unresolved
from controller.store.base import Key, Resource
from providers.base import ProviderError

FIRST_LOOK_SECONDS = 1.0
"""A task that gets a worker within this time is never written as waiting."""
DELIVERING_SECONDS = 1.0
"""Between two looks at a record that the dispatcher is giving to its worker."""
REDELIVER_SECONDS = 10.0
MAX_DELIVERIES = 6
"""A worker that lives and does not answer to so many is replaced."""
RETRY_SECONDS = 2.0
SENDING_SECONDS = 11.0
"""Between two looks at a repository that is being sent; its arrival wakes the task."""
FOLLOW_UP_SECONDS = 0.01
UNOBSERVED_SECONDS = 10.0
"""So long after a controller's start tasks do not tell that its swarms are not known yet."""
UNRESOLVED_SECONDS = 5.0
"""Between two looks for a file, a ConfigMap or a Secret that is not there."""


class TaskReconciler:
    """One pass: settle, interrupt or follow the open attempt, else say why there is none."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._begun = ctx.clock.now()
        self._interrupter = Interrupter(ctx)
        self._settler = Settler(ctx)
        self._group = PromptGroup(ctx)
        self._end = TaskEnd(ctx)
        self._deliveries: dict[str, tuple[float | None, int]] = {}
        """By injection without an answer: when it was last delivered, and how often."""

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Task; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None:
            return None
        if self._ctx.world.version(key) != obj["metadata"]["resourceVersion"]:
            self._ctx.observed(obj)  # nothing may be acted on that the world does not know
        info = self._ctx.world.info_of(obj)
        obj = await self._priced(obj, info)
        info, status = self._ctx.world.info_of(obj), obj.get("status") or {}
        attempt = open_attempt(status)
        if attempt is not None:
            return await self._open(obj, info, attempt)
        self._forget_closed(status)
        if info.deleting:
            return await self._end.release(obj, info)
        if info.expands:
            after = await self._group.reconcile(obj, info)
            return after if after is not None else await self._group_end(key)
        if info.finished:
            return await self._finished(obj, info)
        return await self._waiting(obj, info)

    async def _priced(self, obj: Resource, info: TaskInfo) -> Resource:
        """Usage that had no price has its cost as soon as there is one."""
        status = newly_priced(self._ctx, info, obj.get("status") or {})
        if status is None:
            return obj
        sum_usage(status)
        return await self._ctx.write_status(obj, status)

    def _forget_closed(self, status: Mapping[str, Any]) -> None:
        """The last attempt's turn, if the answer to the write of its end got lost."""
        for attempt in (status.get("attempts") or ())[-1:]:
            self._ctx.turns.forget(attempt["injectionId"])
            self._ctx.delivered.discard(attempt["injectionId"])
            self._deliveries.pop(attempt["injectionId"], None)

    async def gone(self, info: TaskInfo) -> None:
        """A Task is not there any more."""
        await self._end.gone(info)

    async def _group_end(self, key: Key) -> float | None:
        obj = self._ctx.store.get(key)
        if obj is None or (obj.get("status") or {}).get("phase") not in FINISHED:
            return None
        return await self._end.expire(obj, self._ctx.world.info_of(obj))

    # --- an open attempt -------------------------------------------------------------------

    async def _open(self, obj: Resource, info: TaskInfo, attempt: dict[str, Any]) -> float | None:
        ctx = self._ctx
        turn = ctx.turns.turns.get(attempt["injectionId"])
        gone, leaving = self._worker_gone(info, attempt), ""
        if not gone and not self._known(info):
            if self._is_silent(info, attempt):
                return await self._say_unheard(obj)
            return 1.0  # a refused turn could not be laid to its credential yet
        if gone and (turn is None or turn.complete is None):
            recalled, leaving = self._recall(info, attempt)
            turn = recalled or turn
        if turn is not None and turn.complete is not None:
            self._deliveries.pop(attempt["injectionId"], None)
            await confirm_answers(ctx, obj, attempt, turn)
            return await self._settler.settle(obj, info, attempt, turn)
        if gone:
            self._deliveries.pop(attempt["injectionId"], None)
            if turn is not None:
                await confirm_answers(ctx, obj, attempt, turn)
            return await self._settler.lost(obj, info, attempt, turn, leaving)
        return await self._under_way(obj, info, attempt, turn)

    async def _under_way(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts | None
    ) -> float | None:
        reason = wanted_interrupt(self._ctx, obj, info, attempt, turn)
        if reason:
            return await self._interrupter.step(obj, attempt, turn, reason)
        if turn is None or turn.accepted_at is None:
            return await self._unacknowledged(obj, info, attempt)
        return await self._follow(obj, info, attempt, turn)

    def _known(self, info: TaskInfo) -> bool:
        swarm = self._ctx.world.swarms.get(Key("Swarm", info.key.namespace, info.open_swarm))
        return swarm is not None and swarm.observed

    def _worker_gone(self, info: TaskInfo, attempt: dict[str, Any]) -> bool:
        swarm = self._ctx.world.swarms.get(Key("Swarm", info.key.namespace, attempt["swarm"]))
        if swarm is None:
            return True
        return swarm.observed and attempt["job"] not in swarm.workers

    def _recall(self, info: TaskInfo, attempt: dict[str, Any]) -> tuple[TurnFacts | None, str]:
        """What a worker that is gone, its folder with it, had said: its transcript stays.

        Returns: of its turn, and why it had to leave.
        """
        turns, job = self._ctx.turns, attempt["job"]
        for line in self._ctx.transcripts.recall(info.key.namespace, attempt["swarm"], job):
            record = parse(line)
            if record is not None and record.get("injection_id") in (
                None,
                attempt["injectionId"],
            ):
                turns.apply(job, record, self._ctx.clock.now())
        leaving = turns.worker(job).leaving
        turns.forget_worker(job)
        return turns.turns.get(attempt["injectionId"]), leaving

    async def _unacknowledged(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any]
    ) -> float | None:
        """Without contact it cannot be delivered, nor known whether it was: contact comes back."""
        if self._is_silent(info, attempt):
            return await self._say_unheard(obj)
        if stands_still(self._ctx, info, attempt):
            return FROZEN_SECONDS  # it cannot answer, by no fault of its own
        if attempt["injectionId"] in self._ctx.delivering:
            return DELIVERING_SECONDS
        return await self._redeliver(obj, info, attempt)

    def _is_silent(self, info: TaskInfo, attempt: Mapping[str, Any]) -> bool:
        return self._ctx.world.silence_of(info.key.namespace, attempt["swarm"]) is not None

    async def _say_unheard(self, obj: Resource) -> float | None:
        """What is known of an attempt without contact; that it is long, and contact, ask again."""
        status = dict(obj["status"])
        task_conditions(self._ctx, obj, status)
        await self._ctx.write_status(obj, status)
        return None

    async def _redeliver(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any]
    ) -> float | None:
        """Give the record again: after a restart, or when no acknowledgement came."""
        injection = attempt["injectionId"]
        now = self._ctx.clock.now()
        last, times = self._deliveries.get(injection, (None, 0))
        if last is None and injection in self._ctx.delivered:
            self._deliveries[injection] = now, 1
            return REDELIVER_SECONDS
        if last is not None and now - last < REDELIVER_SECONDS:
            return REDELIVER_SECONDS - (now - last)
        if times >= MAX_DELIVERIES:
            return await self._interrupter.step(obj, attempt, None, "NotAcknowledged")
        try:
            await deliver(self._ctx, obj)
        except (Undeliverable, RepositoryProblem) as error:
            self._deliveries.pop(injection, None)
            return await self._settler.undelivered(obj, info, attempt, error)
        except (NotYet, ProviderError) as error:
            return await self._held_up(obj, error)
        self._deliveries[injection] = now, times + 1
        return REDELIVER_SECONDS

    async def _held_up(self, obj: Resource, why: NotYet | ProviderError) -> float:
        """The record cannot be given now; seconds until the next try.

        The arrival of a repository that is being sent to where the worker is wakes the task.
        """
        if isinstance(why, ProviderError):
            self._ctx.event(obj, "NotDelivered", str(why), warning=True)
            return RETRY_SECONDS
        if why.message:
            writer = ConditionWriter(obj, self._ctx.now())
            writer.set("Running", False, "SendingRepository", why.message)
            await self._ctx.write_status(obj, {**obj["status"], "conditions": writer.conditions})
        return SENDING_SECONDS

    async def _follow(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts
    ) -> float | None:
        """The turn runs: note when it began and what it has used so far."""
        self._deliveries.pop(attempt["injectionId"], None)
        status = dict(obj["status"])
        new = dict(attempt)
        if new["state"] == "Assigned":
            new["state"] = "Running"
            new["startedAt"] = self._ctx.now()
        if turn.working_at is not None and "turnStartedAt" not in new:
            new["turnStartedAt"] = stamp(turn.working_at)
        merge_usage(self._ctx, info.key.namespace, new, turn)
        show_waiting(self._ctx, obj, new, turn, status)
        status["attempts"] = [*status["attempts"][:-1], new]
        status["phase"] = "Running"
        status["observedGeneration"] = obj["metadata"]["generation"]
        task_conditions(self._ctx, obj, status)
        obj = await self._end.guard(await self._ctx.write_status(obj, status), info)
        await ensure_approvals(self._ctx, obj, new, turn)
        return self._interrupter.next_deadline(obj, info, new, turn)

    # --- no open attempt ---------------------------------------------------------------------

    async def _finished(self, obj: Resource, info: TaskInfo) -> float | None:
        status = obj["status"]
        token = info.retry
        if token:
            if info.phase != "Succeeded" and not info.cancel:
                self._ctx.event(obj, "RetryRequested", "a person asked for another attempt")
                await self._ctx.write_status(obj, reset(self._ctx, obj, "Retried", retry=token))
                return FIRST_LOOK_SECONDS
            await self._ctx.write_status(obj, {**status, "observedRetry": token})
            return FOLLOW_UP_SECONDS
        seen = status.get("observedGeneration") == obj["metadata"]["generation"]
        reason = stale_success(self._ctx.world, info)
        if info.phase == "Cancelled" and not info.cancel and not seen:
            reason = reason or "it is not cancelled any more"
        if reason:
            self._ctx.event(obj, "Reset", reason)
            await self._ctx.write_status(obj, reset(self._ctx, obj, "Reset"))
            return FIRST_LOOK_SECONDS
        if not seen:
            fresh = {**status, "observedGeneration": obj["metadata"]["generation"]}
            task_conditions(self._ctx, obj, fresh)
            obj = await self._ctx.write_status(obj, fresh)
        return await self._end.expire(obj, info)

    async def _waiting(self, obj: Resource, info: TaskInfo) -> float | None:
        status = dict(obj.get("status") or {})
        if info.cancel:
            status.update(phase="Cancelled", reason="Cancelled", finishedAt=self._ctx.now())
            status["observedGeneration"] = obj["metadata"]["generation"]
            status.pop("blocker", None)
            task_conditions(self._ctx, obj, status)
            self._ctx.event(obj, "Cancelled", "cancelled before it began")
            await self._ctx.write_status(obj, status)
            return FOLLOW_UP_SECONDS
        problem = self._unresolved(obj)
        if self._ctx.world.is_reserved(info.key):
            return 1.0
        if problem is None:
            self._ctx.refresh(info)
            early = self._too_early(info, status)
            if early > 0:
                return early
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
            return UNRESOLVED_SECONDS
        if info.next_at > self._ctx.clock.now():
            return info.next_at - self._ctx.clock.now() + 0.005
        return None

    def _too_early(self, info: TaskInfo, status: Mapping[str, Any]) -> float:
        """How long to wait before it is said that a task waits, and what for; 0 for not at all.

        A controller that has just begun does not know its swarms yet: what status says is better.
        """
        now = self._ctx.clock.now()
        early = self._begun + UNOBSERVED_SECONDS - now
        if early > 0 and self._unobserved(info):
            return early
        age = now - (seconds_of(info.created) or 0.0)
        return FIRST_LOOK_SECONDS if not status and 0 <= age < FIRST_LOOK_SECONDS else 0.0

    def _unobserved(self, info: TaskInfo) -> bool:
        """Whether a swarm that it may run on has not been looked at in this controller's life."""
        keys = (Key("Swarm", info.key.namespace, name) for name in pool_of(self._ctx.world, info))
        swarms = (self._ctx.world.swarms.get(key) for key in keys)
        return any(s is not None and s.accepted and not s.observed for s in swarms)

    def _unresolved(self, obj: Resource) -> Unresolved | None:
        if "promptFrom" not in obj["spec"]:
            return None
        text = self._ctx.text(obj, obj["spec"], "prompt")
        return text if isinstance(text, Unresolved) else None
