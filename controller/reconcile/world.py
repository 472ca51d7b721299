"""The controller's compact picture of all objects: what decisions across objects are made from.

It holds no state of its own: everything is read from stored objects and can be read again.
Only reservations (a worker promised to a task whose status is being written) live here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from controller.domain.paths import Claims
from controller.domain.usage import ZERO, Usage, from_status
from controller.reconcile.clock import seconds_of
from controller.resources.conditions import find
from controller.store.base import Key, Resource
from providers.base import SwarmHandle

FINISHED = frozenset({"Succeeded", "Failed", "Cancelled"})
OPEN_STATES = frozenset({"Assigned", "Running", "Interrupting"})
_NOTHING_USED: Mapping[str, Usage] = MappingProxyType({})


@dataclass(slots=True)
class TaskInfo:
    """One Task, as far as others depend on it."""

    key: Key
    uid: str
    version: str
    created: str
    kind: str
    project: str
    name: str
    """Within the project; the object's name for a prompt."""
    priority: int
    depends_on: tuple[str, ...]
    owned_paths: tuple[str, ...]
    swarm: str
    """The target's swarm; empty for a project's task."""
    worker: int | None
    """A fixed worker index."""
    expands: bool
    parent: str
    revision: int
    hash: str
    suspend: bool
    cancel: bool
    deleting: bool
    accepted: bool
    phase: str
    reason: str
    attempt: int
    attempt_revision: int
    open_job: str
    open_injection: str
    open_swarm: str
    open_state: str
    open_worker: int
    head: str
    head_ref: str
    inputs: dict[str, str]
    next_at: float
    usage: Mapping[str, Usage]
    """By swarm."""

    @property
    def finished(self) -> bool:
        """No attempt will follow by itself."""
        return self.phase in FINISHED


@dataclass(slots=True)
class WorkerInfo:
    """One worker that may be given tasks."""

    swarm: Key
    index: int
    job: str
    ready: bool


@dataclass(slots=True)
class SwarmInfo:
    """One Swarm, as far as tasks depend on it."""

    key: Key
    uid: str
    version: str
    deleting: bool
    accepted: bool
    reason: str
    handle: SwarmHandle
    provider: str
    halted: str = ""
    """A blocker reason that stops new turns (budget, quota)."""
    observed: bool = False
    """The provider was asked in this controller's life: a job not in ``workers`` is gone."""
    workers: dict[str, WorkerInfo] = field(default_factory=dict)
    """By job: all that live, ready or not."""


@dataclass(slots=True)
class ProjectInfo:
    """One Project, as far as its tasks depend on it."""

    key: Key
    uid: str
    version: str
    generation: int
    deleting: bool
    accepted: bool
    suspended: bool
    swarms: tuple[str, ...]
    max_parallel: int | None
    url: str
    base_branch: str
    base_commit: str
    retry: Mapping[str, Any]
    timeout: float | None
    stall: float | None
    integrated: bool
    lost: frozenset[str] = frozenset()
    """Finished tasks whose work the remote no longer holds."""
    halted: str = ""
    order: dict[str, int] = field(default_factory=dict)
    cycles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By task name: the cycle of dependencies that it is part of."""
    refs: dict[str, str] = field(default_factory=dict)
    """The remote's refs that concern the project, as last seen."""
    tasks: dict[str, TaskInfo] = field(default_factory=dict)
    """By name within the project, owned or not, plan and integration included."""
    running: set[Key] = field(default_factory=set)


