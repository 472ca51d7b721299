"""The way to a cluster, its login host and slurmctld go away while a project runs there."""

from __future__ import annotations

import pytest

from tests.faults.support import check_turns
from tests.lab import project, prompt, refs, script, work
from tests.on_slurm.lab import SlurmLab
from tests.on_slurm.slow import SECONDS, finished, gate, slow_project


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
