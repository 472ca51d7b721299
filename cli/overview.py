"""The state of a namespace as a few short tables, for ``status`` and ``top``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cli import ages

if TYPE_CHECKING:
    from cli.client import Client
    from controller.store.base import Resource


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
                status.get("costUsd") or "",
                status.get("reason") or "",
            ]
        )
    return rows


def project_rows(overview: Overview) -> list[list[str]]:
    """NAME, PHASE, DONE, RUNNING, FAILED, BRANCH, COST, REASON."""
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
                status.get("costUsd") or "",
                status.get("reason") or "",
            ]
        )
    return rows


def worker_rows(swarm: Resource, now: float) -> list[list[str]]:
    """WORKER, PHASE, TASK, SINCE, REASON."""
    return [
        [
            f"{name_of(swarm)}/{worker.get('index', '?')}",
            worker.get("phase", ""),
            worker.get("task", ""),
            ages.age(worker.get("readyAt") or worker.get("launchedAt"), now),
            worker.get("reason") or "",
        ]
        for worker in status_of(swarm).get("workers") or []
    ]


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
    """What a person should look at, a line each."""
    lines = []
    for swarm in overview.swarms:
        if phase_of(swarm) in ("Failed", "Degraded"):
            lines.append(_line("swarm", swarm, "explain swarm/"))
    for project in overview.projects:
        if phase_of(project) in ("Failed", "Attention"):
            lines.append(_line("project", project, "explain project/"))
    for task in overview.tasks:
        if phase_of(task) == "Failed":
            lines.append(_line("task", task, "retry "))
    for approval in overview.approvals:
        if not approval["spec"].get("decision"):
            lines.append(_line("approval", approval, "describe approval/"))
    return lines


def _line(kind: str, obj: Resource, advice: str) -> str:
    reason = status_of(obj).get("reason") or ""
    text = f"{kind}/{name_of(obj)} {phase_of(obj)}" + (f" ({reason})" if reason else "")
    return f"{text}: codeswarm {advice}{name_of(obj)}"


def queue_of(overview: Overview, swarm: str) -> Sequence[Resource]:
    """Prompts for a swarm that have not begun."""
    return [
        task
        for task in overview.tasks
        if (task["spec"].get("target") or {}).get("swarm") == swarm
        and phase_of(task) in ("Pending", "Waiting")
    ]