class World:
    """All tasks, projects and swarms, with the indexes that decisions need."""

    def __init__(self) -> None:
        self.tasks: dict[Key, TaskInfo] = {}
        self.projects: dict[Key, ProjectInfo] = {}
        self.swarms: dict[Key, SwarmInfo] = {}
        self.by_uid: dict[str, Key] = {}
        self.open_jobs: dict[str, Key] = {}
        """Job to the task whose open attempt it works on."""
        self._members: dict[Key, dict[str, TaskInfo]] = {}
        self._dependents: dict[tuple[Key, str], set[Key]] = {}
        self._targeting: dict[Key, set[Key]] = {}
        self._children: dict[Key, set[Key]] = {}
        self._usage: dict[Key, Usage] = {}
        self._claims: dict[Key, Claims[Key]] = {}
        self._shapes: dict[Key, dict[str, Any]] = {}
        self._reserved: dict[Key, str] = {}
        self._promised: dict[str, Key] = {}

    # --- tasks ---------------------------------------------------------------------------

    def observe_task(self, obj: Resource) -> tuple[TaskInfo | None, TaskInfo]:
        """Take over a stored Task; what was known before, and what is known now."""
        info = task_info(obj)
        before = self.tasks.get(info.key)
        if before is not None:
            self._unindex(before)
        if before is None or _shape(before) != _shape(info):
            self.reshaped(info)
        self.tasks[info.key] = info
        self._index(info)
        return before, info

    def forget_task(self, key: Key) -> TaskInfo | None:
        """A Task is gone."""
        info = self.tasks.pop(key, None)
        if info is not None:
            self._unindex(info)
            self.reshaped(info)
        return info

    def usage(self, owner: Key) -> Usage:
        """What all present tasks of a Project or Swarm have used."""
        return self._usage.get(owner, ZERO)

    def _account(self, info: TaskInfo, sign: int) -> None:
        for swarm, used in info.usage.items():
            owners = [Key("Swarm", info.key.namespace, swarm)]
            if info.project:
                owners.append(project_key(info))
            for owner in owners:
                known = self._usage.get(owner, ZERO)
                self._usage[owner] = known + used if sign > 0 else known - used

    def reshaped(self, info: TaskInfo) -> None:
        """The graph of a project's tasks is another one."""
        if info.project:
            self._shapes.pop(project_key(info), None)

    def reordered(self, project: Key) -> None:
        """The order of a project's tasks is another one."""
        self._shapes.pop(project, None)

    def per_shape(self, project: Key, name: str, compute: Callable[[World, Key], Any]) -> Any:
        """What follows from a project's graph alone, computed once for each graph."""
        known = self._shapes.setdefault(project, {})
        if name not in known:
            value = compute(self, project)
            known = self._shapes.setdefault(project, known)
            known[name] = value
        return known[name]

    def _index(self, info: TaskInfo) -> None:
        self.by_uid[info.uid] = info.key
        self._account(info, 1)
        if info.open_job:
            self.open_jobs[info.open_job] = info.key
        if info.project:
            owner = project_key(info)
            members = self._members.setdefault(owner, {})
            members[info.name] = info
            project = self.projects.get(owner)
            if project is not None:
                project.tasks = members
                if info.open_job:
                    project.running.add(info.key)
            if info.open_job:
                self.claims(owner).add(info.key, info.owned_paths)
            for name in info.depends_on:
                self._dependents.setdefault((owner, name), set()).add(info.key)
        if info.swarm:
            self._targeting.setdefault(swarm_key(info), set()).add(info.key)
        if info.parent:
            self._children.setdefault(_parent_key(info), set()).add(info.key)

    def _unindex(self, info: TaskInfo) -> None:
        self.by_uid.pop(info.uid, None)
        self._account(info, -1)
        if info.open_job and self.open_jobs.get(info.open_job) == info.key:
            del self.open_jobs[info.open_job]
        if info.project:
            owner = project_key(info)
            self._members.get(owner, {}).pop(info.name, None)
            project = self.projects.get(owner)
            if info.key not in self._reserved:
                self.claims(owner).remove(info.key)
                if project is not None:
                    project.running.discard(info.key)
            for name in info.depends_on:
                self._dependents.get((owner, name), set()).discard(info.key)
        if info.swarm:
            self._targeting.get(swarm_key(info), set()).discard(info.key)
        if info.parent:
            self._children.get(_parent_key(info), set()).discard(info.key)

    # --- reservations ------------------------------------------------------------------------

    def reserve(self, info: TaskInfo, worker: WorkerInfo) -> None:
        """Promise a worker, and the task's paths, while the intent is being written."""
        self._reserved[info.key] = worker.job
        self._promised[worker.job] = info.key
        if info.project:
            owner = project_key(info)
            self.claims(owner).add(info.key, info.owned_paths)
            if owner in self.projects:
                self.projects[owner].running.add(info.key)

    def unreserve(self, key: Key) -> None:
        """The intent is written, or given up: what holds now is what is stored."""
        job = self._reserved.pop(key, None)
        if job is not None:
            self._promised.pop(job, None)
        info = self.tasks.get(key)
        if info is not None and info.project and not info.open_job:
            owner = project_key(info)
            self.claims(owner).remove(key)
            if owner in self.projects:
                self.projects[owner].running.discard(key)

    def is_reserved(self, key: Key) -> bool:
        """Whether a worker is promised to this task."""
        return key in self._reserved

    def claims(self, project: Key) -> Claims[Key]:
        """The paths that a project's tasks at work hold."""
        found = self._claims.get(project)
        if found is None:
            found = self._claims[project] = Claims()
        return found

    def dependents(self, info: TaskInfo) -> list[TaskInfo]:
        """Tasks that depend directly on this one."""
        keys = self._dependents.get((project_key(info), info.name), ())
        return [self.tasks[key] for key in keys if key in self.tasks]

    def dependency(self, info: TaskInfo, name: str) -> TaskInfo | None:
        """A dependency of a project's task by its name."""
        return self._members.get(project_key(info), {}).get(name)

    def members(self, project: Key) -> Mapping[str, TaskInfo]:
        """All tasks that name this project, by their name within it."""
        return self._members.get(project, {})

    def children(self, parent: Key) -> list[TaskInfo]:
        """The child tasks of a prompt to several workers, by name."""
        return [self.tasks[key] for key in sorted(self._children.get(parent, ()))]

    def targeting(self, swarm: Key) -> Iterator[TaskInfo]:
        """Tasks that name this swarm as their target."""
        return (self.tasks[key] for key in list(self._targeting.get(swarm, ())))

    def version(self, key: Key) -> str:
        """The resourceVersion of an object as it is known here; empty if it is not."""
        infos: Mapping[Key, TaskInfo | ProjectInfo | SwarmInfo] = {}
        if key.kind == "Task":
            infos = self.tasks
        elif key.kind == "Project":
            infos = self.projects
        elif key.kind == "Swarm":
            infos = self.swarms
        found = infos.get(key)
        return found.version if found else ""

    def info_of(self, obj: Resource) -> TaskInfo:
        """The compact form of a Task as read, without making it anew where it is known."""
        meta = obj["metadata"]
        known = self.tasks.get(Key("Task", meta["namespace"], meta["name"]))
        if known is not None and known.version == meta["resourceVersion"]:
            return known
        return task_info(obj)

    # --- projects and swarms -----------------------------------------------------------------

    def observe_project(self, obj: Resource) -> tuple[ProjectInfo | None, ProjectInfo]:
        """Take over a stored Project; what was known before, and what is known now."""
        info = project_info(obj)
        before = self.projects.get(info.key)
        info.tasks = self._members.setdefault(info.key, {})
        info.running = {
            t.key for t in info.tasks.values() if t.open_job or t.key in self._reserved
        }
        if before is not None and before.uid == info.uid:
            info.order, info.halted, info.lost = before.order, before.halted, before.lost
            info.refs, info.cycles = before.refs, before.cycles
        self.projects[info.key] = info
        return before, info

    def forget_project(self, key: Key) -> ProjectInfo | None:
        """A Project is gone."""
        return self.projects.pop(key, None)

    def observe_swarm(self, obj: Resource) -> tuple[SwarmInfo | None, SwarmInfo]:
        """Take over a stored Swarm; its workers are told by ``set_workers``."""
        meta = obj["metadata"]
        key = Key("Swarm", meta["namespace"], meta["name"])
        before = self.swarms.get(key)
        accepted, reason = _accepted(obj)
        effective = (obj.get("status") or {}).get("effective") or {}
        provider, parameters = next(iter((effective.get("provider") or {}).items()), ("", {}))
        info = SwarmInfo(
            key=key,
            uid=meta["uid"],
            version=meta["resourceVersion"],
            deleting="deletionTimestamp" in meta,
            accepted=accepted,
            reason=reason,
            handle=SwarmHandle(meta["namespace"], meta["name"], meta["uid"], parameters or {}),
            provider=provider,
        )
        if before is not None and before.uid == info.uid:
            info.halted, info.workers = before.halted, before.workers
            info.observed = before.observed
        self.swarms[key] = info
        return before, info

    def forget_swarm(self, key: Key) -> SwarmInfo | None:
        """A Swarm is gone."""
        return self.swarms.pop(key, None)

    def worker_of(self, swarm: Key, index: int) -> WorkerInfo | None:
        """The live worker with an index."""
        info = self.swarms.get(swarm)
        for worker in info.workers.values() if info else ():
            if worker.index == index:
                return worker
        return None

    def idle_workers(self) -> Iterator[WorkerInfo]:
        """Workers that can take a task now."""
        for swarm in self.swarms.values():
            if swarm.deleting or swarm.halted or not swarm.accepted:
                continue
            for worker in swarm.workers.values():
                if worker.ready and self.is_free(worker):
                    yield worker

    def is_free(self, worker: WorkerInfo) -> bool:
        """Whether a worker has no task and none is promised to it."""
        return worker.job not in self._promised and worker.job not in self.open_jobs


