"""A Swarm's status: its table of workers, counts and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.domain.cost import Agent, spent_of_rows
from controller.domain.fleet import (
    FAILURES_UNTIL_FAILED,
    IN_THE_QUEUE,
    LOST,
    Entry,
    FleetPlan,
)
from controller.domain.machines import bill_of_status
from controller.domain.pauses import Pause
from controller.reconcile.budget import budget_condition
from controller.reconcile.clock import seconds_of, stamp
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.infos import folded_spent, queued_by
from controller.reconcile.pauses import quota_condition
from controller.reconcile.pricing import agent_of, merged, price_folded
from controller.reconcile.spending import (
    put_cost,
    put_folded,
    put_folded_of_worker,
    put_spent,
    put_spent_of_worker,
    short_rows,
)
from controller.reconcile.sums import present, present_by
from controller.reconcile.swarm_spec import Launchable, Problem
from controller.resources.conditions import find
from controller.store.base import Key, Resource
from providers.base import InProgress, ProviderError

FINALIZER = "codeswarm.dev/workers"
MAX_SESSIONS = 20
MAX_PROGRESS = 1024
DELAYED = "not all have come within"


def entries_of(obj: Resource) -> list[Entry]:
    """The table of workers as it was last written."""
    rows = (obj.get("status") or {}).get("workers") or ()
    return [
        Entry(
            index=row["index"],
            job=row["job"],
            phase=row["phase"],
            spec_hash=row.get("specHash", ""),
            launched_at=seconds_of(row.get("launchedAt")) or 0.0,
            ready_at=seconds_of(row.get("readyAt")),
            handle=row.get("handle", ""),
            reason=row.get("reason", ""),
            message=row.get("message", ""),
        )
        for row in rows
    ]


def _row(ctx: Context, entry: Entry, before: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "index": entry.index,
        "job": entry.job,
        "phase": entry.phase,
        "specHash": entry.spec_hash,
        "launchedAt": stamp(entry.launched_at),
    }
    if entry.ready_at is not None:
        row["readyAt"] = stamp(entry.ready_at)
    for name, value in (
        ("handle", entry.handle),
        ("reason", entry.reason),
        ("message", entry.message),
    ):
        if value:
            row[name] = value
    task = ctx.world.open_jobs.get(entry.job)
    if task is not None:
        row["task"] = task.name
    facts = ctx.turns.workers.get(entry.job)
    if before.get("phase") == entry.phase and before.get("lastEvent"):
        row["lastEvent"] = before["lastEvent"]
    elif facts is not None and facts.last_event:
        row["lastEvent"] = facts.last_event
    return row


def _system_usage(
    ctx: Context, job: str, before: Mapping[str, Any], agent: Agent
) -> list[dict[str, Any]]:
    """What the system prompt's own turn has used: totals that only grow."""
    turn = ctx.turns.turns.get(f"{job}.system")
    return short_rows(merged(ctx, agent, job, before.get("systemUsage"), turn))[:MAX_SESSIONS]


def _put_usage(
    ctx: Context,
    row: dict[str, Any],
    before: Mapping[str, Any],
    folded_uids: Iterable[str],
    agent: Agent,
) -> None:
    """What a worker's turns have used, altogether."""
    job = row["job"]
    gone = spent_of_rows(price_folded(ctx, before.get("foldedByModel") or ()))
    system = _system_usage(ctx, job, before, agent)
    if system:
        row["systemUsage"] = system
    put_folded_of_worker(row, gone)
    tasks = present_by(ctx.world, job, folded_uids)
    put_spent_of_worker(row, spent_of_rows(system) + tasks + gone)


