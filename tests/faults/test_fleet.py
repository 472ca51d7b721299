"""A swarm is scaled, changed and deleted while its workers are busy."""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults.support import (
    USE,
    FaultLab,
    check_branches,
    check_nothing_left,
    check_turns,
    check_usage,
    check_workers,
    daemons,
    marked,
)
from tests.lab import project, prompt, script, swarm, work


def gate(lab: FaultLab) -> tuple[str, Path]:
    """A script's step that goes on when a file is there, and the file."""
    path = lab.path / "gate"
    return f'run: "while ! test -e {path}; do sleep 0.05; done"', path


def scale(lab: FaultLab, replicas: int) -> None:
    """What ``codeswarm scale`` does."""
    lab.patch("Swarm", "builders", lambda obj: obj["spec"].update(replicas=replicas))


def running(lab: FaultLab, names: Iterable[str]) -> bool:
    """Whether all these tasks have a turn."""
    return all(lab.phase_of("Task", f"demo.{n}") == "Running" for n in names)


def phases(lab: FaultLab) -> list[str]:
    """The workers' phases, sorted."""
    return sorted(row["phase"] for row in lab.jobs("builders").values())


def test_up_and_down_with_busy_workers(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    names = ["a", "b", "c"]
    tasks = [work(name, step, USE) for name in names]
    lab.apply(swarm(replicas=2), project(tasks=tasks))
    lab.wait(lambda: phases(lab) == ["Busy", "Busy"], "both workers to be busy")
    scale(lab, 5)
    lab.wait(lambda: phases(lab) == ["Busy"] * 3 + ["Idle"] * 2, "three more workers")
    busy = {job for job, row in lab.jobs("builders").items() if row["phase"] == "Busy"}
    scale(lab, 1)
    lab.wait(lambda: phases(lab) == ["Busy", "Draining", "Draining"], "the idle to go first")
    assert set(lab.jobs("builders")) == busy
    lab.apply(prompt("later", script(USE)))
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait_phase("Task", "later", "Succeeded")
    lab.wait(lambda: phases(lab) == ["Idle"], "one worker to stay")
    for name in names:
        assert [a["state"] for a in lab.attempts(f"demo.{name}")] == ["Succeeded"]
    assert {lab.attempts(f"demo.{name}")[0]["job"] for name in names} == busy
    (left,) = lab.jobs("builders")
    assert left in busy
    assert lab.attempts("later")[0]["job"] == left
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", names)


def test_down_and_up_again_while_they_drain(lab: FaultLab) -> None:
    lab.repository()
    lab.start()
    step, opened = gate(lab)
    names = ["a", "b", "c"]
    lab.apply(swarm(replicas=3), project(tasks=[work(name, step, USE) for name in names]))
    lab.wait(lambda: phases(lab) == ["Busy"] * 3, "all to be busy")
    for replicas in (0, 3, 1, 2):
        scale(lab, replicas)
        lab.wait(
            lambda n=replicas: (
                sum(phase not in ("Draining", "Stopping") for phase in phases(lab)) == n
            ),
            f"{replicas} workers that stay",
        )
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait(lambda: phases(lab) == ["Idle", "Idle"], "two workers")
    assert all(len(lab.attempts(f"demo.{name}")) == 1 for name in names)
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)


def test_a_change_replaces_workers_after_their_turn(lab: FaultLab) -> None:
    lab.repository()
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(replicas=3), project(tasks=[work("a", step, USE)]))
    lab.wait(lambda: phases(lab) == ["Busy", "Idle", "Idle"], "one to be busy")
    before = lab.jobs("builders")
    (busy,) = (job for job, row in before.items() if row["phase"] == "Busy")
    changed = {"runtime": "mock", "env": [{"name": "FLAVOUR", "value": "new"}]}
    lab.patch("Swarm", "builders", lambda obj: obj["spec"].update(agent=changed))

    def rolled(status: str) -> bool:
        return bool(lab.condition("Swarm", "builders", "RolledOut").get("status") == status)

    lab.wait(lambda: rolled("False"), "the roll-out to begin")
    lab.wait(lambda: set(lab.jobs("builders")) & set(before) == {busy}, "the idle to be replaced")
    lab.wait(lambda: phases(lab) == ["Draining", "Idle", "Idle"], "the new to be ready")
    assert rolled("False")
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait(lambda: rolled("True") and phases(lab) == ["Idle"] * 3, "the roll-out to end")
    assert not set(lab.jobs("builders")) & set(before)
    (attempt,) = lab.attempts("demo.a")
    assert (attempt["state"], attempt["job"]) == ("Succeeded", busy)
    flavour = script('run: "test $FLAVOUR = new"')
    lab.apply(prompt("p", flavour, target={"swarm": "builders", "workers": "all"}))
    lab.wait_phase("Task", "p", "Succeeded")
    check_usage(lab, "demo")
    check_workers(lab)


