"""Workers are killed with SIGKILL or stopped with SIGSTOP: idle, in a turn, again and again."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.support import (
    PRICED,
    TOKENS,
    USE,
    FaultLab,
    check_branches,
    check_turns,
    check_usage,
    check_workers,
    daemons,
    marked,
    tokens,
)
from tests.lab import git, project, prompt, script, swarm, work
from worker.records import TaskRef, UserRecord
from worker.runner import Runner
from worker.runtimes.mock import MockRuntime
from worker.scope import TurnScope

SEED = 20260715


def test_an_idle_worker(lab: FaultLab) -> None:
    lab.start()
    lab.apply(swarm())
    lab.wait_phase("Swarm", "builders", "Running")
    before = lab.jobs("builders")
    os.kill(lab.worker_pid("builders", 0), signal.SIGKILL)
    lab.wait(
        lambda: (
            lab.jobs("builders").keys() != before.keys()
            and lab.swarm("builders")["readyReplicas"] == 2
        ),
        "the worker to be replaced",
    )
    after = lab.jobs("builders")
    assert sorted(row["index"] for row in after.values()) == [0, 1]
    assert len(before.keys() & after.keys()) == 1
    check_workers(lab)
    assert any(e.reason == "WorkerLost" and "signal 9" in e.message for e in lab.db.events())
    lab.apply(prompt("p", target={"swarm": "builders", "workers": 0}))
    lab.wait_phase("Task", "p", "Succeeded")


def test_in_a_turn_with_what_it_started(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    program = daemons(lab, mark, nameless=False)
    first = [f'{{run: "sh {program}", attempt: 1}}', "{sleep: 60, attempt: 1}"]
    task = work("a", USE, *first, USE, retry={"limit": 0})
    lab.apply(swarm(replicas=1), project(tasks=[task]))
    lab.wait(lambda: len(marked(mark)) == 2, "what the agent started")
    lab.wait(lambda: lab.task("demo.a").get("usage"), "the usage so far")
    os.kill(lab.worker_pid("builders", 0), signal.SIGKILL)
    lab.wait_phase("Project", "demo", "Completed")
    first_attempt, second_attempt = lab.attempts("demo.a")
    assert (first_attempt["class"], first_attempt["reason"]) == ("Infrastructure", "WorkerLost")
    assert second_attempt["job"] != first_attempt["job"]
    assert lab.task("demo.a")["usage"]["inputTokens"] == 3000
    assert not marked(mark)
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", ["a"])


def test_whose_time_is_up(lab: FaultLab) -> None:
    """Its work is kept, and at hand for the next attempt."""
    repository = lab.repository()
    lab.start()
    begun = "{run: 'echo half > half.txt; sleep 60', attempt: 1}"
    found = (
        "until test -s ../commit; do sleep 0.02; done; git cat-file -e $(cat ../commit):half.txt"
    )
    task = work("a", USE, begun, f"{{run: '{found}', attempt: 2}}", retry={"limit": 0})
    lab.apply(swarm(replicas=1), project(tasks=[task]))
    first = lab.wait(lambda: lab.attempts("demo.a"), "the turn")[0]
    lab.wait((folder_of(lab, first["job"]) / "repo" / "half.txt").exists, "some work")
    os.kill(lab.worker_pid("builders", 0), signal.SIGUSR1)
    second = lab.wait(lambda: lab.attempts("demo.a")[1:], "the next attempt")[0]
    kept = lab.attempts("demo.a")[0]["headCommit"]
    assert git("-C", str(repository), "rev-parse", first["ref"]) == kept
    (folder_of(lab, second["job"]) / "commit").write_text(kept)
    lab.wait_phase("Project", "demo", "Completed")
    attempts = lab.attempts("demo.a")
    assert [a.get("reason") for a in attempts] == ["TimeLimit", None]
    assert not lab.task("demo.a").get("failures")
    told = {e.reason for e in lab.db.events()}
    assert "WorkerLeft" in told and not told & {"WorkerLost", "AttemptFailed"}
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", ["a"])


def folder_of(lab: FaultLab, job: str) -> Path:
    """A worker's folder, once it is there."""
    found: list[Path] = lab.wait(
        lambda: list(lab.home.workspaces.glob(f"*/builders-*/{job}")), f"the folder of {job}"
    )
    return found[0]


def test_the_agent_kills_its_worker(lab: FaultLab) -> None:
    lab.start()
    crashes = [f"{{crash: true, attempt: {number}}}" for number in (1, 2)]
    lab.apply(swarm(), prompt("p", script(USE, *crashes), retry={"limit": 0}))
    lab.wait_phase("Task", "p", "Succeeded")
    assert [a.get("class") for a in lab.attempts("p")] == ["Infrastructure"] * 2 + [None]
    check_turns(lab)
    check_usage(lab)


