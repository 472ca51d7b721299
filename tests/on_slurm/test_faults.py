"""What happens to clusters, caused for real while a project or a turn runs on one."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.faults.life import life
from tests.faults.support import check_turns, check_workers, turns
from tests.lab import git, project, prompt, refs, script, work
from tests.on_slurm.lab import SlurmLab

SEED = 20261126
SAMPLES = 3
SECONDS = 60.0


def begun(lab: SlurmLab, name: str) -> None:
    """Wait until a task's turn runs."""
    lab.wait(lambda: lab.attempts(name)[-1:] and "turnStartedAt" in lab.attempts(name)[-1], name)


def gate(lab: SlurmLab) -> Path:
    """A file whose being there lets a turn end."""
    return lab.path / "gate"


def waits_for(path: Path) -> str:
    """A script's step that lasts until a file is there."""
    return f'run: "while [ ! -e {path} ]; do sleep 0.05; done"'


def slow_project(lab: SlurmLab, replicas: int = 1) -> Path:
    """A project of one task, whose turn has begun and lasts until the gate opens."""
    repository = lab.repository()
    lab.start()
    first = waits_for(gate(lab))
    lab.apply(lab.swarm_of(replicas=replicas), project(tasks=[work("a", first)]))
    begun(lab, "demo.a")
    return repository


