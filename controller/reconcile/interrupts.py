"""Interrupting a turn: when it must end, and how it is made to."""

from __future__ import annotations

from typing import Any

from controller.reconcile.attempts import Undeliverable, user_record
from controller.reconcile.budget import EXCEEDED, overspent
from controller.reconcile.carriages import NotYet
from controller.reconcile.carrying import located
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import Context
from controller.reconcile.dispatch import deliver
from controller.reconcile.infos import TaskInfo, project_key
from controller.reconcile.pricing import merge_usage
from controller.reconcile.questions import stop_waiting, waited
from controller.reconcile.readiness import stale_run
from controller.reconcile.task_status import task_conditions
from controller.reconcile.turns import TurnFacts
from controller.repository.problems import RepositoryProblem
from controller.store.base import Key, Resource
from providers.base import Provider, ProviderError, SwarmHandle

SETTLE_SECONDS = 15.0
"""How long an interrupted worker may take to settle before it is stopped by force."""
LOOK_SECONDS = 1.0
FROZEN_SECONDS = 5.0
"""Between two looks at a turn whose worker stands still."""


def limits(ctx: Context, info: TaskInfo, spec: dict[str, Any]) -> tuple[float | None, float | None]:
    """The turn's timeout and its stall timeout, seconds: the task's own, else its project's."""
    project = ctx.world.projects.get(project_key(info)) if info.project else None
    timeout = spec.get("timeoutSeconds", project.timeout if project else None)
    stall = spec.get("stallTimeoutSeconds", project.stall if project else None)
    return timeout, stall


def wanted_interrupt(
    ctx: Context, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts | None
) -> str:
    """Why the open attempt must end now, or an empty string."""
    if "interrupt" in attempt:
        return str(attempt["interrupt"]["reason"])
    if info.deleting or info.cancel:
        return "Cancelled"
    if _superseded(ctx, info, attempt):
        return "Superseded"
    if overspent(ctx.world, info):
        return EXCEEDED
    return _late(ctx, info, obj, attempt, turn)


def _late(
    ctx: Context, info: TaskInfo, obj: Resource, attempt: dict[str, Any], turn: TurnFacts | None
) -> str:
    """Which of its limits in time a turn has run into, or an empty string."""
    if stands_still(ctx, info, attempt):
        return ""  # it may be done, or could not go on
    now = ctx.clock.now()
    timeout, stall = limits(ctx, info, obj["spec"])
    begun = _begun(attempt, turn)
    spent = now - begun - (turn.frozen if turn else 0.0) if begun is not None else 0.0
    if timeout is not None and spent > timeout and spent - waited(ctx, obj, attempt) > timeout:
        return "Timeout"
    if stall is None or turn is None or turn.accepted_at is None or turn.asks:
        return ""
    return "Stalled" if now - _heard(ctx, info, turn) > stall else ""


def stands_still(ctx: Context, info: TaskInfo, attempt: dict[str, Any]) -> bool:
    """Whether an open attempt's worker cannot be heard now, or cannot go on by no fault of its."""
    facts = ctx.turns.workers.get(attempt["job"])
    frozen = facts is not None and facts.frozen_since is not None
    return frozen or ctx.world.silence_of(info.key.namespace, attempt["swarm"]) is not None


def _heard(ctx: Context, info: TaskInfo, turn: TurnFacts) -> float:
    """When a turn was heard of last; what could not be heard does not count."""
    swarm = ctx.world.swarms.get(Key("Swarm", info.key.namespace, info.open_swarm))
    return max(turn.last_activity, swarm.contact_since if swarm else 0.0)


def _superseded(ctx: Context, info: TaskInfo, attempt: dict[str, Any]) -> bool:
    """Whether the attempt works on something that is not wanted (so) any more."""
    project = ctx.world.projects.get(project_key(info)) if info.project else None
    if info.project and (project is None or project.deleting):
        return True
    return attempt["revision"] != info.revision or stale_run(ctx.world, info, attempt)


def _swarm_key(obj: Resource, attempt: dict[str, Any]) -> Key:
    return Key("Swarm", obj["metadata"]["namespace"], attempt["swarm"])


def _begun(attempt: dict[str, Any], turn: TurnFacts | None) -> float | None:
    """When the agent's turn began, by our clock; what status says outlives a restart."""
    stored = seconds_of(attempt.get("turnStartedAt"))
    return stored if stored is not None else turn.working_at if turn else None


