"""A Task's status: its conditions, its usage, and the way back to the beginning."""

from __future__ import annotations

from typing import Any

from controller.domain.cost import spent_of_rows
from controller.reconcile.attempts import open_attempt
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.spending import put_spent
from controller.store.base import Resource


def sum_usage(status: dict[str, Any]) -> None:
    """The Task's own total over all its attempts."""
    rows = list((status.get("folded") or {}).get("usage") or ())
    for attempt in status.get("attempts") or ():
        rows.extend(attempt.get("usage") or ())
    put_spent(status, spent_of_rows(rows))


def task_conditions(ctx: Context, obj: Resource, status: dict[str, Any]) -> None:
    """Derive the conditions (Accepted is refused by who judged it) and sums from the rest."""
    writer = ConditionWriter({**obj, "status": status}, ctx.now())
    phase, reason = status.get("phase", "Pending"), status.get("reason") or "Waiting"
    message = str(status.get("message") or (status.get("blocker") or {}).get("message", ""))
    attempt = open_attempt(status)
    if writer.missing("Accepted") or writer.status_of("Accepted")[0] == "True":
        writer.set("Accepted", True, "Accepted")
    if attempt is not None:
        writer.set("Assignable", True, "Assigned", f"{attempt['swarm']}/{attempt['worker']}")
    elif phase in ("Succeeded", "Failed", "Cancelled"):
        writer.set("Assignable", False, "Finished")
    else:
        writer.set("Assignable", False, reason, message)
    running = attempt is not None and attempt["state"] != "Assigned"
    silence = attempt and ctx.world.silence_of(obj["metadata"]["namespace"], attempt["swarm"])
    if silence and silence.is_long(ctx.clock.now()):
        text = f"{silence.reason}: {silence.message}"
        writer.set("Running", None, "ProviderUnreachable", text[:1024])
    else:
        writer.set("Running", running, "TurnRunning" if running else phase)
    _durable(writer, status, phase)
    writer.set("Complete", phase == "Succeeded", "Succeeded" if phase == "Succeeded" else phase)
    failed = phase in ("Failed", "Cancelled")
    writer.set("Failed", failed, reason if failed else phase, message if failed else "")
    status["conditions"] = writer.conditions
    sum_usage(status)


def _durable(writer: ConditionWriter, status: dict[str, Any], phase: str) -> None:
    if phase == "Succeeded" and status.get("headCommit"):
        writer.set("BranchDurable", True, "Pushed", status["headCommit"])
    elif phase == "Succeeded":
        writer.set("BranchDurable", True, "NothingToKeep")
    else:
        writer.set("BranchDurable", False, "NotFinished")


OF_A_RESULT = (
    "headCommit", "headRef", "baseCommit", "filesChanged", "filesChangedCount", "verification",
    "answer", "result", "finishedAt", "nextAttemptAt", "warnings", "blocker", "message",
    "targets", "progress",
)  # fmt: skip


def reset(ctx: Context, obj: Resource, reason: str, *, retry: str = "") -> dict[str, Any]:
    """The status of a task that begins anew: its attempts stay, its result and failures go."""
    status = {k: v for k, v in (obj.get("status") or {}).items() if k not in OF_A_RESULT}
    status["phase"] = "Pending"
    status["reason"] = reason
    status["observedGeneration"] = obj["metadata"]["generation"]
    status.pop("failures", None)
    if retry:
        status["observedRetry"] = retry
    task_conditions(ctx, obj, status)
    return status