def swarm_status(
    ctx: Context,
    obj: Resource,
    want: Launchable,
    plan: FleetPlan,
    *,
    problem: Problem | None = None,
    trouble: ProviderError | None = None,
) -> dict[str, Any]:
    """The status after a pass.

    Args:
        problem: why the swarm is not accepted, if it is not.
        trouble: why its last launch failed, if it did.
    """
    status = dict(obj.get("status") or {})
    rows_before = {row["job"]: row for row in status.get("workers") or ()}
    rows = [_row(ctx, e, rows_before.get(e.job, {})) for e in plan.entries]
    agent = agent_of(want.effective.get("agent") or {}, ctx.settings.env_profiles)
    uids = status.get("foldedUids") or ()
    status["foldedByModel"] = price_folded(ctx, status.get("foldedByModel") or ())
    folded, there = folded_spent(status), {e.job for e in plan.entries}
    for job, row in rows_before.items():
        if job not in there:
            folded += spent_of_rows(_system_usage(ctx, job, row, agent))
    key = Key("Swarm", obj["metadata"]["namespace"], obj["metadata"]["name"])
    used = folded + present(ctx.world, key, uids)
    for row in rows:
        _put_usage(ctx, row, rows_before.get(row["job"], {}), uids, agent)
        used += spent_of_rows(row.get("systemUsage"))
    ready = sum(e.phase in ("Idle", "Busy") for e in plan.entries)
    busy = sum(e.phase == "Busy" for e in plan.entries)
    status.update(
        observedGeneration=obj["metadata"]["generation"],
        workers=rows,
        replicas=sum(e.phase != LOST for e in plan.entries),
        readyReplicas=ready,
        busyReplicas=busy,
        idleReplicas=ready - busy,
        ready=f"{ready}/{want.replicas}",
        selector=f"codeswarm.dev/swarm={obj['metadata']['name']}",
        incarnations=plan.incarnations,
        launchFailures=plan.launch_failures,
        effective=dict(want.effective),
    )
    _put(status, "progress", progress(trouble) if isinstance(trouble, InProgress) else "")
    _put(status, "nextLaunchAt", stamp(plan.next_launch_at) if plan.next_launch_at else None)
    put_folded(status, folded)
    put_spent(status, used)
    machines = bill_of_status(status.get("machines") or {})
    put_cost(status, used, machines)
    writer = ConditionWriter(obj, ctx.now())
    if budget_condition(writer, obj["spec"].get("budget"), used, machines):
        ctx.wake_dispatch()
    info = ctx.world.swarms.get(key)
    pause = quota_condition(
        writer, status, info.credential if info else "", ctx.world.pauses,
        namespace=key.namespace, now=ctx.clock.now(),
    )  # fmt: skip
    _conditions(writer, status, want, plan, trouble=trouble, pause=pause)
    if problem is not None:
        _refused(writer, status, problem)
    return status


def refusal(ctx: Context, obj: Resource, problem: Problem) -> dict[str, Any]:
    """The status of a swarm that is not accepted and has no workers."""
    status = dict(obj.get("status") or {})
    writer = ConditionWriter(obj, ctx.now())
    writer.set("ProviderReachable", None, "NotAccepted", "")  # nobody asks it any more
    for type in ("RolledOut", "QuotaAvailable", "WithinBudget"):
        if writer.missing(type):
            writer.set(type, None, "NotAccepted", "")
    status["observedGeneration"] = obj["metadata"]["generation"]
    status["phase"] = status.get("phase") or "Pending"
    _refused(writer, status, problem)
    return status


def _refused(writer: ConditionWriter, status: dict[str, Any], problem: Problem) -> None:
    for type in ("Accepted", "Available", "Ready"):
        writer.set(type, False, problem.reason, problem.message)
    status["conditions"], status["reason"] = writer.conditions, problem.reason


def progress(error: InProgress) -> str:
    """What is under way, as ``status.progress`` says it."""
    return f"{error.reason}: {error}"[:MAX_PROGRESS]


def _put(status: dict[str, Any], name: str, value: Any) -> None:
    if value:
        status[name] = value
    else:
        status.pop(name, None)


