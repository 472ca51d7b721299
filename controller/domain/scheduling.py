"""Which ready task goes to which idle worker: a pure, deterministic decision.

Tasks wait in lanes: all tasks of one lane have the same pool of swarms, the same fixed worker
(or none) and the same project, so that a lane as a whole is skipped when its workers are busy
or its project is full.  Within one decision workers only get fewer, and projects only fuller:
what has been skipped once need not be looked at again.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from controller.domain.paths import Claims, normalise_all

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ReadyTask(Generic[K]):
    """A task that only waits for a worker."""

    key: K
    """Its identity: hashable and orderable."""
    pool: tuple[str, ...]
    """Swarms that it may run on, the preferred one first."""
    priority: int = 0
    """Higher goes first."""
    order: tuple[Any, ...] = ()
    """Among equal priorities, lower goes first: (creation, place in the graph, name)."""
    worker: int | None = None
    """Only the worker of this index, if given."""
    project: str | None = None
    owned_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class IdleWorker:
    """A worker that could begin a turn now."""

    swarm: str
    index: int
    job: str


@dataclass(frozen=True, slots=True)
class ProjectLoad(Generic[K]):
    """What a project is doing already."""

    running: int = 0
    """Tasks that occupy a worker."""
    max_parallel: int | None = None
    claims: Claims[K] = field(default_factory=Claims)
    """The owned paths of those tasks."""


@dataclass(frozen=True, slots=True)
class Assignment(Generic[K]):
    """One task for one worker."""

    task: ReadyTask[K]
    worker: IdleWorker


_Lane = tuple[tuple[str, ...], int | None, str | None]
_Rank = tuple[int, tuple[Any, ...], Any]


class ReadyQueue(Generic[K]):
    """Ready tasks in lanes, each lane sorted; adding and removing cost O(log n) comparisons."""

    __slots__ = ("_lanes", "_tasks")

    def __init__(self, tasks: Iterable[ReadyTask[K]] = ()) -> None:
        self._tasks: dict[K, ReadyTask[K]] = {}
        self._lanes: dict[_Lane, list[_Rank]] = {}
        for task in tasks:
            self.add(task)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def __iter__(self) -> Iterator[ReadyTask[K]]:
        """Every task, the one that goes first first."""
        for _, _, key in heapq.merge(*self._lanes.values()):
            yield self._tasks[key]

    def get(self, key: K) -> ReadyTask[K] | None:
        """The task as it was added (its claims normalised), or None."""
        return self._tasks.get(key)

    def add(self, task: ReadyTask[K]) -> None:
        """Add a task; one of the same key is replaced."""
        task = replace(task, owned_paths=normalise_all(task.owned_paths))
        if self._tasks.get(task.key) == task:
            return
        self.remove(task.key)
        self._tasks[task.key] = task
        bisect.insort(self._lanes.setdefault(_lane(task), []), _rank(task))

    def remove(self, key: K) -> ReadyTask[K] | None:
        """Take a task out; None if it was not there."""
        task = self._tasks.pop(key, None)
        if task is None:
            return None
        lane = self._lanes[_lane(task)]
        del lane[bisect.bisect_left(lane, _rank(task))]
        if not lane:
            del self._lanes[_lane(task)]
        return task

    def lanes(self) -> Mapping[_Lane, list[_Rank]]:
        """The sorted lanes, to be read only."""
        return self._lanes


def _lane(task: ReadyTask[K]) -> _Lane:
    return (task.pool, task.worker, task.project)


def _rank(task: ReadyTask[K]) -> _Rank:
    return (-task.priority, task.order, task.key)


def assign(
    queue: ReadyQueue[K],
    idle: Iterable[IdleWorker],
    projects: Mapping[str, ProjectLoad[K]],
) -> list[Assignment[K]]:
    """Pair ready tasks with idle workers; nothing that is passed in is changed.

    Tasks go by priority (higher first), then order.  A task gets the idle worker of the lowest
    index in the first swarm of its pool that has one.  Never more than ``max_parallel`` tasks of
    a project, never two whose owned paths overlap.  A project that is not in ``projects`` has no
    limit and nothing running.

    Costs O(lanes + (assigned + passed over for their paths) * log lanes).
    """
    decision = _Decision(idle, projects)
    heads: list[tuple[_Rank, int]] = []
    open_lanes: list[tuple[_Lane, Iterator[_Rank]]] = []
    for lane, ranks in queue.lanes().items():
        if decision.can_take(lane):
            heads.append((ranks[0], len(open_lanes)))
            open_lanes.append((lane, iter(ranks)))
            next(open_lanes[-1][1])
    heapq.heapify(heads)
    assigned: list[Assignment[K]] = []
    while heads and decision.workers_left:
        rank, number = heads[0]
        lane, rest = open_lanes[number]
        if not decision.can_take(lane):
            heapq.heappop(heads)
            continue
        task = queue.get(rank[2])
        if task is not None and decision.paths_free(task):
            assigned.append(decision.take(task))
        following = next(rest, None)
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (following, number))
    return assigned


class _Decision(Generic[K]):
    """The workers and limits that are left while one decision is made."""

    def __init__(self, idle: Iterable[IdleWorker], projects: Mapping[str, ProjectLoad[K]]) -> None:
        self._free: dict[str, dict[int, IdleWorker]] = {}
        for worker in sorted(idle):
            self._free.setdefault(worker.swarm, {})[worker.index] = worker
        self.workers_left = sum(len(free) for free in self._free.values())
        self._projects = projects
        self._added: dict[str, int] = {}
        self._claimed: dict[str, Claims[K]] = {}
        self._blocked: dict[str, set[tuple[str, ...]]] = {}

    def can_take(self, lane: _Lane) -> bool:
        """Whether some task of this lane could still get a worker."""
        pool, index, project = lane
        if project is not None and self._full(project):
            return False
        return any(self._fits(swarm, index) for swarm in pool)

    def paths_free(self, task: ReadyTask[K]) -> bool:
        """Whether nobody holds the task's owned paths; sets of paths that failed are kept."""
        if task.project is None or not task.owned_paths:
            return True
        blocked = self._blocked.setdefault(task.project, set())
        if task.owned_paths in blocked:
            return False
        load = self._projects.get(task.project)
        mine = self._claimed.get(task.project)
        if (load is None or load.claims.meets(task.owned_paths) is None) and (
            mine is None or mine.meets(task.owned_paths) is None
        ):
            return True
        blocked.add(task.owned_paths)
        return False

    def take(self, task: ReadyTask[K]) -> Assignment[K]:
        """Give the task its worker, and count it."""
        swarm = next(name for name in task.pool if self._fits(name, task.worker))
        free = self._free[swarm]
        worker = free.pop(next(iter(free)) if task.worker is None else task.worker)
        self.workers_left -= 1
        if task.project is not None:
            self._added[task.project] = self._added.get(task.project, 0) + 1
            self._claimed.setdefault(task.project, Claims()).add(task.key, task.owned_paths)
        return Assignment(task, worker)

    def _fits(self, swarm: str, index: int | None) -> bool:
        free = self._free.get(swarm)
        return bool(free) if index is None else free is not None and index in free

    def _full(self, project: str) -> bool:
        load = self._projects.get(project)
        if load is None or load.max_parallel is None:
            return False
        return load.running + self._added.get(project, 0) >= load.max_parallel