def finished(lab: SlurmLab, repository: Path, classes: list[str | None]) -> None:
    """The project comes to its end, its task after attempts of these classes."""
    gate(lab).touch()
    lab.converge(lambda: lab.phase_of("Project", "demo") == "Completed", "the project", SECONDS)
    assert [attempt.get("class") for attempt in lab.attempts("demo.a")] == classes
    assert git("-C", str(repository), "show", "codeswarm/demo/integration:a.txt") == "a"
    check_turns(lab)
    check_workers(lab)


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_the_controller_is_killed_at_some_steps(lab: SlurmLab, steps: int, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start_crashing(1 + int((sample + chosen.random()) / SAMPLES * steps))
    life(lab)
    assert lab.live_jobs() == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_controller_is_killed_at_every_step(
    cluster: Cluster, steps: int, tmp_path: Path
) -> None:
    failed = {}
    for at in range(1, steps + 1):
        cluster.clear()
        with SlurmLab(tmp_path / str(at), cluster) as lab:
            log = lab.start_crashing(at)
            try:
                life(lab)
            except AssertionError as error:
                failed[log.read_text().splitlines()[-1]] = str(error)
    assert not failed


@pytest.fixture(scope="module")
def steps(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many steps an undisturbed life has."""
    shared_cluster.clear()
    with SlurmLab(tmp_path_factory.mktemp("undisturbed"), shared_cluster) as lab:
        log = lab.start_crashing(0)
        life(lab)
        return len(log.read_text().splitlines())


def test_a_node_fails_and_no_attempt_is_used_up(lab: SlurmLab) -> None:
    repository = slow_project(lab)
    node = lab.node_of(lab.slurm_id("builders", 0))
    lab.cluster.slurm.fail_node(node)
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    finished(lab, repository, ["Infrastructure", None])


def test_an_administrator_cancels_a_job_whose_turn_runs(lab: SlurmLab) -> None:
    """The worker saves what was done before it leaves; another goes on with the task."""
    repository = slow_project(lab)
    lab.cluster.slurm.cancel(lab.slurm_id("builders", 0))
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    lost = lab.attempts("demo.a")[0]
    assert lost["class"] == "Infrastructure"
    assert refs(repository)[lost["ref"]] == lost["headCommit"], "its work is at the attempt's ref"
    finished(lab, repository, ["Infrastructure", None])


def test_the_time_limit_nears(lab: SlurmLab) -> None:
    """USR1 ahead of the end: work is saved, the task put back, a new job follows."""
    repository = slow_project(lab)
    old = lab.slurm_id("builders", 0)
    lab.cluster.slurm.update(old, "EndTime=now+70")
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    left = lab.attempts("demo.a")[0]
    assert (left["class"], left["reason"]) == ("Infrastructure", "TimeLimit")
    assert refs(repository)[left["ref"]] == left["headCommit"]
    assert lab.slurm_id("builders", 0) != old
    finished(lab, repository, ["Infrastructure", None])


def test_a_suspended_job_is_left_alone_and_goes_on(lab: SlurmLab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(
        lab.swarm_of(replicas=1, heartbeatTimeoutSeconds=8),
        project(tasks=[work("a", waits_for(gate(lab)))]),
    )
    begun(lab, "demo.a")
    id = lab.slurm_id("builders", 0)
    lab.cluster.slurm.suspend(id)
    lab.wait(lambda: "uspend" in str(lab.swarm_status("builders")), "it to be said")
    lab.outlast(10)  # more than a heartbeat timeout
    lab.cluster.slurm.resume(id)
    finished(lab, repository, [None])
    assert lab.slurm_id("builders", 0) == id


def test_every_connection_is_cut_again_and_again(lab: SlurmLab) -> None:
    repository = lab.repository()
    lab.start()
    tasks = [work(name, "sleep: 0.3", depends_on=needs) for name, needs in
             (("a", []), ("b", []), ("c", ["a"]), ("d", ["b", "c"]))]  # fmt: skip
    lab.apply(lab.swarm_of(replicas=2), project(tasks=tasks))

    def cut() -> bool:
        lab.cluster.login.cut()
        return lab.phase_of("Project", "demo") == "Completed"

    lab.every(3, cut, SECONDS)
    assert all(turn.complete for turn in check_turns(lab).values())
    names = [name for name in ("a", "b", "c", "d") if len(lab.attempts(f"demo.{name}")) == 1]
    assert names == ["a", "b", "c", "d"], "a cut is no failure of an attempt"
    assert "refs/heads/codeswarm/demo/integration" in refs(repository)


def test_the_login_host_goes_away_while_a_turn_runs(lab: SlurmLab) -> None:
    """The turn ends meanwhile; when contact returns, that is what counts."""
    repository = slow_project(lab)
    id = lab.slurm_id("builders", 0)
    lab.cluster.login.stop()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "False",
        "it to be said", SECONDS,
    )  # fmt: skip
    assert lab.condition("Swarm", "builders", "ProviderReachable")["reason"] == "ConnectionRefused"
    gate(lab).touch()
    lab.outlast(5)
    assert [a["state"] for a in lab.attempts("demo.a")] == ["Running"]
    lab.cluster.login.start()
    finished(lab, repository, [None])
    assert lab.slurm_id("builders", 0) == id


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_the_login_host_is_away_for_minutes(lab: SlurmLab) -> None:
    """What depends on it becomes Unknown, not failed; nothing is launched elsewhere."""
    repository = slow_project(lab)
    jobs = set(lab.jobs("builders"))
    lab.cluster.login.stop()

    def unknown() -> bool:
        swarm = [lab.condition("Swarm", "builders", type) for type in ("Available", "Ready")]
        task = lab.condition("Task", "demo.a", "Running")
        return all(condition.get("status") == "Unknown" for condition in [*swarm, task])

    lab.wait(unknown, "Unknown", 200)
    assert [a["state"] for a in lab.attempts("demo.a")] == ["Running"]
    lab.cluster.login.start()
    lab.wait(lambda: lab.condition("Swarm", "builders", "Ready")["status"] == "True", "contact", 60)
    finished(lab, repository, [None])
    assert set(lab.jobs("builders")) == jobs


def test_slurmctld_is_restarted_and_killed(lab: SlurmLab) -> None:
    """Nobody is launched twice: what Slurm forgets for a while is still there."""
    repository = slow_project(lab, replicas=2)
    jobs = set(lab.jobs("builders"))
    lab.cluster.slurm.restart_ctld()
    lab.outlast(6)  # slurmctld saves its state
    lab.cluster.slurm.kill_ctld()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("reason")
        == "SlurmUnreachable",
        "it to be said", SECONDS,
    )  # fmt: skip
    lab.apply(prompt("meanwhile", script('say: "still here"')))
    lab.wait_phase("Task", "meanwhile", "Succeeded", deadline=SECONDS)
    lab.cluster.slurm.start_ctld()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "True",
        "contact", SECONDS,
    )  # fmt: skip
    finished(lab, repository, [None])
    assert set(lab.jobs("builders")) == jobs


def test_what_happened_without_contact_is_taken_over(lab: SlurmLab) -> None:
    """A requeue by an administrator, and a node that failed while the login host was away."""
    lab.start()
    lab.apply(lab.swarm_of(replicas=2))
    lab.wait_phase("Swarm", "builders", "Running")
    first = lab.jobs("builders")
    indices = {row["index"]: job for job, row in first.items()}
    lab.cluster.slurm.requeue(lab.slurm_id("builders", 0))
    lab.wait(lambda: indices[0] not in lab.jobs("builders"), "the requeued one's successor")
    lab.wait_phase("Swarm", "builders", "Running", deadline=SECONDS)
    assert indices[1] in lab.jobs("builders")
    node = lab.node_of(lab.slurm_id("builders", 1))
    lab.cluster.login.stop()
    lab.cluster.slurm.fail_node(node)
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "False",
        "it to be said", SECONDS,
    )  # fmt: skip
    assert indices[1] in lab.jobs("builders"), "nothing is concluded without contact"
    lab.cluster.login.start()
    lab.wait(lambda: indices[1] not in lab.jobs("builders"), "the lost one's successor", SECONDS)
    lab.wait_phase("Swarm", "builders", "Running", deadline=SECONDS)


def test_a_worker_dies(lab: SlurmLab) -> None:
    repository = slow_project(lab)
    (process,) = lab.workers()[next(iter(lab.jobs("builders")))]
    os.kill(process.pid, signal.SIGKILL)
    finished(lab, repository, ["Infrastructure", None])
    uid = lab.get("Task", "demo.a")["metadata"]["uid"]
    assert sum(turn.uid == uid for turn in turns(lab).values()) == 2
