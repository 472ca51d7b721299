"""The one reason why a task waits, in its order of precedence, and the chain behind it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.blockers import (
    Cause,
    ProjectFacts,
    Reference,
    SwarmFacts,
    TaskFacts,
    blocker,
    chain,
)
from controller.domain.facts import WorldFacts, facts_from_objects
from controller.domain.paths import Claims

NOW = 1_000_000.0
TASK = TaskFacts(
    "p.t", project="p", pool=("s",), owned_paths=("a.py",), depends_on=("p.d",), attempt=1
)
DONE = TaskFacts("p.d", phase="Succeeded", project="p")
SWARM = SwarmFacts("s", indices=frozenset({0}), ready=1, idle=frozenset({0}))
PROJECT = ProjectFacts("p", max_parallel=2)


def world(**changes: Any) -> WorldFacts:
    """A world in which the task could start now, but for these changes."""
    base: dict[str, Any] = {
        "now": NOW,
        "tasks": {"p.t": TASK, "p.d": DONE},
        "projects": {"p": PROJECT},
        "swarms": {"s": SWARM},
    }
    return WorldFacts(**{**base, **changes})


def held(holder: str, path: str) -> dict[str, Claims[str]]:
    """Claims of one holder in the project."""
    claims: Claims[str] = Claims()
    claims.add(holder, [path])
    return {"p": claims}


def dependency(**changes: Any) -> dict[str, TaskFacts]:
    """The tasks, the dependency changed."""
    return {"p.t": TASK, "p.d": replace(DONE, **changes)}


RUNNING = dependency(phase="Running", attempt=1, attempt_state="Running")
CASES: list[tuple[str, TaskFacts, dict[str, Any], str, Reference | None]] = [
    (
        "Delivering",
        replace(TASK, attempt_state="Assigned", attempt_worker="s/0", attempt_swarm="s"),
        {},
        "s/0",
        Reference("Swarm", "s"),
    ),
    ("Suspended", replace(TASK, suspended=True), {}, "suspend", None),
    ("NameTaken", replace(TASK, refused=Cause("NameTaken", "of another")), {}, "of another", None),
    ("ProjectNotFound", TASK, {"projects": {}}, "p does not exist", Reference("Project", "p")),
    (
        "ProjectNotAccepted",
        TASK,
        {"projects": {"p": replace(PROJECT, refused=Cause("DependencyCycle", "a -> a"))}},
        "DependencyCycle: a -> a",
        Reference("Project", "p"),
    ),
    (
        "ProjectSuspended",
        TASK,
        {"projects": {"p": replace(PROJECT, suspended=True)}},
        "suspended",
        Reference("Project", "p"),
    ),
    (
        "DependencyCycle",
        TASK,
        {"cycles": {"p.t": ("p.t", "p.d", "p.t")}},
        "p.t -> p.d -> p.t",
        None,
    ),
    ("DependencyNotFound", TASK, {"tasks": {"p.t": TASK}}, "p.d", Reference("Task", "p.d")),
    (
        "DependencyFailed",
        TASK,
        {"tasks": dependency(phase="Failed", cause=Cause("Blocked", "needs a key"))},
        "p.d, which is Failed (Blocked)",
        Reference("Task", "p.d"),
    ),
    (
        "DependencyNotDone",
        TASK,
        {"tasks": RUNNING},
        "waits for p.d, which is Running (attempt 1)",
        Reference("Task", "p.d"),
    ),
    (
        "BudgetExceeded",
        TASK,
        {"projects": {"p": replace(PROJECT, halted=Cause("BudgetExceeded", "spent"))}},
        "spent",
        Reference("Project", "p"),
    ),
    ("Backoff", replace(TASK, next_attempt_at=NOW + 60), {}, "attempt 2 begins not before", None),
    ("SwarmNotFound", TASK, {"swarms": {}}, "swarm s does not exist", Reference("Swarm", "s")),
    ("WorkerNotFound", replace(TASK, worker=7), {}, "no worker 7", Reference("Swarm", "s")),
    (
        "QuotaExhausted",
        TASK,
        {"swarms": {"s": replace(SWARM, halted=Cause("QuotaExhausted"))}},
        "s may start no more turns",
        Reference("Swarm", "s"),
    ),
    (
        "SwarmNotReady",
        TASK,
        {"swarms": {"s": replace(SWARM, ready=0, idle=frozenset(), state="Launching, 0/1 ready")}},
        "Launching, 0/1 ready",
        Reference("Swarm", "s"),
    ),
    ("OwnedPathsInUse", TASK, {"claims": held("p.x", "a.py")}, "p.x", Reference("Task", "p.x")),
    (
        "MaxParallel",
        TASK,
        {"projects": {"p": replace(PROJECT, running=2)}},
        "maxParallel is 2",
        Reference("Project", "p"),
    ),
    (
        "NoIdleWorker",
        TASK,
        {"swarms": {"s": replace(SWARM, idle=frozenset())}},
        "no worker of swarm s is idle",
        Reference("Swarm", "s"),
    ),
]


@pytest.mark.parametrize(("reason", "task", "changes", "told", "on"), CASES)
def test_each_reason(
    reason: str, task: TaskFacts, changes: dict[str, Any], told: str, on: Reference | None
) -> None:
    found = blocker(task, world(**changes))
    assert found is not None
    assert (found.reason, found.on) == (reason, on)
    assert told in found.message


def test_nothing_is_in_the_way() -> None:
    assert blocker(TASK, world()) is None


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
def test_what_is_finished_or_at_work_waits_for_nothing(phase: str) -> None:
    assert blocker(replace(TASK, phase=phase), world(projects={})) is None
    assert blocker(replace(TASK, attempt_state="Running"), world(projects={})) is None


def test_the_order_of_precedence() -> None:
    """Each reason hides all that come after it in the list."""
    several = {
        "tasks": dependency(phase="Failed"),
        "swarms": {},
        "projects": {"p": replace(PROJECT, running=2)},
    }
    found = blocker(replace(TASK, next_attempt_at=NOW + 5), world(**several))
    assert found is not None
    assert found.reason == "DependencyFailed"
    several["tasks"] = {"p.t": TASK, "p.d": DONE}
    found = blocker(replace(TASK, next_attempt_at=NOW + 5), world(**several))
    assert found is not None
    assert found.reason == "Backoff"
    found = blocker(TASK, world(**several))
    assert found is not None
    assert found.reason == "SwarmNotFound"


def test_a_second_swarm_helps() -> None:
    task = replace(TASK, pool=("s", "other"))
    other = replace(SWARM, name="other")
    busy = replace(SWARM, idle=frozenset())
    assert blocker(task, world(swarms={"s": busy, "other": other})) is None
    assert blocker(task, world(swarms={"other": other})) is None
    halted = replace(SWARM, halted=Cause("BudgetExceeded"))
    assert blocker(task, world(swarms={"s": halted, "other": other})) is None
    found = blocker(task, world(swarms={"s": halted, "other": replace(other, idle=frozenset())}))
    assert found is not None
    assert found.reason == "NoIdleWorker"


def test_a_project_without_swarms() -> None:
    found = blocker(replace(TASK, pool=()), world())
    assert found is not None
    assert (found.reason, found.on) == ("SwarmNotFound", Reference("Project", "p"))


def test_messages_do_not_tick() -> None:
    task = replace(TASK, next_attempt_at=NOW + 100)
    assert blocker(task, world()) == blocker(task, world(now=NOW + 50))
    assert blocker(task, world(now=NOW + 100)) is None


def test_the_chain_leads_to_the_root() -> None:
    tasks = {
        "p.a": TaskFacts("p.a", project="p", pool=("s",), depends_on=("p.b",)),
        "p.b": TaskFacts("p.b", project="p", pool=("s",), depends_on=("p.c",)),
        "p.c": TaskFacts("p.c", project="p", pool=("s",)),
    }
    swarm = replace(SWARM, ready=0, idle=frozenset(), state="Launching, 0/1 ready")
    links = chain("p.a", world(tasks=tasks, swarms={"s": swarm}))
    assert [str(link.on.name) for link in links] == ["p.a", "p.b", "p.c", "s"]
    reasons = [link.blocker.reason if link.blocker else "" for link in links]
    assert reasons == ["DependencyNotDone", "DependencyNotDone", "SwarmNotReady", ""]
    assert links[-1].state == "Launching, 0/1 ready"


def test_a_chain_ends_where_it_began_and_where_nothing_is() -> None:
    a = TaskFacts("p.a", project="p", depends_on=("p.b",))
    b = TaskFacts("p.b", project="p", depends_on=("p.a",))
    links = chain("p.a", world(tasks={"p.a": a, "p.b": b}))
    assert [link.on.name for link in links] == ["p.a", "p.b"]
    (link,) = chain("none", world())
    assert link.state == "does not exist"
    failed = dependency(phase="Failed", cause=Cause("Blocked", "needs a key"))
    assert chain("p.t", world(tasks=failed))[-1].state == "Failed (Blocked: needs a key)"


def obj(kind: str, name: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A stored object."""
    return {"kind": kind, "metadata": {"name": name}, "spec": spec, "status": status}


