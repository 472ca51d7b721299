"""On a real cluster: a job's time is up in the middle of a task; the login host goes in a turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import git, project, prompt, script, work
from tests.slurm_provider.test_home import OnSlurm, home  # noqa: F401 (the fixture)

pytestmark = pytest.mark.e2e


def folder(home: OnSlurm, job: str) -> Path:  # noqa: F811
    """A worker's folder on the shared file system."""
    return next(home.world.root.glob(f"default/builders-*/{job}"))


def test_unfinished_work_comes_home_and_goes_to_the_next_worker(home: OnSlurm) -> None:  # noqa: F811
    lab, slurm = home.lab, home.world.slurm
    repository = lab.repository()
    begun = "{run: 'echo half > half.txt; sleep 60', attempt: 1}"
    waits = "until test -s ../commit; do sleep 0.05; done"
    found = f"{waits}; git cat-file -e $(cat ../commit):half.txt"
    task = work("a", begun, f"{{run: '{found}', attempt: 2}}", retry={"limit": 0})
    lab.apply(home.swarm(replicas=1), project(tasks=[task]))
    home.busy_with("demo.a", 1)
    first = lab.task("demo.a")["attempts"][0]
    lab.wait((folder(home, first["job"]) / "repo" / "half.txt").exists, "some work", 60)
    slurm.call("scancel", "--batch", "--signal=USR1", home.id(first["worker"]))
    home.busy_with("demo.a", 2)
    kept, second = lab.task("demo.a")["attempts"]
    assert (kept["reason"], kept["class"]) == ("TimeLimit", "Infrastructure")
    head = kept["headCommit"]
    assert git("-C", str(repository), "rev-parse", kept["ref"]) == head
    assert git("-C", str(repository), "show", f"{head}:half.txt") == "half"
    (folder(home, second["job"]) / "commit").write_text(head)
    lab.wait_phase("Project", "demo", "Completed", deadline=90)
    assert not lab.task("demo.a").get("failures")
    told = {event.reason for event in lab.db.events()}
    assert "WorkerLeft" in told and not told & {"WorkerLost", "AttemptFailed"}


def test_a_turn_that_ends_while_the_login_host_is_away(home: OnSlurm) -> None:  # noqa: F811
    lab, sshd = home.lab, home.world.sshd
    lab.apply(home.swarm(replicas=1))
    home.wait_ready(1)
    slow = 'run: "until test -e ../go; do sleep 0.1; done"'
    lab.apply(prompt("p", script(slow), retry={"limit": 0}))
    home.busy_with("p", 1)
    base = folder(home, lab.task("p")["attempts"][0]["job"])
    sshd.stop()
    try:
        lab.wait(
            lambda: lab.condition("Swarm", "builders", "ProviderReachable")["status"] == "False",
            "the login host to be missed",
            60,
        )
        (base / "go").touch()
        (outbox,) = (base / "mailbox" / "outbox").glob("*.jsonl")
        lab.wait(lambda: b'"turn_complete"' in outbox.read_bytes(), "the turn's end", 20)
        assert lab.task("p")["phase"] == "Running"
    finally:
        sshd.start()
    lab.wait_phase("Task", "p", "Succeeded", deadline=60)
    assert len(lab.task("p")["attempts"]) == 1
    assert lab.swarm("builders")["incarnations"] == 1
