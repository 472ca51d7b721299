"""Approval: an agent's question, its one answer, and the answer's way back to the agent."""

from __future__ import annotations

import hashlib
from typing import Any

from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import ConditionWriter, Context, owner_reference, sibling
from controller.reconcile.turns import TurnFacts
from controller.store.base import AlreadyExists, Key, Resource
from providers.base import ProviderError

API_VERSION = "codeswarm.dev/v1alpha1"
DECISIONS = ("approve", "deny")
DEFAULT_TIMEOUT = 86_400.0
REDELIVER_SECONDS = 10.0


def approval_name(task: str, attempt: int, request: str) -> str:
    """The Approval of one question: the same for every repetition of it."""
    digest = hashlib.sha256(request.encode()).hexdigest()[:8]
    return f"{task}.{attempt}.{digest}"


async def ensure_approvals(
    ctx: Context, task: Resource, attempt: dict[str, Any], turn: TurnFacts
) -> None:
    """Make an object of each open question of a turn."""
    for request, asked in turn.approvals.items():
        key = sibling(task, "Approval", approval_name(
            task["metadata"]["name"], attempt["number"], request))  # fmt: skip
        if request not in turn.resolved and ctx.store.get(key) is None:
            await _create(ctx, task, attempt, key, {**asked, "request_id": request})


async def _create(
    ctx: Context, task: Resource, attempt: dict[str, Any], key: Key, asked: dict[str, Any]
) -> None:
    swarm = ctx.store.get(sibling(task, "Swarm", attempt["swarm"]))
    settings = ((swarm or {}).get("status") or {}).get("effective", {}).get("approvals") or {}
    now = ctx.clock.now()
    body: dict[str, Any] = {
        "id": asked["request_id"],
        "kind": "command",
        "command": str(asked.get("command", ""))[:8192],
        "directory": str(asked.get("cwd", ""))[:1024],
        "decisions": list(DECISIONS),
        "swarm": attempt["swarm"],
        "worker": attempt["worker"],
        "job": attempt["job"],
        "task": task["metadata"]["name"],
        "taskUid": task["metadata"]["uid"],
        "attempt": attempt["number"],
        "injectionId": attempt["injectionId"],
        "askedAt": stamp(now),
        "expiresAt": stamp(now + float(settings.get("timeoutSeconds", DEFAULT_TIMEOUT))),
        "defaultDecision": settings.get("defaultDecision", "deny"),
    }
    if asked.get("reason"):
        body["reason"] = str(asked["reason"])[:4096]
    try:
        await ctx.create(
            {
                "apiVersion": API_VERSION,
                "kind": "Approval",
                "metadata": {
                    "name": key.name,
                    "namespace": key.namespace,
                    "labels": {"codeswarm.dev/swarm": attempt["swarm"]},
                    "ownerReferences": [owner_reference(task)],
                },
                "spec": {"request": body},
            }
        )
    except AlreadyExists:
        return
    ctx.event(task, "ApprovalRequired", f"approval {key.name}: {body['command'][:200]}")
    ctx.queue.add(key)


class ApprovalReconciler:
    """Settles a question once, then has the answer delivered until the worker confirms it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._sent: dict[str, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Approval; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return None
        status = dict(obj.get("status") or {})
        if status.get("delivered") or status.get("expired"):
            return None
        if "outcome" not in status:
            return await self._settle(obj, status)
        return await self._deliver(obj, status)

    async def _settle(self, obj: Resource, status: dict[str, Any]) -> float | None:
        """One status write decides; only what is written is ever sent."""
        request, decision = obj["spec"]["request"], obj["spec"].get("decision")
        now = self._ctx.clock.now()
        deadline = seconds_of(request.get("expiresAt")) or now
        if self._gone(obj):
            return await self._expire(obj, status)
        if decision:
            status.update(outcome=decision["value"], source="person", by=decision.get("by", ""))
            status["byVerified"] = False
        elif now >= deadline:
            status.update(outcome=request.get("defaultDecision", "deny"), source="deadline")
        else:
            status.update(phase="Pending", expiresAt=request.get("expiresAt"))
            await self._write(obj, status, "Waiting", "NotDecided")
            return max(0.05, deadline - now + 0.01)
        status["decidedAt"] = self._ctx.now()
        approved = status["outcome"].startswith("approve")
        status["phase"] = "Approved" if approved else "Denied"
        await self._write(obj, status, status["source"].capitalize(), "Sending")
        return 0.001

    async def _deliver(self, obj: Resource, status: dict[str, Any]) -> float | None:
        request = obj["spec"]["request"]
        turn = self._ctx.turns.turns.get(request.get("injectionId", ""))
        if turn is not None and request["id"] in turn.resolved:
            status.update(delivered=True, deliveredAt=self._ctx.now())
            await self._write(obj, status, status["source"].capitalize(), "Confirmed")
            return None
        if self._gone(obj):
            return await self._expire(obj, status)
        if not self._known(obj):
            return 1.0
        now = self._ctx.clock.now()
        if now - self._sent.get(obj["metadata"]["uid"], 0.0) >= REDELIVER_SECONDS:
            self._sent[obj["metadata"]["uid"]] = now
            await self._send(obj, status)
        return REDELIVER_SECONDS

    async def _send(self, obj: Resource, status: dict[str, Any]) -> None:
        request = obj["spec"]["request"]
        approved = status["outcome"].startswith("approve")
        payload = {
            "action": "approval",
            "request_id": request["id"],
            "injection_id": request["injectionId"],
            "decision": "approve" if approved else "deny",
            "by": status.get("by") or status["source"],
        }
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": payload}
        try:
            handle, provider = self._ctx.handle_of(sibling(obj, "Swarm", request["swarm"]))
            await provider.deliver(handle, request["job"], request["worker"], record)
        except ProviderError as error:
            self._ctx.event(obj, error.reason, str(error), warning=True)

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
        status["expired"] = True
        await self._write(obj, status, status["source"].capitalize(), "QuestionGone")
        return None

    async def _write(
        self, obj: Resource, status: dict[str, Any], decided: str, delivered: str
    ) -> None:
        writer = ConditionWriter(obj, self._ctx.now())
        writer.set("Decided", "outcome" in status, decided)
        writer.set("Delivered", bool(status.get("delivered")), delivered)
        status["conditions"] = writer.conditions
        status["observedGeneration"] = obj["metadata"]["generation"]
        await self._ctx.write_status(obj, status)