def condition(type: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    """A condition."""
    return {"type": type, "status": status, "reason": reason, "message": message}


ACCEPTED = condition("Accepted", "True", "Accepted")
STORED_PROJECT = obj(
    "Project", "p", {"workers": [{"swarm": "s"}], "maxParallel": 1}, conditions=[ACCEPTED]
)
STORED_SWARM = obj(
    "Swarm",
    "s",
    {"replicas": 2},
    phase="Running",
    ready="2/2",
    workers=[{"index": 0, "phase": "Busy"}, {"index": 1, "phase": "Idle"}],
)


def stored_task(name: str, *depends_on: str, **status: Any) -> dict[str, Any]:
    """A stored Task of the project."""
    return obj("Task", f"p.{name}", {"project": "p", "dependsOn": list(depends_on)}, **status)


def facts(*tasks: dict[str, Any], **others: Any) -> WorldFacts:
    """The facts of these tasks, with the stored project and swarm."""
    return facts_from_objects(
        tasks, others.get("projects", [STORED_PROJECT]), others.get("swarms", [STORED_SWARM]), NOW
    )


def reason(found: WorldFacts, name: str) -> str:
    """The reason why a task waits, or an empty string."""
    task = found.task(name)
    assert task is not None
    told = blocker(task, found)
    return told.reason if told else ""


def test_stored_objects_tell_the_same() -> None:
    attempt = {"number": 2, "state": "Running", "swarm": "s", "worker": 0}
    found = facts(
        stored_task("a", phase="Running", attempts=[attempt]),
        stored_task("b", "a", phase="Waiting"),
        stored_task("c"),
        stored_task("d", "gone"),
        stored_task("e", "f"),
        stored_task("f", "e"),
        stored_task("g", "g"),
        stored_task("h", nextAttemptAt="2038-01-01T00:00:00.000000Z"),
        obj("Task", "lone", {"target": {"swarm": "s", "workers": 0}}),
        obj("Task", "idle", {"target": {"swarm": "s"}}),
        obj("Task", "lost", {"target": {"swarm": "s", "workers": "5"}}),
    )
    assert {name: reason(found, name) for name in found.tasks} == {
        "p.a": "",
        "p.b": "DependencyNotDone",
        "p.c": "MaxParallel",
        "p.d": "DependencyNotFound",
        "p.e": "DependencyCycle",
        "p.f": "DependencyCycle",
        "p.g": "DependencyCycle",
        "p.h": "Backoff",
        "lone": "NoIdleWorker",
        "idle": "",
        "lost": "WorkerNotFound",
    }
    assert chain("p.b", found)[-1].state == "Running (attempt 2) on s/0"


def test_stored_conditions_are_read() -> None:
    def with_conditions(stored: dict[str, Any], *conditions: dict[str, Any]) -> dict[str, Any]:
        return {**stored, "status": {**stored["status"], "conditions": list(conditions)}}

    refused = with_conditions(STORED_PROJECT, condition("Accepted", "False", "BadPlan", "why"))
    unseen = {**STORED_PROJECT, "status": {}}
    spent = with_conditions(
        STORED_PROJECT, ACCEPTED, condition("WithinBudget", "False", "Unpriced", "no price")
    )
    for project, expected in (
        (refused, "ProjectNotAccepted"),
        (unseen, "ProjectNotAccepted"),
        (spent, "Unpriced"),
        (STORED_PROJECT, ""),
    ):
        assert reason(facts(stored_task("a"), projects=[project]), "p.a") == expected
    quota = with_conditions(STORED_SWARM, condition("QuotaAvailable", "False", "QuotaExhausted"))
    going = {**STORED_SWARM, "metadata": {"name": "s", "deletionTimestamp": "now"}}
    starting = {**STORED_SWARM, "status": {}}
    for swarm, expected in (
        (quota, "QuotaExhausted"),
        (going, "SwarmNotFound"),
        (starting, "SwarmNotReady"),
    ):
        assert reason(facts(stored_task("a"), swarms=[swarm]), "p.a") == expected
    taken = stored_task("a", conditions=[condition("Accepted", "False", "NameTaken", "by x")])
    assert reason(facts(taken), "p.a") == "NameTaken"


names = st.sampled_from(["p.a", "p.b", "p.c", "p.d"])
any_task = st.builds(
    TaskFacts,
    name=names,
    phase=st.sampled_from(["Pending", "Waiting", "Running", "Succeeded", "Failed"]),
    suspended=st.booleans(),
    project=st.sampled_from(["", "p", "none"]),
    depends_on=st.lists(names, max_size=3, unique=True).map(tuple),
    owned_paths=st.sampled_from([(), ("a.py",)]),
    pool=st.sampled_from([(), ("s",), ("none", "s")]),
    worker=st.sampled_from([None, 0, 9]),
    attempt_state=st.sampled_from(["", "Assigned", "Running"]),
)


@given(st.lists(any_task, max_size=4, unique_by=lambda t: t.name), st.booleans(), st.booleans())
def test_every_world_gives_one_reason_and_a_chain_that_ends(
    tasks: list[TaskFacts], project: bool, swarm: bool
) -> None:
    found = world(
        tasks={task.name: task for task in tasks},
        projects={"p": PROJECT} if project else {},
        swarms={"s": SWARM} if swarm else {},
        claims=held("p.d", "a.py"),
    )
    for task in tasks:
        told = blocker(task, found)
        assert told is None or (told.reason and told.message)
        links = chain(task.name, found)
        assert len(links) <= len(tasks) + 4
        assert links[0].blocker == told