def _shape(info: TaskInfo) -> tuple[object, ...]:
    return (info.uid, info.kind, info.depends_on, info.cancel, info.deleting, info.hash)


def project_key(info: TaskInfo) -> Key:
    """The key of the Project that a task names."""
    return Key("Project", info.key.namespace, info.project)


def swarm_key(info: TaskInfo) -> Key:
    """The key of the Swarm that a task targets."""
    return Key("Swarm", info.key.namespace, info.swarm)


def _parent_key(info: TaskInfo) -> Key:
    return Key("Task", info.key.namespace, info.parent)


def _accepted(obj: Resource) -> tuple[bool, str]:
    condition = find((obj.get("status") or {}).get("conditions") or [], "Accepted")
    if condition is None:
        return False, "NotSeen"
    return condition["status"] == "True", condition["reason"]


def usage_by_swarm(status: Mapping[str, Any]) -> Mapping[str, Usage]:
    """A Task's usage, summed over its attempts, by the swarm that ran them."""
    totals: dict[str, Usage] = {}
    for item in (status.get("folded") or {}).get("usage") or ():
        totals[item["swarm"]] = from_status(item)
    for attempt in status.get("attempts") or ():
        for session in attempt.get("usage") or ():
            swarm = attempt["swarm"]
            totals[swarm] = totals.get(swarm, ZERO) + from_status(session)
    return totals or _NOTHING_USED