def test_a_turn_may_end_within_the_grace_period(lab: FaultLab) -> None:
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(termination={"gracePeriodSeconds": 30}), prompt("p", script(step, USE)))
    lab.wait(lambda: lab.phase_of("Task", "p") == "Running", "the turn")
    lab.delete("Swarm", "builders")
    lab.wait(lambda: len(lab.workers()) == 1, "the idle worker to go")
    assert lab.phase_of("Swarm", "builders") == "Terminating"
    lab.apply(prompt("late", script(USE)))
    opened.touch()
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    check_nothing_left(lab)
    assert [a["state"] for a in lab.attempts("p")] == ["Succeeded"]
    assert lab.task("p")["usage"]["inputTokens"] == 1000
    lab.wait(lambda: (lab.task("late").get("blocker") or {}).get("reason") == "SwarmNotFound", "it")
    assert not lab.attempts("late")
    lab.apply(swarm(replicas=1))
    lab.wait_phase("Task", "late", "Succeeded")
    check_turns(lab)


def begin_hanging(lab: FaultLab, **termination: Any) -> str:
    """A swarm with a turn that never ends; the mark of what it started."""
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    lab.start()
    program = daemons(lab, mark, nameless=True)
    lab.apply(
        swarm(replicas=1, termination=termination),
        prompt("p", script(f'run: "sh {program}"', "hang: true")),
    )
    lab.wait(lambda: len(marked(mark)) == 3, "what the agent started")
    return mark


def test_the_end_of_the_grace_period(lab: FaultLab) -> None:
    mark = begin_hanging(lab, gracePeriodSeconds=1)
    begun = time.monotonic()
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    assert time.monotonic() - begun > 1
    check_nothing_left(lab)
    assert not marked(mark)
    assert {a["class"] for a in lab.attempts("p")} == {"Infrastructure"}


def test_by_force(lab: FaultLab) -> None:
    mark = begin_hanging(lab, gracePeriodSeconds=600)
    force(lab)
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go", 10)
    check_nothing_left(lab)
    assert not marked(mark)


def test_by_force_after_patience(lab: FaultLab) -> None:
    mark = begin_hanging(lab, gracePeriodSeconds=600)
    lab.delete("Swarm", "builders")
    lab.wait_phase("Swarm", "builders", "Terminating")
    assert marked(mark)
    force(lab)
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go", 10)
    check_nothing_left(lab)
    assert not marked(mark)


def force(lab: FaultLab) -> None:
    """What ``codeswarm delete --force`` does first."""
    lab.patch(
        "Swarm",
        "builders",
        lambda obj: (
            obj["metadata"].setdefault("annotations", {}).update({"codeswarm.dev/force": "true"})
        ),
    )


def test_the_archive_stands_in_status_before_the_end(lab: FaultLab) -> None:
    lab.repository()
    lab.start()
    tasks = [work(name, USE) for name in ("a", "b")]
    lab.apply(
        swarm(termination={"archive": True, "archivePath": "kept"}),
        project(tasks=tasks),
    )
    lab.wait_phase("Project", "demo", "Completed")
    jobs = sorted(lab.jobs("builders"))
    lab.delete("Swarm", "builders")
    path = ""
    end = time.monotonic() + 30
    while not lab.is_gone("Swarm", "builders"):
        path = lab.swarm("builders").get("archivePath") or path
        assert time.monotonic() < end
    check_nothing_left(lab)
    assert Path(path).is_relative_to(lab.home.archives / "kept")
    with tarfile.open(path) as packed:
        names = packed.getnames()
    for job in jobs:
        assert any(f"{job}/mailbox/outbox/" in name for name in names)
        assert any(f"{job}/mailbox/inbox/" in name for name in names)
        assert any(f"{job}/repo/" in name for name in names)
    assert any(e.reason == "Archived" and path in e.message for e in lab.db.events())


def test_its_controller_dies_while_it_ends(lab: FaultLab) -> None:
    mark = begin_hanging(lab, gracePeriodSeconds=2, archive=True)
    lab.delete("Swarm", "builders")
    lab.wait_phase("Swarm", "builders", "Terminating")
    for _ in range(3):
        lab.kill()
        lab.start()
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    check_nothing_left(lab)
    assert not marked(mark)
    assert len(list(lab.home.archives.glob("*.tar.gz"))) == 1
