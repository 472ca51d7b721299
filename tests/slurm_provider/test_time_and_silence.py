"""On a real cluster: a job's time is up in the middle of a task; the login host goes in a turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, git, project, prompt, script, swarm, work
from tests.slurm import Slurm
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd

pytestmark = pytest.mark.e2e


class OnSlurm:
    """A home, and the cluster that its swarm runs on."""

    def __init__(self, lab: Lab, world: SlurmHarness) -> None:
        self.lab = lab
        self.world = world

    def swarm(self, replicas: int = 2, **parameters: Any) -> dict[str, Any]:
        """The swarm's manifest."""
        slurm = {**self.world.parameters(), **parameters}
        return swarm(replicas=replicas, provider={"slurm": slurm}, heartbeatTimeoutSeconds=5)

    def row(self, index: int = 0) -> dict[str, Any]:
        """A worker's row in the swarm's table; empty if there is none."""
        rows = self.lab.swarm("builders").get("workers", ())
        return next((row for row in rows if row["index"] == index), {})

    def id(self, index: int = 0) -> str:
        """Slurm's id of a worker's job."""
        return str(self.row(index)["handle"].removeprefix("job ").partition("_")[0])

    def busy_with(self, task: str, attempt: int) -> int:
        """The worker that is at an attempt of a task, once its turn runs."""

        def turn() -> bool:
            attempts = self.lab.task(task).get("attempts") or [{}]
            return attempts[-1].get("number") == attempt and "turnStartedAt" in attempts[-1]

        self.lab.wait(turn, f"attempt {attempt} of {task} to run", 60)
        return int(self.lab.task(task)["attempts"][-1]["worker"])

    def wait_ready(self, count: int) -> None:
        """Wait until so many workers are ready."""
        self.lab.wait(
            lambda: self.lab.swarm("builders").get("readyReplicas") == count,
            f"{count} workers to be ready",
            60,
        )


@pytest.fixture
def home(slurm: Slurm, slurm_login: Sshd, tmp_path: Path) -> Iterator[OnSlurm]:
    """A home whose controller runs, and a shared file system that no other test has."""
    world = SlurmHarness(slurm, slurm_login, tmp_path.resolve() / "shared")
    with Lab(tmp_path) as lab:
        lab.start()
        yield OnSlurm(lab, world)
    slurm.kill_jobs()
    world.end()


def folder(home: OnSlurm, job: str) -> Path:
    """A worker's folder on the shared file system."""
    return next(home.world.root.glob(f"default/builders-*/{job}"))


def test_unfinished_work_comes_home_and_goes_to_the_next_worker(home: OnSlurm) -> None:
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


def test_a_turn_that_ends_while_the_login_host_is_away(home: OnSlurm) -> None:
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
