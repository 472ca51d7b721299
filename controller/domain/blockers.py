"""The one exact reason why a task waits, and the chain behind it.

When several things hold a task up, the one told is the first in this order: the task's own
state, its project, its dependencies, budgets, backoff, its swarms, and only then what passes by
itself (owned paths, ``maxParallel``, an idle worker).  Messages change only when facts do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from controller.domain.graph import describe_chain

FINISHED = frozenset({"Succeeded", "Failed", "Cancelled"})
AT_WORK = frozenset({"Running", "Interrupting"})


@dataclass(frozen=True, slots=True)
class Reference:
    """An object of the same namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a task does not run now (``status.blocker``)."""

    reason: str
    message: str
    on: Reference | None = None
    """What it waits for, if that is an object."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A condition's reason and message, where they hold something up."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A Task, as far as waiting is concerned."""

    name: str
    """The object's name; those of dependencies as well."""
    phase: str = "Pending"
    cause: Cause | None = None
    """Why it failed, if it has."""
    refused: Cause | None = None
    """Why it is not accepted, e.g. ``NameTaken`` or ``InvalidReference``."""
    suspended: bool = False
    project: str = ""
    depends_on: tuple[str, ...] = ()
    owned_paths: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    """Swarms that it may run on."""
    worker: int | None = None
    next_attempt_at: float | None = None
    """Seconds since the epoch."""
    attempt: int = 0
    attempt_state: str = ""
    """State of an attempt that is under way, else empty."""
    attempt_worker: str = ""
    """``builders/2``, while an attempt is under way."""
    attempt_swarm: str = ""


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """A Project, as far as its tasks wait for it."""

    name: str
    refused: Cause | None = None
    """Why it is not accepted (also: not seen yet)."""
    suspended: bool = False
    halted: Cause | None = None
    """Why no new turns start: ``BudgetExceeded`` or ``Unpriced``."""
    max_parallel: int | None = None
    running: int = 0


@dataclass(frozen=True, slots=True)
class SwarmFacts:
    """A Swarm, as far as tasks wait for it."""

    name: str
    refused: Cause | None = None
    halted: Cause | None = None
    """Why no new turns start: ``BudgetExceeded``, ``Unpriced`` or ``QuotaExhausted``."""
    away: Cause | None = None
    """Why its provider cannot be asked now, if it cannot."""
    state: str = ""
    """For people, e.g. ``Launching, 0/4 ready``."""
    indices: frozenset[int] = frozenset()
    """The workers that there are or shall be."""
    ready: int = 0
    idle: frozenset[int] = frozenset()


class World(Protocol):
    """Facts about objects of one namespace, looked up when needed."""

    now: float
    """Seconds since the epoch."""

    def task(self, name: str) -> TaskFacts | None:
        """A Task by its object's name."""
        ...

    def project(self, name: str) -> ProjectFacts | None:
        """A Project by name."""
        ...

    def swarm(self, name: str) -> SwarmFacts | None:
        """A Swarm by name, one that is being deleted left out."""
        ...

    def holder(self, project: str, owned_paths: tuple[str, ...]) -> str | None:
        """The running task of the project that holds some of these paths."""
        ...

    def cycle(self, task: str) -> tuple[str, ...] | None:
        """The cycle of dependencies that the task is part of, as ``(a, b, a)``."""
        ...


def blocker(task: TaskFacts, world: World) -> Blocker | None:
    """The reason why the task waits; None if it runs, is finished, or could start now."""
    if task.phase in FINISHED or task.attempt_state in AT_WORK:
        return None
    return gate(task, world) or _swarms(task, world) or _turn(task, world)


def gate(task: TaskFacts, world: World) -> Blocker | None:
    """The reason why the task is no candidate for a worker, whatever workers there are."""
    return (
        _own(task)
        or _project(task, world)
        or _dependencies(task, world)
        or _halted_project(task, world)
        or _backoff(task, world)
    )


def _own(task: TaskFacts) -> Blocker | None:
    if task.attempt_state:
        return Blocker(
            "Delivering",
            f"assigned to {task.attempt_worker}, which has not acknowledged it yet",
            Reference("Swarm", task.attempt_swarm) if task.attempt_swarm else None,
        )
    if task.suspended:
        return Blocker("Suspended", "spec.suspend is true")
    if task.refused:
        return Blocker(task.refused.reason, task.refused.message or "the task is not accepted")
    return None


