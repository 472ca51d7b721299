"""Assigning ready tasks to idle workers: the promises, for any queue."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.paths import Claims, overlap
from controller.domain.scheduling import (
    Assignment,
    IdleWorker,
    ProjectLoad,
    ReadyQueue,
    ReadyTask,
    assign,
)

SWARMS = ["alpha", "beta", "gamma"]
PROJECTS = ["p", "q"]
Found = list[Assignment[str]]


def pairs(found: Found) -> list[tuple[str, str, int]]:
    """Assignments as (task, swarm, index)."""
    return [(a.task.key, a.worker.swarm, a.worker.index) for a in found]


def workers(swarm: str, *indices: int) -> list[IdleWorker]:
    """Idle workers of a swarm."""
    return [IdleWorker(swarm, index, f"{swarm}-{index}") for index in indices]


def test_priority_then_order_to_the_lowest_index() -> None:
    pool = ("alpha",)
    queue = ReadyQueue(
        [
            ReadyTask("late", pool, order=(2,)),
            ReadyTask("early", pool, order=(1,)),
            ReadyTask("urgent", pool, priority=5, order=(3,)),
        ]
    )
    assert [task.key for task in queue] == ["urgent", "early", "late"]
    found = assign(queue, workers("alpha", 7, 2), {})
    assert pairs(found) == [("urgent", "alpha", 2), ("early", "alpha", 7)]
    assert len(queue) == 3, "the decision changes nothing"


def test_swarms_of_a_pool_in_their_order() -> None:
    queue = ReadyQueue([ReadyTask(k, ("beta", "alpha"), order=(k,)) for k in "abc"])
    idle = workers("alpha", 0) + workers("beta", 3, 1)
    assert pairs(assign(queue, idle, {})) == [("a", "beta", 1), ("b", "beta", 3), ("c", "alpha", 0)]


def test_a_fixed_worker_is_waited_for() -> None:
    queue = ReadyQueue([ReadyTask("a", ("alpha",), worker=3), ReadyTask("b", ("alpha",))])
    assert pairs(assign(queue, workers("alpha", 0), {})) == [("b", "alpha", 0)]
    assert pairs(assign(queue, workers("alpha", 0, 3), {})) == [
        ("a", "alpha", 3),
        ("b", "alpha", 0),
    ]


def test_a_full_project_waits_and_others_go_on() -> None:
    queue = ReadyQueue(
        [
            ReadyTask("p1", ("alpha",), project="p", order=(1,)),
            ReadyTask("p2", ("alpha",), project="p", order=(2,)),
            ReadyTask("q1", ("alpha",), project="q", order=(3,)),
        ]
    )
    load: dict[str, ProjectLoad[str]] = {"p": ProjectLoad(running=1, max_parallel=2)}
    found = assign(queue, workers("alpha", 0, 1, 2), load)
    assert pairs(found) == [("p1", "alpha", 0), ("q1", "alpha", 1)]


def test_paths_in_use_are_passed_over() -> None:
    held: Claims[str] = Claims()
    held.add("running", ["docs/"])
    queue = ReadyQueue(
        [
            ReadyTask("a", ("alpha",), project="p", order=(1,), owned_paths=("docs/x",)),
            ReadyTask("b", ("alpha",), project="p", order=(2,), owned_paths=("src/",)),
            ReadyTask("c", ("alpha",), project="p", order=(3,), owned_paths=("src/a",)),
            ReadyTask("d", ("alpha",), project="q", order=(4,), owned_paths=("docs/x",)),
        ]
    )
    found = assign(queue, workers("alpha", 0, 1, 2, 3), {"p": ProjectLoad(1, None, held)})
    assert [a.task.key for a in found] == ["b", "d"]


def test_the_queue_replaces_and_forgets() -> None:
    queue = ReadyQueue([ReadyTask("a", ("alpha",)), ReadyTask("b", ("alpha",))])
    queue.add(ReadyTask("b", ("beta",), priority=9))
    assert [task.key for task in queue] == ["b", "a"]
    assert "a" in queue
    assert queue.remove("a") is not None
    assert queue.remove("a") is None
    assert (len(queue), queue.get("a")) == (1, None)
    queue.remove("b")
    assert pairs(assign(queue, workers("beta", 0), {})) == []


tasks = st.builds(
    lambda number, priority, pool, worker, project, owned: ReadyTask(
        key="",
        pool=tuple(pool),
        priority=priority,
        order=(number,),
        worker=worker,
        project=project,
        owned_paths=tuple(owned),
    ),
    st.integers(0, 5),
    st.integers(-1, 2),
    st.lists(st.sampled_from(SWARMS), min_size=1, max_size=3, unique=True),
    st.one_of(st.none(), st.none(), st.integers(0, 3)),
    st.one_of(st.none(), st.sampled_from(PROJECTS)),
    st.lists(st.sampled_from(["a", "b", "d/", "d/x", "e/"]), max_size=2),
)
idle_workers = st.lists(
    st.builds(
        lambda s, i: IdleWorker(s, i, f"{s}-{i}"), st.sampled_from(SWARMS), st.integers(0, 3)
    ),
    unique=True,
    max_size=8,
)
loads = st.builds(
    lambda running, limit, owned: (running, limit, owned),
    st.integers(0, 3),
    st.one_of(st.none(), st.integers(1, 4)),
    st.lists(st.sampled_from(["a", "d/", "f"]), max_size=2),
)


def load_of(running: int, limit: int | None, owned: list[str]) -> ProjectLoad[str]:
    """A project's load with one holder."""
    held: Claims[str] = Claims()
    held.add("holder", owned)
    return ProjectLoad(running, limit, held)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(tasks, max_size=15),
    idle_workers,
    st.fixed_dictionaries({}, optional=dict.fromkeys(PROJECTS, loads)),
    st.randoms(use_true_random=False),
)
def test_promises(
    raw: list[ReadyTask[str]],
    idle: list[IdleWorker],
    raw_loads: dict[str, tuple[int, int | None, list[str]]],
    rng: random.Random,
) -> None:
    ready = [
        ReadyTask(f"t{n:02}", t.pool, t.priority, t.order, t.worker, t.project, t.owned_paths)
        for n, t in enumerate(raw)
    ]
    projects = {name: load_of(*load) for name, load in raw_loads.items()}
    found = assign(ReadyQueue(ready), idle, projects)

    # Nothing twice, and only what fits.
    assert len({a.task.key for a in found}) == len(found)
    assert len({a.worker for a in found}) == len(found)
    for a in found:
        assert a.worker in idle
        assert a.worker.swarm in a.task.pool
        assert a.task.worker in (None, a.worker.index)

    # Limits and paths.
    for name in PROJECTS:
        mine = [a.task for a in found if a.task.project == name]
        running, limit, owned = raw_loads.get(name, (0, None, []))
        if limit is not None and mine:
            assert running + len(mine) <= limit
        for number, task in enumerate(mine):
            assert not overlap(task.owned_paths, owned)
            for other in mine[:number]:
                assert not overlap(task.owned_paths, other.owned_paths)

    # No worker idles while a task fits; what was passed over had its reason then already.
    def fits(task: ReadyTask[str], done: Found, free: set[IdleWorker]) -> bool:
        running, limit, owned = raw_loads.get(task.project or "", (0, None, []))
        mine = [a.task for a in done if a.task.project == task.project]
        if task.project is not None:
            if limit is not None and running + len(mine) >= limit:
                return False
            if overlap(task.owned_paths, owned):
                return False
            if any(overlap(task.owned_paths, other.owned_paths) for other in mine):
                return False
        return any(w.swarm in task.pool and task.worker in (None, w.index) for w in free)

    free = set(idle)
    done: Found = []
    waiting = sorted(ready, key=lambda t: (-t.priority, t.order, t.key))
    for a in found:
        best = next(t for t in waiting if fits(t, done, free))
        assert best.key == a.task.key, "the first that fits goes first"
        swarm = next(
            s for s in a.task.pool
            if any(w.swarm == s and a.task.worker in (None, w.index) for w in free)
        )  # fmt: skip
        indices = [w.index for w in free if w.swarm == swarm]
        assert a.worker.swarm == swarm
        assert a.worker.index == (min(indices) if a.task.worker is None else a.task.worker)
        free.discard(a.worker)
        done.append(a)
        waiting.remove(next(t for t in waiting if t.key == a.task.key))
    assert not any(fits(task, done, free) for task in waiting)

    # The order in which things were added is no matter.
    shuffled, shuffled_idle = list(ready), list(idle)
    rng.shuffle(shuffled)
    rng.shuffle(shuffled_idle)
    assert pairs(assign(ReadyQueue(shuffled), shuffled_idle, projects)) == pairs(found)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 2)), max_size=40))
