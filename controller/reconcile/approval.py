"""Approval: an agent's question, its one answer, and the answer's way back to the agent."""

from __future__ import annotations

from typing import Any

from controller.domain.questions import default_answer, fitting
from controller.domain.rules import Verdict, judge
from controller.reconcile.clock import seconds_of
from controller.reconcile.context import Context, sibling
from controller.reconcile.questions import note_answer, settings_of, summary, write_approval
from controller.reconcile.turns import TurnFacts
from controller.store.base import Key, Resource, key_of
from providers.base import ProviderError

REDELIVER_SECONDS = 10.0


class ApprovalReconciler:
    """Settles a question once, then has the answer delivered until the worker confirms it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._sent: dict[Key, tuple[str, float]] = {}
        """By Approval: its uid, and when its answer was sent last."""
        self._rules: dict[Key, Any] = {}
        """By Swarm: what it says of approvals."""

    def look(self, swarm: Resource) -> None:
        """A Swarm as stored: rules that are new hold for open questions too."""
        key = key_of(swarm)
        rules = ((swarm.get("status") or {}).get("effective") or {}).get("approvals")
        if rules != self._rules.get(key):
            self._rules[key] = rules
            for approval, name in self._ctx.world.approvals.items():
                if (approval.namespace, name) == (key.namespace, key.name):
                    self._ctx.queue.add(approval)

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Approval; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        status = dict((obj or {}).get("status") or {})
        over = status.get("delivered") or status.get("expired")
        if obj is None or over or "deletionTimestamp" in obj["metadata"]:
            self._sent.pop(key, None)
            self._ctx.world.approvals.pop(key, None)
            return None
        if "outcome" not in status:
            return await self._settle(obj, status)
        return await self._deliver(key, obj, status)

    # --- the one answer ------------------------------------------------------------------------

    async def _settle(self, obj: Resource, status: dict[str, Any]) -> float | None:
        """One status write decides; only what is written is ever sent."""
        request, decision = obj["spec"]["request"], obj["spec"].get("decision")
        now = self._ctx.clock.now()
        deadline = seconds_of(request.get("expiresAt")) or now
        turn = self._turn(obj)
        if self._gone(obj) or (turn is not None and request["id"] in turn.resolved):
            return await self._expire(obj, status)
        verdict = None if decision else self._judge(obj)
        if decision:
            self._by_a_person(status, decision)
        elif verdict is not None:
            status.update(outcome=verdict.decision, source="rule", by=verdict.by)
        elif now >= deadline:
            default = request.get("defaultDecision", "deny")
            status.update(outcome=default_answer(default, request["decisions"]), source="deadline")
        else:
            return await self._wait(obj, status, deadline - now)
        status["decidedAt"] = self._ctx.now()
        approved = status["outcome"].startswith("approve")
        status["phase"] = "Approved" if approved else "Denied"
        status["message"] = told(status, (decision or {}).get("reason", ""))
        stored = await write_approval(self._ctx, obj, status, "Sending")
        self._ctx.event(stored, "Decided", f"{status['message']}: {summary(request)}"[:1024])
        self._wake_task(obj)
        return 0.001

    def _by_a_person(self, status: dict[str, Any], decision: dict[str, Any]) -> None:
        by = decision.get("by", "")
        status.update(outcome=decision["value"], source="person")
        if by:
            status["by"] = by
        vouched = self._ctx.settings.approvals_by_verified and not self._ctx.sources.files
        status["byVerified"] = bool(by) and vouched

    def _judge(self, obj: Resource) -> Verdict | None:
        """What the swarm's rules answer, in one of the decisions offered."""
        request = obj["spec"]["request"]
        rules = settings_of(self._ctx, sibling(obj, "Swarm", request["swarm"])).get("rules") or ()
        verdict = judge(rules, request)
        decision = fitting(verdict.decision, request["decisions"]) if verdict else None
        return Verdict(decision, verdict.by) if verdict and decision else None

    async def _wait(self, obj: Resource, status: dict[str, Any], seconds: float) -> float:
        first = status.get("phase") != "Pending"
        request = obj["spec"]["request"]
        status.update(phase="Pending")
        if "expiresAt" in request:
            status["expiresAt"] = request["expiresAt"]
        await write_approval(self._ctx, obj, status, "NotDecided")
        if first:
            self._ask(obj)
        return max(0.05, seconds + 0.01)

    def _ask(self, obj: Resource) -> None:
        """A person has to answer: say so at the Task."""
        name = obj["metadata"]["name"]
        task = self._ctx.store.get(sibling(obj, "Task", obj["spec"]["request"].get("task", "")))
        if task is not None:
            asked = summary(obj["spec"]["request"])
            self._ctx.event(task, "ApprovalRequired", f"approval {name}: {asked}")
        self._wake_task(obj)

    def _wake_task(self, obj: Resource) -> None:
        """Its status says what it waits for."""
        self._ctx.queue.add(sibling(obj, "Task", obj["spec"]["request"].get("task", "")))

    # --- its way to the agent ------------------------------------------------------------------

    async def _deliver(self, key: Key, obj: Resource, status: dict[str, Any]) -> float | None:
        turn = self._turn(obj)
        if turn is not None and obj["spec"]["request"]["id"] in turn.resolved:
            await note_answer(self._ctx, obj, status, turn)
            return None
        if self._gone(obj):
            return await self._expire(obj, status)
        if not self._known(obj):
            return 1.0
        now, uid = self._ctx.clock.now(), obj["metadata"]["uid"]
        sent_uid, sent_at = self._sent.get(key, ("", 0.0))
        if sent_uid != uid or now - sent_at >= REDELIVER_SECONDS:
            self._sent[key] = uid, now
            await self._send(obj, status)
        return REDELIVER_SECONDS

    async def _send(self, obj: Resource, status: dict[str, Any]) -> None:
        request = obj["spec"]["request"]
        payload = {
            "action": "approval",
            "request_id": request["id"],
            "injection_id": request["injectionId"],
            "decision": status["outcome"],
            "by": status.get("by") or status["source"],
        }
        reason = (obj["spec"].get("decision") or {}).get("reason")
        if reason and status["source"] == "person":
            payload["reason"] = reason
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": payload}
        try:
            handle, provider = self._ctx.handle_of(sibling(obj, "Swarm", request["swarm"]))
            await provider.deliver(handle, request["job"], request["worker"], record)
        except ProviderError as error:
            self._ctx.event(obj, error.reason, str(error), warning=True)

    def _turn(self, obj: Resource) -> TurnFacts | None:
        return self._ctx.turns.turns.get(obj["spec"]["request"].get("injectionId", ""))

    def _known(self, obj: Resource) -> bool:
        swarm = self._ctx.world.swarms.get(sibling(obj, "Swarm", obj["spec"]["request"]["swarm"]))
        return swarm is not None and swarm.observed

    def _gone(self, obj: Resource) -> bool:
        """The question's turn is over, or it was never asked: nobody waits for an answer."""
        request = obj["spec"]["request"]
        task = self._ctx.world.tasks.get(sibling(obj, "Task", request.get("task", "")))
        if task is None or "injectionId" not in request or "worker" not in request:
            return True
        return task.open_injection != request["injectionId"] or not task.open_injection

    async def _expire(self, obj: Resource, status: dict[str, Any]) -> float | None:
        if "outcome" not in status:
            status.update(outcome="expired", source="expiry", phase="Expired")
            status["decidedAt"] = self._ctx.now()
            status["message"] = "the agent does not wait for an answer any more"
        status["expired"] = True
        await write_approval(self._ctx, obj, status, "QuestionGone")
        self._wake_task(obj)
        return None


def told(status: dict[str, Any], reason: str) -> str:
    """An answer as a sentence: ``deny by ada: it is not ours``."""
    source, by = status["source"], status.get("by", "")
    whose = {"rule": f" by rule {by}", "deadline": " by the deadline"}.get(
        source, f" by {by}" if by else ""
    )
    return f"{status['outcome']}{whose}" + (f": {reason}" if reason else "")