def _conditions(
    writer: ConditionWriter,
    status: dict[str, Any],
    want: Launchable,
    plan: FleetPlan,
    *,
    trouble: ProviderError | None,
    pause: Pause | None,
) -> None:
    ready, wanted = status["readyReplicas"], want.replicas
    outdated = sum(e.spec_hash != want.hash for e in plan.entries)
    lost = [e for e in plan.entries if e.phase == LOST]
    failed = plan.launch_failures >= FAILURES_UNTIL_FAILED or bool(lost and not ready and not pause)
    writer.set("Accepted", True, "Accepted")
    writer.set("ProviderReachable", True, "Reachable")
    if ready >= wanted:
        writer.set("Available", True, "WorkersReady", f"{ready} of {wanted} workers are ready")
    else:
        reason, why = _shortage(writer, want, plan, failed=failed, trouble=trouble)
        if plan.delayed:
            why += f"; {DELAYED} {want.soft_timeout:g} s"
        queued = queued_by(status["workers"])
        why += f"; {queued}" if queued else ""
        reason = _hindered(status["workers"], reason)
        writer.set("Available", False, reason, f"{ready} of {wanted} workers are ready{why}"[:2048])
    if outdated:
        writer.set("RolledOut", False, "Replacing", f"{outdated} workers run an older spec")
    else:
        writer.set("RolledOut", True, "UpToDate")
    done = ready >= wanted and not outdated and len(plan.entries) == wanted
    if pause is not None and pause.renews:
        writer.set("Ready", False, pause.reason, writer.status_of("QuotaAvailable")[1])
    elif done:
        writer.set("Ready", True, "WorkersReady", f"{ready} of {wanted} workers are ready")
    elif lost:
        writer.set("Ready", False, lost[0].reason, writer.status_of("Available")[1])
    else:
        writer.set("Ready", False, "Failed" if failed else "Progressing", f"{ready} of {wanted}")
    status["conditions"] = writer.conditions
    status["phase"] = _phase(status, done, failed, ready, wanted)
    _put(status, "reason", pause.reason if pause else "" if done else _reason(writer))


def _shortage(
    writer: ConditionWriter,
    want: Launchable,
    plan: FleetPlan,
    *,
    failed: bool,
    trouble: ProviderError | None,
) -> tuple[str, str]:
    """Why there are fewer workers than wanted: a reason, and what to add to its message."""
    reason = "LaunchFailed" if failed else "LaunchDelayed" if plan.delayed else "Launching"
    if want.allowed < want.replicas:
        reason = "WorkerLimit"
    late = plan.delayed and isinstance(trouble, InProgress)
    if trouble is not None and not failed and not late:
        reason = trouble.reason
    why = _last_failure(writer, plan, trouble)
    budget = find(writer.conditions, "WithinBudget") or {}
    if (want.begins_with_a_turn or not want.allowed) and budget.get("status") == "False":
        reason, why = budget["reason"], f"; {budget['message']}"
    lost = [e for e in plan.entries if e.phase == LOST]
    if lost:
        reason = lost[0].reason
        why = f"; worker {lost[0].index}: {lost[0].message or lost[0].reason}"
    return reason, why


def _hindered(rows: Iterable[Mapping[str, Any]], reason: str) -> str:
    """Why workers wait whose turn will not come by itself, if nothing worse is known."""
    found = [str(r.get("reason")) for r in rows if r["phase"] == "Starting" and r.get("message")]
    named = [one for one in found if one.isascii() and one.isalnum() and one[0].isupper()]
    return named[0] if named and reason in ("Launching", "LaunchDelayed") else reason


def _last_failure(writer: ConditionWriter, plan: FleetPlan, trouble: ProviderError | None) -> str:
    """Told until workers start again."""
    if trouble is not None:
        return f"; {trouble}"
    if plan.lost:
        return f"; last failure: {plan.lost[-1].reason}"
    if not plan.launch_failures:
        return ""
    told = writer.status_of("Available")[1].split("; ")[1:]
    return "".join(f"; {t}" for t in told if IN_THE_QUEUE not in t and not t.startswith(DELAYED))


def _phase(status: Mapping[str, Any], done: bool, failed: bool, ready: int, total: int) -> str:
    if done:
        return "Running"
    if failed:
        return "Failed"
    if status.get("phase") in ("Running", "Degraded") and ready < total:
        return "Degraded"
    return "Running" if ready >= total else "Launching"


def _reason(writer: ConditionWriter) -> str:
    for condition in writer.conditions:
        if condition["type"] in ("Available", "RolledOut") and condition["status"] != "True":
            return str(condition["reason"])
    return ""
