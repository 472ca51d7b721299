"""The file home with a swarm on a real cluster behind a real sshd: work done, faults caused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.store.base import Key
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

    def wait_condition(self, type: str, status: str, reason: str) -> dict[str, Any]:
        """Wait for a condition of the swarm."""

        def there() -> bool:
            now = self.lab.condition("Swarm", "builders", type)
            return (now.get("status"), now.get("reason")) == (status, reason)

        self.lab.wait(there, f"{type}={status} {reason}", 60)
        return self.lab.condition("Swarm", "builders", type)


@pytest.fixture
def home(slurm: Slurm, slurm_login: Sshd, tmp_path: Path) -> Iterator[OnSlurm]:
    """A home whose controller runs, and a shared file system that no other test has."""
    world = SlurmHarness(slurm, slurm_login, tmp_path.resolve() / "shared")
    with Lab(tmp_path) as lab:
        lab.start()
        yield OnSlurm(lab, world)
    slurm.kill_jobs()
    world.end()


def test_a_project_is_done_on_a_cluster_through_faults(home: OnSlurm) -> None:
    lab, slurm = home.lab, home.world.slurm
    repository = lab.repository()
    slow = 'run: "for i in $(seq 60); do test -e ../../go && break; sleep 0.5; done"'
    tasks = [work("a"), work("b", slow), work("c", depends_on=["a", "b"])]
    verify = ["test -f a.txt -a -f b.txt -a -f c.txt"]
    lab.apply(home.swarm(), project(tasks=tasks, integration={"verify": verify}))
    lab.wait(lambda: lab.task("demo.b").get("phase") == "Running", "b to run", 60)
    lab.kill()
    lab.start()
    slurm.cancel(home.id(home.busy_with("demo.b", 1)))
    # What Slurm sends ahead of a time limit (--signal), at once.
    slurm.call("scancel", "--batch", "--signal=USR1", home.id(home.busy_with("demo.b", 2)))
    home.busy_with("demo.b", 3)
    for folder in home.world.root.glob("default/builders-*"):
        (folder / "go").touch()
    lab.wait_phase("Project", "demo", "Completed", deadline=90)
    branch = lab.project("demo")["branch"]
    tree = git("-C", str(repository), "ls-tree", "--name-only", branch).split()
    assert tree == ["README.md", "a.txt", "b.txt", "c.txt"]
    ended = [(a["class"], a["reason"]) for a in lab.task("demo.b")["attempts"] if "class" in a]
    assert ended == [("Infrastructure", "Stopped"), ("Infrastructure", "TimeLimit")]

    lab.patch("Swarm", "builders", lambda obj: obj["spec"].update(replicas=1))
    home.wait_ready(1)
    uid = lab.get("Swarm", "builders")["metadata"]["uid"]
    lab.db.delete(Key("Swarm", "default", "builders"))
    lab.wait(lambda: lab.db.get(Key("Swarm", "default", "builders")) is None, "the swarm to go", 60)
    assert slurm.call("squeue", "-h", "-o", "%k").stdout.count(uid) == 0
    assert list(home.world.root.glob("default/*")) == []
    assert home.world.processes() == set()


def test_workers_are_replaced_and_reality_is_taken_over(home: OnSlurm) -> None:
    lab, slurm, sshd = home.lab, home.world.slurm, home.world.sshd
    lab.apply(home.swarm(replicas=2))
    home.wait_ready(2)
    first, kept = home.row(0)["job"], home.row(1)["job"]
    slurm.stop_ctld()
    assert (
        "slurmctld"
        in home.wait_condition("ProviderReachable", "False", "SlurmUnreachable")["message"]
    )
    assert home.row(0)["job"] == first
    slurm.start_ctld()
    home.wait_condition("ProviderReachable", "True", "Reachable")
    node = slurm.call("squeue", "-h", "-j", home.id(0), "-o", "%N").stdout.strip()
    slurm.requeue(home.id(0))
    lab.wait(
        lambda: home.row(0).get("job") not in ("", first), "the requeued worker's successor", 60
    )
    home.wait_ready(2)
    assert home.row(1)["job"] == kept
    sshd.stop()
    slurm.fail_node(node)
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "False",
        "the login host to be missed",
        60,
    )
    assert home.row(1)["job"] == kept
    sshd.start()
    home.wait_condition("ProviderReachable", "True", "Reachable")
    lab.wait(lambda: home.row(1).get("job") not in ("", kept), "a worker on another node", 60)
    slurm.mend_node(node)
    home.wait_ready(2)
    lab.apply(prompt("hello", script("say: hi"), target={"swarm": "builders", "workers": "0"}))
    lab.wait_phase("Task", "hello", "Succeeded", deadline=60)


@pytest.mark.parametrize(
    ("parameters", "reason", "says"),
    [
        ({"partition": "nope"}, "PartitionNotFound", "main"),
        ({"partition": "short", "timeLimit": "60"}, "TimeLimitTooLong", "10 minutes"),
        ({"partition": "short", "sbatchOptions": ["-c8"]}, "PartitionTooSmall", "holds 1 worker"),
        ({"sbatchOptions": ["--wrap=ls"]}, "SbatchOptionRefused", "setupCommands"),
    ],
)
def test_what_can_never_be_is_said(
    home: OnSlurm, parameters: dict[str, Any], reason: str, says: str
) -> None:
    home.lab.apply(home.swarm(**parameters))
    assert says in home.wait_condition("Available", "False", reason)["message"]