def task_info(obj: Resource) -> TaskInfo:
    """The compact form of a stored Task."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    attempts = status.get("attempts") or ()
    last = attempts[-1] if attempts else {}
    is_open = last.get("state") in OPEN_STATES
    target = spec.get("target") or {}
    workers = target.get("workers", "idle")
    fixed = workers if isinstance(workers, int) else None
    if fixed is None and isinstance(workers, str) and workers.isdigit():
        fixed = int(workers)
    project = spec.get("project", "")
    name = meta["name"]
    if project and name.startswith(project + "."):
        name = name[len(project) + 1 :]
    succeeded = status.get("phase") == "Succeeded"
    accepted = find(status.get("conditions") or [], "Accepted")
    return TaskInfo(
        key=Key("Task", meta["namespace"], meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        created=meta["creationTimestamp"],
        kind=spec.get("type") or ("work" if project else "prompt"),
        project=project,
        name=name,
        priority=spec.get("priority", 0),
        depends_on=tuple(spec.get("dependsOn") or ()),
        owned_paths=tuple(spec.get("ownedPaths") or ()),
        swarm=target.get("swarm", ""),
        worker=fixed,
        expands=bool(target) and fixed is None and workers != "idle",
        parent=(meta.get("labels") or {}).get("codeswarm.dev/parent", ""),
        revision=spec.get("revision", 1),
        hash=(meta.get("annotations") or {}).get("codeswarm.dev/task-hash", ""),
        suspend=bool(spec.get("suspend")),
        cancel=bool(spec.get("cancel")),
        deleting="deletionTimestamp" in meta,
        accepted=accepted is None or accepted["status"] != "False",
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        attempt=last.get("number", 0),
        attempt_revision=last.get("revision", 0),
        open_job=last["job"] if is_open else "",
        open_injection=last["injectionId"] if is_open else "",
        open_swarm=last["swarm"] if is_open else "",
        open_state=last["state"] if is_open else "",
        open_worker=last["worker"] if is_open else 0,
        head=status.get("headCommit", "") if succeeded else "",
        head_ref=status.get("headRef", "") if succeeded else "",
        inputs={d["task"]: d["commit"] for d in last.get("dependencies") or ()},
        next_at=seconds_of(status.get("nextAttemptAt")) or 0.0,
        usage=usage_by_swarm(status),
    )


def project_info(obj: Resource) -> ProjectInfo:
    """The compact form of a stored Project."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    repository = status.get("repository") or {}
    return ProjectInfo(
        key=Key("Project", meta["namespace"], meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        accepted=_accepted(obj)[0],
        suspended=bool(spec.get("suspend")),
        swarms=tuple(w["swarm"] for w in spec.get("workers") or ()),
        max_parallel=spec.get("maxParallel"),
        url=repository.get("url", ""),
        base_branch=repository.get("baseBranch", ""),
        base_commit=repository.get("baseCommit", ""),
        retry=spec.get("retry") or {},
        timeout=spec.get("taskTimeoutSeconds"),
        stall=spec.get("stallTimeoutSeconds"),
        integrated=(status.get("integration") or {}).get("state") == "Succeeded",
    )
