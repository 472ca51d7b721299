"""Agents' open questions as objects, as a Task's pass sees them: made, waited for, confirmed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from controller.domain.questions import default_answer
from controller.domain.shell import inner
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import ConditionWriter, Context, owner_reference, sibling
from controller.reconcile.turns import TurnFacts
from controller.store.base import AlreadyExists, Key, Resource

API_VERSION = "codeswarm.dev/v1alpha1"
SWARM_LABEL = "codeswarm.dev/swarm"
DEFAULT_TIMEOUT = 86_400.0
WAITING = "WaitingForApproval"


def approval_name(task: str, attempt: int, request: str) -> str:
    """The Approval of one question: the same for every repetition of it."""
    digest = hashlib.sha256(request.encode("utf-8", "replace")).hexdigest()[:10]
    return f"{task}.{attempt}.{digest}"


def _key(task: Resource, attempt: Mapping[str, Any], request: str) -> Key:
    return sibling(
        task, "Approval", approval_name(task["metadata"]["name"], attempt["number"], request)
    )


def settings_of(ctx: Context, swarm: Key) -> Mapping[str, Any]:
    """``approvals`` of a swarm as its last pass resolved it, its class and the defaults in it."""
    status = (ctx.store.get(swarm) or {}).get("status") or {}
    return (status.get("effective") or {}).get("approvals") or {}


def summary(request: Mapping[str, Any]) -> str:
    """What is asked for, in a line."""
    asked = (
        inner(str(request.get("command") or ""))
        or ", ".join(request.get("paths") or ())
        or request.get("tool")
    )
    return " ".join(str(asked or request.get("kind") or "").split())[:200]


async def ensure_approvals(
    ctx: Context, task: Resource, attempt: dict[str, Any], turn: TurnFacts
) -> None:
    """Make an object of each open question of a turn."""
    for request, asked in list(turn.approvals.items()):  # more may be asked meanwhile
        if request in turn.resolved:
            continue
        key = _key(task, attempt, request)
        if ctx.store.get(key) is None:
            await _create(ctx, task, attempt, key, {**asked, "id": request})


async def _create(
    ctx: Context, task: Resource, attempt: dict[str, Any], key: Key, asked: dict[str, Any]
) -> None:
    settings = settings_of(ctx, sibling(task, "Swarm", attempt["swarm"]))
    now = ctx.clock.now()
    default = settings.get("defaultDecision", "deny")
    request: dict[str, Any] = {
        **asked,
        "swarm": attempt["swarm"],
        "worker": attempt["worker"],
        "job": attempt["job"],
        "task": task["metadata"]["name"],
        "taskUid": task["metadata"]["uid"],
        "attempt": attempt["number"],
        "injectionId": attempt["injectionId"],
        "askedAt": stamp(now),
        "expiresAt": stamp(now + float(settings.get("timeoutSeconds", DEFAULT_TIMEOUT))),
        "defaultDecision": default_answer(default, asked["decisions"]),
    }
    metadata = {
        "name": key.name,
        "namespace": key.namespace,
        "labels": {SWARM_LABEL: attempt["swarm"]},
        "ownerReferences": [owner_reference(task)],
    }
    obj = {"apiVersion": API_VERSION, "kind": "Approval", "metadata": metadata}
    try:
        await ctx.create({**obj, "spec": {"request": request}})
    except AlreadyExists:
        return
    ctx.queue.add(key)


def show_waiting(
    ctx: Context,
    task: Resource,
    attempt: Mapping[str, Any],
    turn: TurnFacts,
    status: dict[str, Any],
) -> None:
    """Say in a running Task's status whose answer it waits for, or that it waits for none."""
    waiting = []
    for request in turn.approvals:
        if request not in turn.resolved:
            found = ctx.store.get(_key(task, attempt, request))
            if found is not None and (found.get("status") or {}).get("phase") == "Pending":
                waiting.append(found)
    if not waiting:
        stop_waiting(status)
        return
    name = waiting[0]["metadata"]["name"]
    more = f", and for {len(waiting) - 1} more" if len(waiting) > 1 else ""
    asked = summary(waiting[0]["spec"]["request"])
    status["blocker"] = {
        "reason": WAITING,
        "message": f"waits for approval {name}{more}: {asked}",
        "on": {"kind": "Approval", "name": name},
    }
    status["reason"] = WAITING


def stop_waiting(status: dict[str, Any]) -> None:
    """Take back what ``show_waiting`` said."""
    if (status.get("blocker") or {}).get("reason") == WAITING:
        del status["blocker"]
    if status.get("reason") == WAITING:
        del status["reason"]


def waited(ctx: Context, task: Resource, attempt: Mapping[str, Any]) -> float:
    """Seconds in which questions of an attempt were open, overlaps counted once."""
    now = ctx.clock.now()
    spans = []
    namespace, uid = task["metadata"]["namespace"], task["metadata"]["uid"]
    for found in ctx.store.list("Approval", namespace, owner_uid=uid):
        request, status = found["spec"]["request"], found.get("status") or {}
        if request.get("injectionId") == attempt["injectionId"]:
            begin = seconds_of(request.get("askedAt")) or now
            end = seconds_of(status.get("deliveredAt"))
            if end is None and status.get("expired"):
                end = seconds_of(status.get("decidedAt")) or begin
            spans.append((begin, now if end is None else end))
    total, until = 0.0, 0.0
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


async def confirm_answers(
    ctx: Context, task: Resource, attempt: Mapping[str, Any], turn: TurnFacts
) -> None:
    """Note which answers the worker has confirmed, before what it said is forgotten."""
    for request in list(turn.approvals):
        if request not in turn.resolved or request in turn.noted:
            continue
        found = ctx.store.get(_key(task, attempt, request))
        status = dict((found or {}).get("status") or {})
        if found is not None and "outcome" in status and "delivered" not in status:
            await note_answer(ctx, found, status, turn)
        turn.noted.add(request)


async def note_answer(ctx: Context, obj: Resource, status: dict[str, Any], turn: TurnFacts) -> None:
    """Write that the worker has an answer to a settled question: ours, or another one."""
    told = turn.resolved[obj["spec"]["request"]["id"]]
    if told == status["outcome"]:
        status.update(delivered=True, deliveredAt=ctx.now())
        await write_approval(ctx, obj, status, "Confirmed")
        return
    status.update(delivered=False, expired=True)
    message = f"the agent went on with {told or 'no decision'!r} instead"
    await write_approval(ctx, obj, status, "AnsweredOtherwise", message)


async def write_approval(
    ctx: Context,
    obj: Resource,
    status: dict[str, Any],
    delivered: str,
    message: str = "",
) -> Resource:
    """Store an Approval's status with its two conditions; ``Delivered`` has the given reason."""
    writer = ConditionWriter(obj, ctx.now())
    decided = status["source"].capitalize() if "outcome" in status else "Waiting"
    writer.set("Decided", "outcome" in status, decided, status.get("message", ""))
    writer.set("Delivered", bool(status.get("delivered")), delivered, message)
    status["conditions"] = writer.conditions
    status["observedGeneration"] = obj["metadata"]["generation"]
    return await ctx.write_status(obj, status)
