"""Branches are deleted, moved and pruned behind the controller's back."""

from __future__ import annotations

from pathlib import Path

from tests.faults.support import USE, FaultLab, check_branches, check_turns, check_usage
from tests.lab import git, project, refs, swarm, work

HEADS = "refs/heads/codeswarm/demo"


def gate(lab: FaultLab, name: str = "gate") -> tuple[str, Path]:
    """A script's step that goes on when a file is there, and the file."""
    path = lab.path / name
    return f'run: "while ! test -e {path}; do sleep 0.05; done"', path


def looked_at(lab: FaultLab) -> None:
    """Have the remote looked at now: a new controller begins with that."""
    lab.kill()
    lab.start()


def delete_refs(repository: Path, *names: str) -> None:
    """Delete refs of a repository."""
    for name in names:
        git("-C", str(repository), "update-ref", "-d", name)


def test_a_deleted_branch_is_put_back(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(), project(tasks=[work("a", USE), work("slow", step, USE)]))
    lab.wait_phase("Task", "demo.a", "Succeeded")
    head = lab.task("demo.a")["headCommit"]
    delete_refs(repository, f"{HEADS}/a")
    looked_at(lab)
    lab.wait(lambda: refs(repository).get(f"{HEADS}/a") == head, "the branch to be back")
    lab.wait(lambda: any(e.reason == "BranchRestored" for e in lab.db.events()), "the event")
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    assert len(lab.attempts("demo.a")) == len(lab.attempts("demo.slow")) == 1
    check_branches(lab, repository, "demo", ["a", "slow"])
    check_usage(lab, "demo")


