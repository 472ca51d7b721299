"""The lines of ``--wait``: each told once, none of a run before, and what holds things up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from cli import hindrances
from cli.client import ControllerState
from cli.errors import CliError
from cli.file_client import FileClient
from cli.following import Follower
from cli.lookout import LOOK_SECONDS, Lookout
from cli.progress import Progress
from controller.runtime.home import Home
from controller.store.base import Key, Resource
from controller.store.database import Database
from tests.cli.samples import (
    attempt,
    condition,
    project,
    project_status,
    seed,
    set_status,
    swarm,
    swarm_status,
    task,
)


@pytest.fixture
def told() -> list[str]:
    """Lines without their time."""
    return []


@pytest.fixture
def progress(told: list[str]) -> Progress:
    """Tells into ``told``."""
    return Progress(lambda line: told.append(line.split("  ", 1)[1]))


def succeeded(number: int) -> dict[str, Any]:
    """A task whose attempts have all made the same commit."""
    attempts = [attempt(n + 1, "Succeeded") for n in range(number)]
    return {"phase": "Succeeded", "attempts": attempts, "branch": "b", "headCommit": "c" * 40}


def test_the_same_result_again_is_told_again(
    db: Database, progress: Progress, told: list[str]
) -> None:
    made = seed(db, task("greeter.library"), succeeded(1))
    progress.skip([made])
    progress.tell(made)
    assert told == []
    progress.tell(set_status(db, made, **succeeded(2)))
    assert told == [
        "task/greeter.library started on builders/0 (attempt 2)",
        "task/greeter.library succeeded: b at cccccccccc",
    ]


def completed(digest: str, state: str = "merged") -> dict[str, Any]:
    """A project that has integrated these heads."""
    merges = [{"task": "library", "commit": "a" * 40, "state": state}]
    return project_status(
        phase="Completed",
        progress="1/1",
        integration={"digest": digest, "merges": merges, "headCommit": "b" * 40},
        conditions=[condition("Accepted", "True"), condition("Complete", "True")],
    )


def test_merges_and_end_belong_to_what_is_pinned(
    db: Database, progress: Progress, told: list[str]
) -> None:
    made = seed(db, project(), completed("one"))
    progress.skip([made])
    progress.tell(set_status(db, made, **completed("two", "already")))
    assert told == [
        "project/greeter already had library (1/1)",
        "project/greeter complete (1/1): codeswarm/greeter/integration at bbbbbbbbbb",
    ]


def follow(home: Home, keys: list[Key], timeout: float | None) -> list[str]:
    """The lines of a follower that begins now."""
    lines: list[str] = []
    with closing(FileClient(home)) as client:
        follower = Follower(client, client.watch(), lambda line: lines.append(line[10:]))
        follower.begin(keys)
        try:
            follower.run(keys, timeout)
        except CliError:
            assert timeout is not None
    return lines


def test_what_had_ended_before_is_told_once(home: Home, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    seed(db, project(), completed("one"))
    keys = [Key("Swarm", "default", "builders"), Key("Project", "default", "greeter")]
    assert follow(home, keys, None) == [
        "swarm/builders 2/2 workers ready",
        "project/greeter complete (1/1): codeswarm/greeter/integration at bbbbbbbbbb",
    ]


def test_the_pause_before_another_attempt(
    db: Database, progress: Progress, told: list[str]
) -> None:
    failed = attempt(
        1, "Failed", reason="ReportedFailed", message="no", finishedAt="2020-01-01T00:00:00.2Z"
    )
    failed["class"] = "Task"
    status = {"phase": "Waiting", "attempts": [failed], "nextAttemptAt": "2020-01-01T00:00:10.3Z"}
    progress.tell(seed(db, task("greeter.library"), status))
    assert told[-2:] == [
        "task/greeter.library attempt 1 failed (Task): ReportedFailed: no",
        "task/greeter.library is tried again in 10 s",
    ]


REFUSED = condition("Accepted", "False", "RepositoryNotFound", "x does not exist")
UNREADABLE = condition("Accepted", "Unknown", "RepositoryUnreadable", "x cannot be read")
SPENT = condition("WithinBudget", "False", "BudgetExceeded", "100 of 10 tokens are used")
TYPO = condition("Assignable", "False", "SwarmNotFound", "swarm taem does not exist")
BUSY = condition("Assignable", "False", "NoIdleWorker", "no worker of swarm team is idle")


@pytest.mark.parametrize(
    ("obj", "held", "text"),
    [
        (project(), REFUSED, "not accepted: RepositoryNotFound: x does not exist"),
        (project(), UNREADABLE, "waits: RepositoryUnreadable: x cannot be read"),
        (project(), SPENT, "waits: BudgetExceeded: 100 of 10 tokens are used"),
        (task("greeter.library"), TYPO, "waits: SwarmNotFound: swarm taem does not exist"),
        (task("greeter.library"), BUSY, None),
    ],
)
def test_hindrances(db: Database, obj: Resource, held: Resource, text: str | None) -> None:
    made = seed(db, obj, {"phase": "Pending", "conditions": [held]})
    found = hindrances.of(made)
    assert (found.text if found else None) == text
    made["metadata"]["generation"] += 1
    assert hindrances.of(made) is None


def test_what_is_under_way_is_told_and_holds_nothing_up(
    db: Database, progress: Progress, told: list[str]
) -> None:
    booting = condition("Available", "False", "InstancesBooting", "0 of 2 workers are ready")
    status = {"phase": "Launching", "reason": "InstancesBooting", "conditions": [booting]}
    status["progress"] = "InstancesBooting: 1 of 2 run"
    made = seed(db, swarm(), status)
    assert hindrances.of(made) is None
    progress.tell(made)
    progress.tell(made)
    assert told == ["swarm/builders InstancesBooting: 1 of 2 run"]
    del made["status"]["progress"]
    found = hindrances.of(made)
    assert found is not None
    assert found.reason == "InstancesBooting"


def test_a_hindrance_is_told_once_as_long_as_it_lasts(
    db: Database, progress: Progress, told: list[str]
) -> None:
    made = seed(db, project(), {"phase": "Pending", "conditions": [UNREADABLE]})
    waiting = {"phase": "Waiting", "conditions": [{**UNREADABLE, "type": "Accepted"}]}
    other = seed(db, task("greeter.library"), waiting)
    progress.skip([made])
    for obj in (made, made, other):
        progress.tell(obj)
    assert told == ["project/greeter waits: RepositoryUnreadable: x cannot be read"]


def test_a_swarm_that_a_project_needs_is_told_of(home: Home, db: Database) -> None:
    refused = condition("Accepted", "False", "RuntimeNotAvailable", "no codex here")
    seed(db, swarm(), {"phase": "Pending", "conditions": [refused]})
    seed(db, project(), project_status())
    lines = follow(home, [Key("Project", "default", "greeter")], 0.05)
    assert lines == ["swarm/builders not accepted: RuntimeNotAvailable: no codex here"]


def test_a_dead_controller_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    states = [False, False, False, True, False]
    monkeypatch.setattr("cli.lookout.time.monotonic", lambda: now[0])

    class Client:
        def controller(self) -> ControllerState:
            return ControllerState(states.pop(0), "pid 7", "start it with `codeswarm up`")

    lines: list[str] = []
    tell: Callable[[str], None] = lines.append
    lookout = Lookout(Client(), tell)  # type: ignore[arg-type]
    while states:
        lookout.look()
        lookout.look()
        now[0] += LOOK_SECONDS
    assert lines == [
        "no controller runs: start it with `codeswarm up`",
        "a controller runs again (pid 7)",
    ]
