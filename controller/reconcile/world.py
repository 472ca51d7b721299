"""The controller's compact picture of all objects: what decisions across objects are made from.

It holds no state of its own: everything is read from stored objects and can be read again.
Only reservations (a worker promised to a task whose status is being written) live here alone, and
pauses, which statuses follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from controller.domain.cost import NOTHING, Spent
from controller.domain.machines import bill_of_status
from controller.domain.paths import Claims
from controller.domain.usage import from_status
from controller.reconcile.infos import (
    ProjectInfo,
    Silence,
    SwarmInfo,
    TaskInfo,
    WorkerInfo,
    folded_of,
    halted_by,
    is_accepted,
    parent_key,
    project_info,
    project_key,
    queued_by,
    swarm_key,
    task_info,
    unusable_by,
)
from controller.reconcile.pauses import Pauses
from controller.store.base import Key, Resource, key_of
from providers.base import SwarmHandle


class World:
    """All tasks, projects and swarms, with the indexes that decisions need."""

    def __init__(self) -> None:
        self.tasks: dict[Key, TaskInfo] = {}
        self.projects: dict[Key, ProjectInfo] = {}
        self.swarms: dict[Key, SwarmInfo] = {}
        self.approvals: dict[Key, str] = {}
        """Approvals that are not delivered nor expired: the swarm whose agent asks."""
        self.by_uid: dict[str, Key] = {}
        self.open_jobs: dict[str, Key] = {}
        """Job to the task whose open attempt it works on."""
        self.pauses = Pauses()
        """What model providers have refused."""
        self._members: dict[Key, dict[str, TaskInfo]] = {}
        self._dependents: dict[tuple[Key, str], set[Key]] = {}
        self._targeting: dict[Key, set[Key]] = {}
        self._children: dict[Key, set[Key]] = {}
        self._spent: dict[Key, Spent] = {}
        self._by_job: dict[str, Spent] = {}
        self._claims: dict[Key, Claims[Key]] = {}
        self._shapes: dict[Key, dict[str, Any]] = {}
        self._reserved: dict[Key, tuple[str, TaskInfo]] = {}
        """By task: the job that is promised to it, and the task as it was then."""
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

    def observe_approval(self, obj: Resource) -> None:
        """Take over a stored Approval."""
        status = obj.get("status") or {}
        if status.get("delivered") or status.get("expired"):
            self.approvals.pop(key_of(obj), None)
        else:
            self.approvals[key_of(obj)] = obj["spec"]["request"]["swarm"]

    def spent(self, owner: Key) -> Spent:
        """What all present tasks of a Project or Swarm have used."""
        return self._spent.get(owner, NOTHING)

    def spent_by(self, job: str) -> Spent:
        """What a worker's turns of all present tasks have used."""
        return self._by_job.get(job, NOTHING)

    def _account(self, info: TaskInfo, sign: int) -> None:
        for share in info.shares:
            _add(self._spent, Key("Swarm", info.key.namespace, share.swarm), share.spent, sign)
            if info.project:
                _add(self._spent, project_key(info), share.spent, sign)
            if share.job:
                _add(self._by_job, share.job, share.spent, sign)

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
            self._children.setdefault(parent_key(info), set()).add(info.key)

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
            self._children.get(parent_key(info), set()).discard(info.key)

    # --- reservations ------------------------------------------------------------------------

    def reserve(self, info: TaskInfo, worker: WorkerInfo) -> None:
        """Promise a worker, and the task's paths, while the intent is being written."""
        self._reserved[info.key] = (worker.job, info)
        self._promised[worker.job] = info.key
        if info.project:
            owner = project_key(info)
            self.claims(owner).add(info.key, info.owned_paths)
            if owner in self.projects:
                self.projects[owner].running.add(info.key)

    def unreserve(self, key: Key) -> None:
        """The intent is written, or given up: what holds now is what is stored."""
        job, then = self._reserved.pop(key, (None, None))
        if job is not None:
            self._promised.pop(job, None)
        info = self.tasks.get(key)
        if then is not None and then.project and not (info and info.open_job):
            owner = project_key(then)
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
        info.running = {t.key for t in info.tasks.values() if t.open_job or t.key in self._reserved}
        if before is not None and before.uid == info.uid:
            info.order, info.lost = before.order, before.lost
            info.refs, info.cycles = before.refs, before.cycles
            info.looked = before.looked
        self.projects[info.key] = info
        return before, info

    def seen_refs(self, key: Key, before: Mapping[str, str], seen: Mapping[str, str]) -> bool:
        """Take over what a look at a remote has found; whether it was the first one.

        What was pushed while it went on (it differs from ``before``) is newer than the look.
        """
        info = self.projects.get(key)
        first = info is not None and not info.looked
        if info is not None:
            info.looked = True
            newer = {r: c for r, c in info.refs.items() if before.get(r) != c}
            info.refs.clear()
            info.refs.update({**seen, **newer})
        return first

    def forget_project(self, key: Key) -> ProjectInfo | None:
        """A Project is gone."""
        return self.projects.pop(key, None)

    def observe_swarm(self, obj: Resource) -> tuple[SwarmInfo | None, SwarmInfo]:
        """Take over a stored Swarm; its workers are told by ``set_workers``."""
        meta = obj["metadata"]
        key = Key("Swarm", meta["namespace"], meta["name"])
        before = self.swarms.get(key)
        accepted, reason = is_accepted(obj)
        status = obj.get("status") or {}
        effective = status.get("effective") or {}
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
            replicas=len(status.get("workers") or ()),
            states=Counter(worker["phase"] for worker in status.get("workers") or ()),
            used=from_status(status.get("usage")),
            cost=status.get("costUsd", ""),
            agent=effective.get("agent") or {},
            budget=obj["spec"].get("budget") or {},
            folded=folded_of(obj),
            machines=bill_of_status(status.get("machines") or {}),
            rented=(status.get("machines") or {}).get("count", 0),
            quota=status.get("quota") or {},
            halted=halted_by(status),
            unusable=unusable_by(status),
            queued=queued_by(status.get("workers") or ()),
        )
        if before is not None and before.uid == info.uid:
            info.workers, info.observed = before.workers, before.observed
            info.credential = before.credential
            info.silence, info.contact_since = before.silence, before.contact_since
            info.unknown_told = before.unknown_told
        self.swarms[key] = info
        return before, info

    def silence_of(self, namespace: str, swarm: str) -> Silence | None:
        """That a swarm's provider cannot be asked now, if it cannot."""
        info = self.swarms.get(Key("Swarm", namespace, swarm))
        return info.silence if info else None

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
            if swarm.deleting or not swarm.accepted:
                continue
            for worker in swarm.workers.values():
                if worker.ready and self.is_free(worker):
                    yield worker

    def is_ready(self, worker: WorkerInfo) -> bool:
        """Whether a worker is still there, and still takes tasks."""
        swarm = self.swarms.get(worker.swarm)
        found = swarm.workers.get(worker.job) if swarm else None
        return found is not None and found.ready

    def is_free(self, worker: WorkerInfo) -> bool:
        """Whether a worker has no task and none is promised to it."""
        return worker.job not in self._promised and worker.job not in self.open_jobs


def _add(sums: dict[Any, Spent], of: Any, spent: Spent, sign: int) -> None:
    known = sums.get(of, NOTHING)
    new = known + spent if sign > 0 else known - spent
    if new:
        sums[of] = new
    else:
        sums.pop(of, None)


def _shape(info: TaskInfo) -> tuple[object, ...]:
    return (info.uid, info.kind, info.depends_on, info.cancel, info.deleting, info.hash)