def test_after_integration_branches_may_go(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
    lab.wait_phase("Project", "demo", "Completed")
    git("-C", str(repository), "update-ref", "refs/heads/main", "codeswarm/demo/integration")
    ours = [ref for ref in refs(repository) if ref != "refs/heads/main"]
    delete_refs(repository, *ours)
    git("-C", str(repository), "gc", "--quiet", "--prune=now")
    looked_at(lab)
    up_to_date = lab.condition
    lab.wait(
        lambda: up_to_date("Project", "demo", "UpToDate")["reason"] == "BaseMoved", "a look at it"
    )
    assert lab.phase_of("Project", "demo") == "Completed"
    assert [len(lab.attempts(f"demo.{name}")) for name in ("a", "b", "integration")] == [1, 1, 1]
    assert list(refs(repository)) == ["refs/heads/main"]


def test_lost_work_is_done_again_with_what_depends_on_it(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    tasks = [
        work("a", USE),
        work("b", USE, depends_on=["a"]),
        work("alone", USE),
        work("kept", USE),
        work("slow", step, USE),
    ]
    lab.apply(swarm(replicas=3), project(tasks=tasks))
    for name in ("b", "alone", "kept"):
        lab.wait_phase("Task", f"demo.{name}", "Succeeded")
    before = {name: lab.task(f"demo.{name}")["headCommit"] for name in ("a", "b", "alone")}
    lost = [f"{HEADS}/{name}" for name in before]
    delete_refs(repository, *lost, *(lab.task(f"demo.{n}")["headRef"] for n in before))
    git("-C", str(repository), "gc", "--quiet", "--prune=now")
    looked_at(lab)
    lab.wait(
        lambda: all(len(lab.attempts(f"demo.{name}")) == 2 for name in before),
        "the lost work to be done again",
    )
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    assert [len(lab.attempts(f"demo.{name}")) for name in ("kept", "slow")] == [1, 1]
    for name in before:
        assert [a["state"] for a in lab.attempts(f"demo.{name}")] == ["Succeeded", "Succeeded"]
        assert lab.task(f"demo.{name}")["usage"]["inputTokens"] == 2000
    assert (
        lab.attempts("demo.b")[1]["dependencies"][0]["commit"] == lab.task("demo.a")["headCommit"]
    )
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", ["a", "b", "alone", "kept", "slow"])


def test_a_branch_that_was_there_before(lab: FaultLab) -> None:
    repository = lab.repository()
    theirs = lab.commit(repository, {"theirs.txt": "x\n"})
    git("-C", str(repository), "update-ref", f"{HEADS}/a", theirs)
    lab.start()
    lab.apply(swarm(), project(tasks=[work("a", USE), work("b", depends_on=["a"])]))
    lab.wait_phase("Project", "demo", "Attention")
    assert lab.task("demo.a")["reason"] == "BranchNotOurs"
    assert lab.condition("Project", "demo", "NeedsAttention")["reason"] == "BranchNotOurs"
    assert refs(repository)[f"{HEADS}/a"] == theirs
    retry(lab, "demo.a")
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "the retry")
    lab.wait_phase("Project", "demo", "Attention")
    assert refs(repository)[f"{HEADS}/a"] == theirs
    delete_refs(repository, f"{HEADS}/a")
    retry(lab, "demo.a")
    lab.wait_phase("Project", "demo", "Completed")
    check_branches(lab, repository, "demo", ["a", "b"])
    check_turns(lab)


def retry(lab: FaultLab, name: str) -> None:
    """What ``codeswarm retry`` does."""
    token = f"again-{len(lab.attempts(name))}"
    lab.patch(
        "Task",
        name,
        lambda obj: (
            obj["metadata"].setdefault("annotations", {}).update({"codeswarm.dev/retry": token})
        ),
    )


def test_a_branch_that_is_moved_during_the_turn(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(), project(tasks=[work("a", step, USE)]))
    lab.wait(lambda: lab.phase_of("Task", "demo.a") == "Running", "a to run")
    theirs = lab.commit(repository, {"theirs.txt": "x\n"})
    git("-C", str(repository), "update-ref", f"{HEADS}/a", theirs)
    opened.touch()
    lab.wait_phase("Project", "demo", "Attention")
    assert lab.task("demo.a")["reason"] == "BranchNotOurs"
    (attempt,) = lab.attempts("demo.a")
    there = refs(repository)
    assert there[f"{HEADS}/a"] == theirs
    assert there[attempt["ref"]] == attempt["headCommit"]
    delete_refs(repository, f"{HEADS}/a")
    retry(lab, "demo.a")
    lab.wait_phase("Project", "demo", "Completed")
    check_branches(lab, repository, "demo", ["a"])


def test_a_finished_branch_that_somebody_moves(lab: FaultLab) -> None:
    """Theirs is left alone; the integration takes what the task made."""
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(), project(tasks=[work("a"), work("slow", step)]))
    lab.wait_phase("Task", "demo.a", "Succeeded")
    theirs = lab.commit(repository, {"theirs.txt": "x\n"})
    git("-C", str(repository), "update-ref", f"{HEADS}/a", theirs)
    looked_at(lab)
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    assert refs(repository)[f"{HEADS}/a"] == theirs
    assert len(lab.attempts("demo.a")) == 1
    tree = git("-C", str(repository), "ls-tree", "--name-only", "codeswarm/demo/integration")
    assert tree.splitlines() == ["README.md", "a.txt", "slow.txt"]


def test_a_finished_branch_that_somebody_moves_while_the_work_is_lost(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start()
    step, opened = gate(lab)
    lab.apply(swarm(), project(tasks=[work("a"), work("slow", step)]))
    lab.wait_phase("Task", "demo.a", "Succeeded")
    theirs = lab.commit(repository, {"theirs.txt": "x\n"})
    git("-C", str(repository), "update-ref", f"{HEADS}/a", theirs)
    delete_refs(repository, lab.task("demo.a")["headRef"])
    git("-C", str(repository), "gc", "--quiet", "--prune=now")
    looked_at(lab)
    lab.wait(lambda: lab.task("demo.a").get("reason") == "BranchNotOurs", "the condition")
    assert refs(repository)[f"{HEADS}/a"] == theirs
    delete_refs(repository, f"{HEADS}/a")
    retry(lab, "demo.a")
    opened.touch()
    lab.wait_phase("Project", "demo", "Completed")
    check_branches(lab, repository, "demo", ["a", "slow"])
