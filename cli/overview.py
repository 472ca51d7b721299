"""The state of a namespace as a few short tables, for ``status`` and ``top``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli import ages, hindrances
from cli.answers import question_of
from cli.money import money
from controller.resources.conditions import find

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Resource


MAX_CAUSE = 120  # characters of a cause in a line that points to the whole of it


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is, read once."""

    swarms: list[Resource]
    projects: list[Resource]
    tasks: list[Resource]
    approvals: list[Resource] = field(default_factory=list)


def look(client: Client, namespace: str | None) -> Overview:
    """Read everything of a namespace, or of all."""
    return Overview(
        swarms=client.list("Swarm", namespace),
        projects=client.list("Project", namespace),
        tasks=client.list("Task", namespace),
        approvals=client.list("Approval", namespace),
    )


def status_of(obj: Resource) -> dict[str, Any]:
    """The status, empty where there is none yet."""
    return obj.get("status") or {}


def phase_of(obj: Resource) -> str:
    """The phase as it is shown; ``Terminating`` while it is being deleted."""
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    return str(status_of(obj).get("phase") or "Pending")


def name_of(obj: Resource) -> str:
    """The name."""
    return str(obj["metadata"]["name"])


def space_of(obj: Resource) -> str:
    """The namespace."""
    return str(obj["metadata"].get("namespace") or "default")


def reason_of(obj: Resource) -> str:
    """The reason for its phase, or of what holds it up."""
    held = hindrances.of(obj)
    return str(status_of(obj).get("reason") or (held.reason if held else ""))


def done_of(project: Resource) -> tuple[int, int]:
    """Succeeded and all tasks of a project."""
    done, slash, total = str(status_of(project).get("progress") or "").partition("/")
    if slash and done.isdigit() and total.isdigit():
        return int(done), int(total)
    return 0, len(project["spec"].get("tasks") or [])


def swarm_rows(overview: Overview) -> list[list[str]]:
    """NAME, PHASE, READY, BUSY, RUNTIME, COST, REASON."""
    rows = []
    for swarm in overview.swarms:
        status = status_of(swarm)
        effective = (status.get("effective") or {}).get("agent") or {}
        rows.append(
            [
                name_of(swarm),
                phase_of(swarm),
                status.get("ready") or f"0/{swarm['spec'].get('replicas', 1)}",
                str(status.get("busyReplicas", 0)),
                effective.get("runtime", ""),
                money(status.get("costUsd")),
                reason_of(swarm),
            ]
        )
    return rows


def project_rows(overview: Overview) -> list[list[str]]:
    """NAME, PHASE, DONE, RUNNING, FAILED, BRANCH, COST, REASON."""
    held: dict[tuple[str, str], str] = {}
    for task in overview.tasks:
        hindrance = hindrances.of(task)
        if hindrance is not None:
            held.setdefault((space_of(task), task["spec"].get("project", "")), hindrance.reason)
    rows = []
    for project in overview.projects:
        status = status_of(project)
        counts = status.get("tasks") or {}
        done, total = done_of(project)
        rows.append(
            [
                name_of(project),
                phase_of(project),
                f"{done}/{total}",
                str(counts.get("running", 0)),
                str(counts.get("failed", 0)),
                status.get("branch") or "",
                money(status.get("costUsd")),
                reason_of(project) or held.get((space_of(project), name_of(project)), ""),
            ]
        )
    return rows


def worker_rows(swarm: Resource, now: float, tasks: Sequence[Resource] = ()) -> list[list[str]]:
    """WORKER, PHASE, TASK, SINCE, REASON: of a busy one since when it has its task."""
    since = {
        (space_of(task), name_of(task), attempt.get("job")): attempt.get("assignedAt")
        for task in tasks
        for attempt in (status_of(task).get("attempts") or [])[-1:]
    }
    return [
        [
            f"{name_of(swarm)}/{worker.get('index', '?')}",
            worker.get("phase", ""),
            worker.get("task", ""),
            ages.age(since.get(_at(swarm, worker)) or _beginning(worker), now),
            worker.get("reason") or "",
        ]
        for worker in status_of(swarm).get("workers") or []
    ]


def _at(swarm: Resource, worker: dict[str, Any]) -> tuple[str, str, str | None]:
    return space_of(swarm), worker.get("task", ""), worker.get("job")


def _beginning(worker: dict[str, Any]) -> str | None:
    return worker.get("readyAt") or worker.get("launchedAt")


def prompt_counts(overview: Overview) -> dict[str, int]:
    """Tasks without a project by phase."""
    counts: dict[str, int] = {}
    for task in overview.tasks:
        if not task["spec"].get("project"):
            counts[phase_of(task)] = counts.get(phase_of(task), 0) + 1
    return counts


def running_tasks(overview: Overview) -> list[Resource]:
    """Tasks that are at work."""
    return [task for task in overview.tasks if phase_of(task) == "Running"]


def attention(overview: Overview) -> list[str]:
    """What a person should look at, a line each; what has one cause is told once."""
    lines = []
    causes: set[str] = set()
    for obj in [*overview.swarms, *overview.projects]:
        held = hindrances.of(obj)
        if held is not None or phase_of(obj) in ("Failed", "Degraded", "Attention"):
            causes.update([held.cause] if held else [])
            lines.append(_line(obj, held.cause if held else reason_of(obj)))
    for task in overview.tasks:
        held = hindrances.of(task)
        if phase_of(task) == "Failed":
            lines.append(f"{_line(task, failure_of(task))}; codeswarm logs {name_of(task)}")
        elif held is not None and held.cause not in causes:
            causes.add(held.cause)
            lines.append(_line(task, held.cause))
    for approval in overview.approvals:
        if not approval["spec"].get("decision") and phase_of(approval) == "Pending":
            lines.append(_asks(approval))
    return lines


def _asks(approval: Resource) -> str:
    """A question that waits for a person, and where to read all of it."""
    request = approval["spec"].get("request") or {}
    whose = f"task/{request['task']}" if request.get("task") else "its agent"
    name = f"approval/{name_of(approval)}"
    return f"{name} {whose} asks ({question_of(request)}): codeswarm describe {name}"


def failure_of(task: Resource) -> str:
    """Why a task failed: the reason, its message, and what the agent noted."""
    status = status_of(task)
    failed = find(status.get("conditions") or [], "Failed") or {}
    reason = status.get("reason") or failed.get("reason") or ""
    message = failed.get("message") or ""
    notes = (status.get("result") or {}).get("notes") or ""
    parts = [reason, message, notes if notes not in message else ""]
    return ": ".join(part for part in parts if part)


def _line(obj: Resource, cause: str, subject: str = "") -> str:
    """The object, its phase, why, and the command that tells the rest (of ``subject``)."""
    name = f"{obj['kind'].lower()}/{name_of(obj)}"
    cause = " ".join(cause.split())
    if len(cause) > MAX_CAUSE:
        cause = cause[: MAX_CAUSE - 3] + "..."
    text = f"{name} {phase_of(obj)}" + (f" ({cause})" if cause else "")
    return f"{text}: codeswarm explain {subject or name}"


def queue_of(overview: Overview, swarm: str) -> Sequence[Resource]:
    """Prompts for a swarm that have not begun."""
    return [
        task
        for task in overview.tasks
        if (task["spec"].get("target") or {}).get("swarm") == swarm
        and phase_of(task) in ("Pending", "Waiting")
    ]