def test_adding_and_removing_leaves_what_was_added(steps: list[tuple[bool, int, int]]) -> None:
    queue: ReadyQueue[int] = ReadyQueue()
    model: dict[int, int] = {}
    for add, key, priority in steps:
        if add:
            queue.add(ReadyTask(key, ("alpha", "beta")[: 1 + priority % 2], priority))
            model[key] = priority
        else:
            queue.remove(key)
            model.pop(key, None)
    assert [task.key for task in queue] == sorted(model, key=lambda k: (-model[k], k))


class CountingQueue(ReadyQueue[str]):
    """A queue that counts how many tasks a decision looks at."""

    __slots__ = ("looked_at",)

    def get(self, key: str) -> ReadyTask[str] | None:
        self.looked_at += 1
        return super().get(key)


def test_tasks_that_cannot_go_are_not_looked_at() -> None:
    queue = CountingQueue(
        ReadyTask(f"t{n:05}", ("alpha",), order=(n,), project="p") for n in range(5000)
    )
    queue.looked_at = 0
    full: dict[str, ProjectLoad[str]] = {"p": ProjectLoad(running=1, max_parallel=1)}
    assert not assign(queue, workers("beta", 0), {})
    assert not assign(queue, workers("alpha", 0), full)
    assert queue.looked_at == 0
    assert len(assign(queue, workers("alpha", *range(10)), {})) == 10
    assert queue.looked_at == 10
