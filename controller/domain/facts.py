"""Facts for ``blockers`` from stored objects: how the CLI sees what the controller sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from controller.domain import graph
from controller.domain.blockers import Cause, ProjectFacts, SwarmFacts, TaskFacts
from controller.domain.paths import Claims
from controller.resources.conditions import find
from controller.resources.names import TargetError, TargetMode, parse_workers, task_object_name

UNDER_WAY = frozenset({"Assigned", "Running", "Interrupting"})
READY_PHASES = frozenset({"Idle", "Busy"})


@dataclass(slots=True)
class WorldFacts:
    """All facts of one namespace (see ``blockers.World``)."""

    now: float
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    projects: Mapping[str, ProjectFacts] = field(default_factory=dict)
    swarms: Mapping[str, SwarmFacts] = field(default_factory=dict)
    claims: Mapping[str, Claims[str]] = field(default_factory=dict)
    """By project: the paths of its tasks that are at work."""
    cycles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By task: the cycle that it is part of."""

    def task(self, name: str) -> TaskFacts | None:
        """A Task by its object's name."""
        return self.tasks.get(name)

    def project(self, name: str) -> ProjectFacts | None:
        """A Project by name."""
        return self.projects.get(name)

    def swarm(self, name: str) -> SwarmFacts | None:
        """A Swarm by name."""
        return self.swarms.get(name)

    def holder(self, project: str, owned_paths: tuple[str, ...]) -> str | None:
        """The running task of the project that holds some of these paths."""
        claims = self.claims.get(project)
        return claims.conflict(owned_paths) if claims else None

    def cycle(self, task: str) -> tuple[str, ...] | None:
        """The cycle of dependencies that the task is part of."""
        return self.cycles.get(task)


def facts_from_objects(
    tasks: Iterable[Mapping[str, Any]],
    projects: Iterable[Mapping[str, Any]],
    swarms: Iterable[Mapping[str, Any]],
    now: float,
) -> WorldFacts:
    """The facts of one namespace from its stored Tasks, Projects and Swarms.

    ``now`` is in seconds since the epoch.
    """
    projects = list(projects)
    pools = {
        p["metadata"]["name"]: tuple(w["swarm"] for w in p["spec"].get("workers") or ())
        for p in projects
    }
    task_facts = [_task(task, pools) for task in tasks]
    claims: dict[str, Claims[str]] = {}
    running: dict[str, int] = {}
    for task in task_facts:
        if task.project and task.attempt_state:
            running[task.project] = running.get(task.project, 0) + 1
            claims.setdefault(task.project, Claims()).add(task.name, task.owned_paths)
    chains = graph.cycles([graph.Node(task.name, task.depends_on) for task in task_facts])
    return WorldFacts(
        now=now,
        tasks={task.name: task for task in task_facts},
        projects={p["metadata"]["name"]: _project(p, running) for p in projects},
        swarms={
            s["metadata"]["name"]: _swarm(s)
            for s in swarms
            if "deletionTimestamp" not in s["metadata"]
        },
        claims=claims,
        cycles={name: chain for chain in chains for name in chain}
        | {
            task.name: (task.name, task.name) for task in task_facts if task.name in task.depends_on
        },
    )


def _task(obj: Mapping[str, Any], pools: Mapping[str, tuple[str, ...]]) -> TaskFacts:
    spec, status = obj["spec"], obj.get("status") or {}
    name, project, target = obj["metadata"]["name"], spec.get("project", ""), spec.get("target")
    attempts = status.get("attempts") or ()
    last = attempts[-1] if attempts else {}
    under_way = last.get("state") in UNDER_WAY
    depends_on = spec.get("dependsOn") or ()
    phase = status.get("phase") or "Pending"
    return TaskFacts(
        name=name,
        phase=phase,
        cause=_task_cause(status, last) if phase in ("Failed", "Cancelled") else None,
        refused=_false_condition(status, "Accepted"),
        suspended=bool(spec.get("suspend")),
        project=project,
        depends_on=tuple(task_object_name(project, d) if project else d for d in depends_on),
        owned_paths=tuple(spec.get("ownedPaths") or ()),
        pool=(target["swarm"],) if target else pools.get(project, ()),
        worker=_fixed_worker(target),
        next_attempt_at=_seconds(status.get("nextAttemptAt")),
        attempt=last.get("number", 0),
        attempt_state=last.get("state", "") if under_way else "",
        attempt_worker=f"{last.get('swarm', '')}/{last.get('worker', '')}" if under_way else "",
        attempt_swarm=last.get("swarm", "") if under_way else "",
    )


def _task_cause(status: Mapping[str, Any], last: Mapping[str, Any]) -> Cause | None:
    condition = find(status.get("conditions") or (), "Failed") or {}
    reason = status.get("reason") or condition.get("reason") or last.get("reason")
    message = condition.get("message") or last.get("message") or ""
    return Cause(reason, message) if reason else None


def _fixed_worker(target: Mapping[str, Any] | None) -> int | None:
    if not target:
        return None
    try:
        workers = parse_workers(target.get("workers", "idle"))
    except TargetError:
        return None
    single = workers.mode is TargetMode.INDICES and len(workers.indices) == 1
    return workers.indices[0] if single else None


def _project(obj: Mapping[str, Any], running: Mapping[str, int]) -> ProjectFacts:
    name, spec, status = obj["metadata"]["name"], obj["spec"], obj.get("status") or {}
    accepted = find(status.get("conditions") or (), "Accepted")
    refused = _false_condition(status, "Accepted", unknown_too=True)
    if accepted is None:
        refused = Cause("NotSeen", "the controller has not looked at it yet")
    return ProjectFacts(
        name=name,
        refused=refused,
        suspended=bool(spec.get("suspend")),
        halted=_false_condition(status, "WithinBudget"),
        max_parallel=spec.get("maxParallel"),
        running=running.get(name, 0),
    )


def _swarm(obj: Mapping[str, Any]) -> SwarmFacts:
    spec, status = obj["spec"], obj.get("status") or {}
    workers = status.get("workers") or ()
    wanted = spec.get("replicas", 1)
    state = f"{status.get('phase') or 'Pending'}, {status.get('ready') or f'0/{wanted}'} ready"
    quota = _false_condition(status, "QuotaAvailable")
    told = _false_condition(status, "Available") or _false_condition(status, "Ready")
    if told and told.message:
        state += f": {told.message}"
    return SwarmFacts(
        name=obj["metadata"]["name"],
        refused=_false_condition(status, "Accepted"),
        halted=_false_condition(status, "WithinBudget") or quota,
        away=_false_condition(status, "ProviderReachable"),
        state=state,
        indices=frozenset(range(wanted)) | {w["index"] for w in workers},
        ready=sum(w.get("phase") in READY_PHASES for w in workers),
        idle=frozenset(w["index"] for w in workers if w.get("phase") == "Idle"),
    )


def _false_condition(
    status: Mapping[str, Any], type: str, *, unknown_too: bool = False
) -> Cause | None:
    """The cause that a condition names, if it is False (or, if asked, Unknown)."""
    condition = find(status.get("conditions") or (), type)
    statuses = ("False", "Unknown") if unknown_too else ("False",)
    if condition is None or condition["status"] not in statuses:
        return None
    return Cause(condition["reason"], condition.get("message", ""))


def _seconds(timestamp: str | None) -> float | None:
    if not timestamp:
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None