class Interrupter:
    """Ends a turn: the intent first, then the control record, at last the worker itself."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._sent: set[str] = set()

    async def step(
        self, obj: Resource, attempt: dict[str, Any], turn: TurnFacts | None, reason: str
    ) -> float | None:
        """One step; seconds until the next look, or None (contact asks for it)."""
        if "interrupt" not in attempt:
            status = dict(obj["status"])
            attempt = {
                **attempt,
                "state": "Interrupting",
                "interrupt": {"reason": reason, "at": self._ctx.now()},
            }
            merge_usage(self._ctx, obj["metadata"]["namespace"], attempt, turn)
            stop_waiting(status)
            status["attempts"] = [*status["attempts"][:-1], attempt]
            status["observedGeneration"] = obj["metadata"]["generation"]
            task_conditions(self._ctx, obj, status)
            self._ctx.event(obj, "Interrupting", f"attempt {attempt['number']}: {reason}")
            obj = await self._ctx.write_status(obj, status)
        injection, key = attempt["injectionId"], _swarm_key(obj, attempt)
        swarm = self._ctx.world.swarms.get(key)
        if swarm is not None and swarm.silence is not None:
            return None
        asked = seconds_of(attempt["interrupt"]["at"]) or 0.0
        asked = max(asked, swarm.contact_since if swarm else 0.0)
        if self._ctx.clock.now() - asked > SETTLE_SECONDS:
            self._sent.discard(injection)
            await self._stop(obj, attempt)
        elif injection not in self._sent and await self._send(obj, attempt, turn, reason):
            self._sent.add(injection)
        return LOOK_SECONDS

    async def _send(
        self, obj: Resource, attempt: dict[str, Any], turn: TurnFacts | None, reason: str
    ) -> bool:
        """A worker that may not know the injection is given it first, so that it can settle it.

        Returns: whether it was told.
        """
        swarm, unready = _swarm_key(obj, attempt), False
        handle, provider = self._ctx.handle_of(swarm)
        try:
            if turn is None or turn.accepted_at is None:
                await deliver(self._ctx, obj)
        except Undeliverable:
            pass  # nothing was delivered, so nothing can start: the stop below settles it
        except (NotYet, RepositoryProblem):
            unready = True
        except ProviderError:
            unready = provider.stores is not None
            if not unready:
                raise
        payload = {"action": "interrupt", "injection_id": attempt["injectionId"], "reason": reason}
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": payload}
        try:
            await provider.deliver(handle, attempt["job"], attempt["worker"], record)
            if unready:  # refused by its worker before it looks for the repository
                await self._give_up(obj, attempt, handle, provider)
        except ProviderError:
            self._ctx.queue.add(swarm)
            return False
        return True

    async def _give_up(
        self, obj: Resource, attempt: dict[str, Any], handle: SwarmHandle, provider: Provider
    ) -> None:
        """Deliver an attempt that was interrupted before its repository was where it runs."""
        try:
            told, _ = user_record(self._ctx, obj)
        except Undeliverable:
            return
        record = located(told, "/nowhere")
        await provider.deliver(handle, attempt["job"], attempt["worker"], record)

    async def _stop(self, obj: Resource, attempt: dict[str, Any]) -> None:
        swarm = _swarm_key(obj, attempt)
        handle, provider = self._ctx.handle_of(swarm)
        await provider.stop(handle, [attempt["job"]], force=True)
        self._ctx.queue.add(swarm)

    def next_deadline(
        self, obj: Resource, info: TaskInfo, attempt: dict[str, Any], turn: TurnFacts
    ) -> float | None:
        """Seconds until a limit of the running turn could be reached, or None.

        While its agent waits for an answer none can: the answer's delivery asks for a pass.
        """
        if turn.asks or self._ctx.world.silence_of(info.key.namespace, attempt["swarm"]):
            return None
        if stands_still(self._ctx, info, attempt):
            return FROZEN_SECONDS
        timeout, stall = limits(self._ctx, info, obj["spec"])
        now = self._ctx.clock.now()
        waits = []
        begun = _begun(attempt, turn)
        if timeout is not None and begun is not None:
            asked = waited(self._ctx, obj, attempt) if turn.approvals else 0.0
            waits.append(begun + turn.frozen + asked + timeout - now)
        if stall is not None:
            waits.append(_heard(self._ctx, info, turn) + stall - now)
        return max(0.05, min(waits) + 0.01) if waits else None