def test_while_no_controller_runs(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    tasks = [work("a", USE, "{sleep: 60, attempt: 1}"), work("b", USE, "sleep: 1"), work("c", USE)]
    lab.apply(swarm(replicas=3, agent=PRICED), project(tasks=tasks))
    lab.wait(lambda: lab.task("demo.a").get("usage"), "a to be in its turn")
    lab.wait(lambda: lab.task("demo.b").get("attempts"), "b to be in its turn")
    (attempt,) = lab.attempts("demo.a")
    victim = lab.worker_pid("builders", attempt["worker"])
    lab.kill()
    os.kill(victim, signal.SIGKILL)
    lab.start()
    lab.wait_phase("Project", "demo", "Completed")
    assert [a.get("class") for a in lab.attempts("demo.a")] == ["Infrastructure", None]
    assert [a.get("class") for a in lab.attempts("demo.b")] == [None]
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", ["a", "b", "c"])


def test_a_worker_that_hangs(lab: FaultLab) -> None:
    lab.start()
    lab.apply(swarm(replicas=1, heartbeatTimeoutSeconds=2))
    lab.apply(prompt("p", script(USE, "{sleep: 60, attempt: 1}"), retry={"limit": 0}))
    lab.wait(lambda: lab.task("p").get("usage"), "the turn to have begun")
    (before,) = lab.jobs("builders")
    hung = lab.worker_pid("builders", 0)
    os.kill(hung, signal.SIGSTOP)
    lab.wait_phase("Task", "p", "Succeeded")
    assert [a.get("class") for a in lab.attempts("p")] == ["Infrastructure", None]
    assert before not in lab.jobs("builders")
    assert not psutil.pid_exists(hung) or psutil.Process(hung).status() == psutil.STATUS_ZOMBIE
    check_turns(lab)
    check_usage(lab)
    check_workers(lab)


@pytest.mark.parametrize(
    ("tasks", "kills"), [(40, 5), pytest.param(400, 60, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1800)
def test_again_and_again(lab: FaultLab, tasks: int, kills: int) -> None:
    repository = lab.repository()
    lab.start()
    chosen = random.Random(SEED)
    names = [f"t{number}" for number in range(tasks)]
    listed = [work(name, USE, "sleep: 0.3", USE) for name in names]
    lab.apply(swarm(replicas=4), project(tasks=listed, retry={"limit": 0}))
    killed = 0
    while lab.phase_of("Project", "demo") != "Completed" and killed < 2 * kills:
        time.sleep(chosen.uniform(0.05, 0.6))
        running = lab.wait(lab.workers, "a worker")
        victim = chosen.choice(sorted(running))
        for process in running[victim]:
            process.kill()
        killed += 1
    assert killed >= kills
    lab.wait_phase("Project", "demo", "Completed", deadline=1200)
    for name in names:
        *lost, last = lab.attempts(f"demo.{name}")
        assert {a["class"] for a in lost} <= {"Infrastructure"}
        assert last["state"] == "Succeeded"
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", names)


def test_what_system_prompts_used_stays_counted(lab: FaultLab) -> None:
    """Each worker's own turn counts once, its predecessors' turns go on counting."""
    lab.start()
    lab.apply(swarm(replicas=2, systemPrompt=script(USE)))

    def counted(times: int) -> bool:
        lab.touch("Swarm", "builders")
        return tokens(lab.swarm("builders").get("usage"))["input"] == times * TOKENS["input"]

    lab.wait(lambda: counted(2), "the usage of two workers")
    os.kill(lab.worker_pid("builders", 1), signal.SIGKILL)
    lab.wait(lambda: counted(3), "the usage of three workers")
    lab.kill()
    lab.start()
    lab.apply(prompt("p", script(USE)))
    lab.wait_phase("Task", "p", "Succeeded")
    lab.wait(lambda: counted(4), "the prompt's usage")


class BrokenTurns:
    """Carries out nothing."""

    def run(self, record: UserRecord, scope: TurnScope) -> bool:
        raise SystemExit  # ends a thread without a word

    def run_system_prompt(self, scope: TurnScope) -> bool:
        return True

    def refuse(self, record: UserRecord, reason: str) -> None:
        """Nothing."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_knows_that_it_carries_out_nothing_more() -> None:
    runner = Runner(BrokenTurns(), MockRuntime(), lambda: None)
    assert not runner.died
    runner.start()
    assert not runner.died
    task: TaskRef = {"name": "p", "uid": "u", "kind": "prompt", "attempt": 1}
    runner.submit({"type": "user", "epoch": 1, "injection_id": "u.1", "content": "", "task": task})
    end = time.monotonic() + 10
    while not runner.died:
        assert time.monotonic() < end
        time.sleep(0.01)
