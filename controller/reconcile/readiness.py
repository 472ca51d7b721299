"""Whether a task could start, why it does not, and whether what it did still stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.domain.blockers import Cause, ProjectFacts, SwarmFacts, TaskFacts, blocker, gate
from controller.reconcile.budget import halted
from controller.reconcile.infos import FINISHED, TaskInfo, project_key
from controller.reconcile.pauses import paused
from controller.reconcile.world import World
from controller.resources.names import task_object_name
from controller.store.base import Key


def pool_of(world: World, info: TaskInfo) -> tuple[str, ...]:
    """The swarms that a task may run on."""
    if info.swarm:
        return (info.swarm,)
    project = world.projects.get(project_key(info))
    if project is None:
        return ()
    return (project.planner,) if info.kind == "plan" else project.swarms


class View:
    """The world of one namespace, as ``blockers`` asks for it."""

    def __init__(self, world: World, namespace: str, now: float) -> None:
        self._world, self._namespace, self.now = world, namespace, now

    def task(self, name: str) -> TaskFacts | None:
        """A Task by its object's name."""
        info = self._world.tasks.get(Key("Task", self._namespace, name))
        return facts_of(self._world, info) if info else None

    def project(self, name: str) -> ProjectFacts | None:
        """A Project by name."""
        info = self._world.projects.get(Key("Project", self._namespace, name))
        if info is None or info.deleting:
            return None
        return ProjectFacts(
            name=name,
            refused=None if info.accepted else Cause("NotAccepted", "see its Accepted condition"),
            suspended=info.suspended,
            halted=halted(self._world, info),
            max_parallel=info.max_parallel,
            running=len(info.running),
        )

    def swarm(self, name: str) -> SwarmFacts | None:
        """A Swarm by name."""
        info = self._world.swarms.get(Key("Swarm", self._namespace, name))
        if info is None or info.deleting:
            return None
        ready = [w for w in info.workers.values() if w.ready]
        free = {w.index for w in ready if self._world.is_free(w)}
        why, silence = info.unusable or info.queued, info.silence
        return SwarmFacts(
            name=name,
            refused=None if info.accepted else Cause(info.reason),
            halted=halted(self._world, info) or paused(self._world.pauses, info, self.now),
            away=Cause(silence.reason, silence.message) if silence else None,
            state=f"{len(ready)}/{len(info.workers)} ready" + (f": {why}" if why else ""),
            indices=frozenset(w.index for w in info.workers.values()),
            ready=len(ready),
            idle=frozenset(free),
        )

    def holder(self, project: str, owned_paths: tuple[str, ...]) -> str | None:
        """The running task that holds some of these paths."""
        found = self._world.claims(Key("Project", self._namespace, project)).conflict(owned_paths)
        return found.name if found else None

    def cycle(self, task: str) -> tuple[str, ...] | None:
        """The cycle that a task is part of."""
        info = self._world.tasks.get(Key("Task", self._namespace, task))
        project = self._world.projects.get(project_key(info)) if info else None
        return project.cycles.get(info.name) if project and info else None


def facts_of(world: World, info: TaskInfo) -> TaskFacts:
    """A task's facts for ``blockers``; one whose work is lost is as good as not done."""
    return TaskFacts(
        name=info.key.name,
        phase="Pending" if is_lost(world, info) else info.phase or "Pending",
        cause=Cause(info.reason) if info.phase in ("Failed", "Cancelled") and info.reason else None,
        refused=None if info.accepted else Cause("InvalidReference"),
        suspended=info.suspend,
        project=info.project,
        depends_on=tuple(task_object_name(info.project, d) for d in info.depends_on),
        owned_paths=info.owned_paths,
        pool=pool_of(world, info),
        worker=info.worker,
        next_attempt_at=info.next_at or None,
        attempt=info.attempt,
        attempt_state=info.open_state,
        attempt_worker=f"{info.open_swarm}/{info.open_worker}" if info.open_job else "",
        attempt_swarm=info.open_swarm,
    )


def unready(world: World, info: TaskInfo, now: float) -> str:
    """Why a task is no candidate for a worker (a reason), or an empty string."""
    if info.finished or info.open_job or info.expands or info.cancel or info.deleting:
        return "NotWaiting"
    found = gate(facts_of(world, info), View(world, info.key.namespace, now))
    return found.reason if found else ""


def explain(world: World, info: TaskInfo, now: float) -> dict[str, Any]:
    """The blocker of a waiting task as its status shows it."""
    found = blocker(facts_of(world, info), View(world, info.key.namespace, now))
    if found is None:
        return {"reason": "NoIdleWorker", "message": "is next for the first idle worker"}
    result: dict[str, Any] = {"reason": found.reason, "message": found.message}
    if found.on is not None:
        result["on"] = {"kind": found.on.kind, "name": found.on.name}
    return result


def stale_success(world: World, info: TaskInfo) -> str:
    """Why a finished task must be done again, or an empty string.

    A success stands on one revision of the task, on the heads of its dependencies, and on its
    work still being at the remote.
    """
    if info.attempt_revision != info.revision and not info.cancel:
        if info.attempt_revision:
            return f"revision {info.revision} replaces {info.attempt_revision}"
        if info.phase == "Cancelled":
            return "it was cancelled before it began, and is wanted again"
    if info.phase != "Succeeded" or not info.project or info.kind != "work":
        return ""
    if is_lost(world, info):
        return "its work is not at the remote any more"
    return _stale_inputs(world, info, info.inputs)


def is_lost(world: World, info: TaskInfo) -> bool:
    """Whether a task succeeded, but the remote no longer holds what it made."""
    project = world.projects.get(project_key(info)) if info.head else None
    return project is not None and info.head in project.lost and not project.integrated


def stale_run(world: World, info: TaskInfo, attempt: Mapping[str, Any]) -> bool:
    """Whether an open attempt works from something that has been taken back."""
    inputs = {d["task"]: d["commit"] for d in attempt.get("dependencies") or ()}
    return bool(inputs and _stale_inputs(world, info, inputs))


def _stale_inputs(world: World, info: TaskInfo, inputs: Mapping[str, str]) -> str:
    for name in info.depends_on:
        found = world.dependency(info, name)
        if found is None or found.phase in ("Failed", "Cancelled"):
            continue
        if found.phase not in FINISHED:
            return f"{found.key.name} is being done again"
        if found.head != inputs.get(name, found.head):
            return f"{found.key.name} has another result"
    return ""
