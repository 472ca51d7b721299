"""`kubectl delete` at awkward moments: what goes takes nothing along that is not its own."""

from __future__ import annotations

import random
import time

import pytest

from tests.cluster.faulty import KubeFaultLab, forgiving
from tests.faults.support import TOKENS, USE, check_turns, check_workers, tokens, total, turns
from tests.lab import prompt, refs, script, swarm, work

SEED = 20260803


def used(lab: KubeFaultLab) -> dict[str, int]:
    """What all turns have used, as their workers tell."""
    return total({kind: turn.used(kind) for kind in TOKENS} for turn in turns(lab).values())


def test_one_prompt_after_another_of_one_name(faulty: KubeFaultLab) -> None:
    """Each is deleted at another moment of its life, and the next one made at once."""
    chosen = random.Random(SEED)
    faulty.start()
    faulty.apply(swarm(replicas=2))
    faulty.wait_phase("Swarm", "builders", "Running")
    for _ in range(15):
        faulty.create(prompt("p", script(USE, "sleep: 0.3", USE)))
        time.sleep(chosen.uniform(0, 1.2))
        forgiving(faulty, "Task", "p")
        faulty.wait_gone("Task", "p", 20)
    faulty.create(prompt("p", script(USE)))
    faulty.wait_phase("Task", "p", "Succeeded")
    assert [a.get("class") for a in faulty.attempts("p")] == [None]
    faulty.wait(lambda: faulty.state("Swarm", "builders")["idleReplicas"] == 2, "rest", 20)
    found = turns(faulty)
    assert all(turn.complete for turn in found.values())
    faulty.touch("Swarm", "builders")
    sums = tokens(faulty.state("Swarm", "builders")["usage"])
    assert tokens(faulty.state("Task", "p")["usage"]) == TOKENS
    assert sums["input"] <= used(faulty)["input"]
    check_workers(faulty)
    faulty.check_log()


def test_tasks_of_a_project_are_made_again(faulty: KubeFaultLab) -> None:
    """Whatever they had used stays counted."""
    faulty.start()
    repository = faulty.repository()
    tasks = [work("a", USE, "sleep: 1", USE), work("b", USE), work("c", USE, depends_on=["a", "b"])]
    faulty.apply(swarm(replicas=2), faulty.project(repository, tasks=tasks))
    faulty.wait(lambda: faulty.state("Task", "demo.a").get("usage"), "a to run")
    before = {name: faulty.get("Task", name)["metadata"]["uid"] for name in ("demo.a", "demo.c")}
    faulty.delete("Task", "demo.a")
    faulty.delete("Task", "demo.c")
    faulty.wait_phase("Project", "demo", "Completed", deadline=60)
    for name, uid in before.items():
        assert faulty.get("Task", name)["metadata"]["uid"] != uid
    everything = used(faulty)
    for kind, name in (("Project", "demo"), ("Swarm", "builders")):
        faulty.touch(kind, name)
        faulty.wait(
            lambda kind=kind, name=name: tokens(faulty.state(kind, name)["usage"]) == everything,
            f"{kind}'s usage to be {everything}",
            20,
        )
    assert {f"refs/heads/codeswarm/demo/{n}" for n in ("a", "b", "c", "integration")} <= set(
        refs(repository)
    )
    faulty.check_log()


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_a_project_in_the_middle(faulty: KubeFaultLab, cascade: str) -> None:
    """Its turns end, its refs go as far as a branch holds their work, its branches stay."""
    faulty.start()
    repository = faulty.repository()
    tasks = [work("a", USE), work("b", USE, "sleep: 100"), work("c", USE, depends_on=["b"])]
    faulty.apply(swarm(replicas=2), faulty.project(repository, tasks=tasks))
    faulty.wait_phase("Task", "demo.a", "Succeeded")
    faulty.wait(lambda: faulty.state("Task", "demo.b").get("usage"), "b to run")
    done = faulty.cluster.kubectl(
        "delete",
        "project/demo",
        f"--cascade={cascade}",
        "--timeout=60s",
        namespace=faulty.namespace,
    )
    assert done.returncode == 0, done.stderr
    faulty.wait(lambda: not faulty.list("Task"), "the tasks to go", 60)
    faulty.wait(lambda: faulty.state("Swarm", "builders")["idleReplicas"] == 2, "rest", 20)
    there = refs(repository)
    assert "refs/heads/codeswarm/demo/a" in there
    assert not [ref for ref in there if ref.startswith("refs/codeswarm/")]
    faulty.touch("Swarm", "builders")
    faulty.wait(
        lambda: tokens(faulty.state("Swarm", "builders")["usage"]) == used(faulty), "the usage", 20
    )
    faulty.check_log()


def test_a_swarm_that_is_busy(faulty: KubeFaultLab) -> None:
    """A turn that ends within the grace period ends; with force nothing is waited for."""
    faulty.start()
    faulty.apply(
        swarm(replicas=1, termination={"gracePeriodSeconds": 30}),
        swarm("forced", replicas=1, termination={"gracePeriodSeconds": 300}),
        prompt("short", script(USE, "sleep: 2")),
        prompt("long", script(USE, "sleep: 100"), swarm="forced"),
    )
    for name in ("short", "long"):
        faulty.wait(lambda name=name: faulty.state("Task", name).get("usage"), f"{name} to run")
    faulty.apply(prompt("next", script(USE)))
    faulty.delete("Swarm", "builders")
    faulty.delete("Swarm", "forced")
    faulty.wait(lambda: faulty.phase_of("Swarm", "forced") == "Terminating", "it to begin", 20)
    assert faulty.workers()
    faulty.patch("Swarm", "forced", {"metadata": {"annotations": {"codeswarm.dev/force": "true"}}})
    faulty.wait_gone("Swarm", "forced", 20)
    faulty.wait_gone("Swarm", "builders", 30)
    faulty.wait(lambda: not faulty.processes(), "no process", 20)
    assert faulty.phase_of("Task", "short") == "Succeeded"
    faulty.wait(lambda: faulty.attempts("long")[0]["state"] == "Failed", "the turn to be lost", 20)
    assert faulty.attempts("long")[0]["class"] == "Infrastructure"
    assert not faulty.attempts("next")
    faulty.apply(swarm(replicas=1), swarm("forced", replicas=1))
    faulty.wait_phase("Task", "next", "Succeeded", deadline=60)
    faulty.wait(lambda: faulty.attempts("long")[1:], "another attempt", 60)
    faulty.wait(lambda: faulty.attempts("long")[1].get("usage"), "its turn", 20)
    check_turns(faulty)
    faulty.delete("Task", "long")
    faulty.wait_gone("Task", "long", 20)
    faulty.check_log()