def _project(task: TaskFacts, world: World) -> Blocker | None:
    if not task.project:
        return None
    on = Reference("Project", task.project)
    project = world.project(task.project)
    if project is None:
        return Blocker("ProjectNotFound", f"project {task.project} does not exist", on)
    if project.refused:
        return Blocker(
            "ProjectNotAccepted",
            f"project {project.name} is not accepted: {_cause(project.refused)}",
            on,
        )
    if project.suspended:
        return Blocker("ProjectSuspended", f"project {project.name} is suspended", on)
    return None


def _dependencies(task: TaskFacts, world: World) -> Blocker | None:
    chain = world.cycle(task.name) if task.depends_on else None
    if chain:
        return Blocker("DependencyCycle", f"its dependencies form a cycle: {describe_chain(chain)}")
    unfinished: list[TaskFacts] = []
    for name in task.depends_on:
        found = world.task(name)
        if found is None:
            return Blocker(
                "DependencyNotFound",
                f"depends on {name}, which does not exist",
                Reference("Task", name),
            )
        if found.phase != "Succeeded":
            unfinished.append(found)
    for found in unfinished:
        if found.phase in FINISHED:
            return Blocker(
                "DependencyFailed",
                f"depends on {found.name}, which is {describe_task(found)}",
                Reference("Task", found.name),
            )
    if not unfinished:
        return None
    first, more = unfinished[0], len(unfinished) - 1
    message = f"waits for {first.name}, which is {describe_task(first)}"
    if more:
        message += f", and for {more} more"
    return Blocker("DependencyNotDone", message, Reference("Task", first.name))


def _halted_project(task: TaskFacts, world: World) -> Blocker | None:
    project = world.project(task.project) if task.project else None
    if project is None or project.halted is None:
        return None
    message = project.halted.message or f"project {project.name} may start no more turns"
    return Blocker(project.halted.reason, message, Reference("Project", project.name))


def _backoff(task: TaskFacts, world: World) -> Blocker | None:
    if task.next_attempt_at is None or task.next_attempt_at <= world.now:
        return None
    # The time itself, not what is left of it: a status must not tick.
    at = datetime.fromtimestamp(task.next_attempt_at, UTC).isoformat(timespec="seconds")
    at = at.replace("+00:00", "Z")
    return Blocker("Backoff", f"attempt {task.attempt + 1} begins not before {at}")


def _swarms(task: TaskFacts, world: World) -> Blocker | None:
    swarms = [found for name in task.pool if (found := world.swarm(name))]
    if not swarms:
        return _no_swarm(task)
    if task.worker is not None:
        swarms = [swarm for swarm in swarms if task.worker in swarm.indices]
        if not swarms:
            return Blocker(
                "WorkerNotFound",
                f"swarm {task.pool[0]} has no worker {task.worker}",
                Reference("Swarm", task.pool[0]),
            )
    accepted = [swarm for swarm in swarms if swarm.refused is None]
    running = [swarm for swarm in accepted if swarm.halted is None]
    if accepted and not running:
        halted = accepted[0]
        cause = halted.halted or Cause("SwarmNotReady")
        message = cause.message or f"swarm {halted.name} may start no more turns"
        return Blocker(cause.reason, message, Reference("Swarm", halted.name))
    there = [swarm for swarm in running if swarm.away is None]
    if running and not there:
        away = running[0]
        message = f"swarm {away.name} is out of reach: {_cause(away.away or Cause('NoAnswer'))}"
        return Blocker("ProviderUnreachable", message, Reference("Swarm", away.name))
    running = there
    if not any(swarm.ready for swarm in running):
        first = (running or swarms)[0]
        state = _cause(first.refused) if first.refused else first.state
        message = f"swarm {first.name} has no ready worker" + (f" ({state})" if state else "")
        return Blocker("SwarmNotReady", message, Reference("Swarm", first.name))
    return None


def _no_swarm(task: TaskFacts) -> Blocker:
    if not task.pool:
        owner = f"project {task.project}" if task.project else "the task"
        on = Reference("Project", task.project) if task.project else None
        return Blocker("SwarmNotFound", f"{owner} names no swarm to work on it", on)
    names = ", ".join(task.pool)
    verb = "does" if len(task.pool) == 1 else "do"
    return Blocker(
        "SwarmNotFound", f"swarm {names} {verb} not exist", Reference("Swarm", task.pool[0])
    )


def _turn(task: TaskFacts, world: World) -> Blocker | None:
    project = world.project(task.project) if task.project else None
    if project is not None:
        holder = world.holder(project.name, task.owned_paths) if task.owned_paths else None
        if holder is not None and holder != task.name:
            return Blocker(
                "OwnedPathsInUse",
                f"{holder} is at work on paths that this task owns too",
                Reference("Task", holder),
            )
        if project.max_parallel is not None and project.running >= project.max_parallel:
            return Blocker(
                "MaxParallel",
                f"project {project.name} has {project.running} tasks at work; "
                f"maxParallel is {project.max_parallel}",
                Reference("Project", project.name),
            )
    for name in task.pool:
        swarm = world.swarm(name)
        if swarm is None or swarm.refused or swarm.halted or swarm.away:
            continue
        if task.worker in swarm.idle or (task.worker is None and swarm.idle):
            return None
    on = Reference("Swarm", task.pool[0])
    if task.worker is not None:
        return Blocker("NoIdleWorker", f"worker {task.pool[0]}/{task.worker} is not idle", on)
    names = ", ".join(task.pool)
    return Blocker("NoIdleWorker", f"no worker of swarm {names} is idle", on)


def describe_task(task: TaskFacts) -> str:
    """``Running (attempt 1)``, ``Failed (Blocked)``, ``Waiting``."""
    if task.phase in FINISHED:
        return f"{task.phase} ({task.cause.reason})" if task.cause else task.phase
    if task.attempt_state:
        return f"{task.phase} (attempt {task.attempt})"
    return task.phase


def _cause(cause: Cause) -> str:
    return f"{cause.reason}: {cause.message}" if cause.message else cause.reason


@dataclass(frozen=True, slots=True)
class Link:
    """One object in the chain that ``codeswarm explain`` shows."""

    on: Reference
    state: str
    """What it does now, for people."""
    blocker: Blocker | None = None
    """Why it waits, if it is a task that does."""


def chain(name: str, world: World) -> list[Link]:
    """From a task to the root of its waiting; the last link waits for nothing further.

    An object that comes up again ends the chain, so that cycles are safe.
    """
    links: list[Link] = []
    seen: set[Reference] = set()
    following: Reference | None = Reference("Task", name)
    while following is not None and following not in seen:
        seen.add(following)
        link = _link(following, world)
        links.append(link)
        following = link.blocker.on if link.blocker else None
    return links


def _link(on: Reference, world: World) -> Link:
    if on.kind == "Task":
        task = world.task(on.name)
        if task is None:
            return Link(on, "does not exist")
        return Link(on, _task_state(task), blocker(task, world))
    if on.kind == "Project":
        project = world.project(on.name)
        return Link(on, _project_state(project) if project else "does not exist")
    swarm = world.swarm(on.name)
    return Link(on, _swarm_state(swarm) if swarm else "does not exist")


def _task_state(task: TaskFacts) -> str:
    if task.phase in FINISHED and task.cause:
        return f"{task.phase} ({_cause(task.cause)})"
    where = f" on {task.attempt_worker}" if task.attempt_worker else ""
    return describe_task(task) + where


def _project_state(project: ProjectFacts) -> str:
    causes = [cause for cause in (project.refused, project.halted) if cause]
    return _states(causes, "suspended" if project.suspended else f"{project.running} at work")


def _swarm_state(swarm: SwarmFacts) -> str:
    causes = (swarm.refused, swarm.halted, swarm.away)
    return _states([cause for cause in causes if cause], swarm.state)


def _states(causes: Sequence[Cause], state: str) -> str:
    return "; ".join(_non_empty([*(_cause(cause) for cause in causes), state]))


def _non_empty(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text]
