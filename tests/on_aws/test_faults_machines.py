"""Machines that go, hang, cannot be reached or are taken away while a project runs there."""

from __future__ import annotations

import pytest

from tests.lab import project, prompt, refs, script, work
from tests.on_aws.lab import AwsLab
from tests.on_aws.slow import (
    SECONDS,
    STAYS,
    begun,
    ended,
    finished,
    job_of,
    open_gate,
    slow_project,
)

SOAK = pytest.mark.soak
"""What is much like another test."""


def on_another(lab: AwsLab, replicas: int = 3) -> str:
    """A project's turn that runs on a machine that is not the coordinator; the machine."""
    lab.start()
    lab.apply(lab.swarm_of(replicas=replicas))
    lab.ready(replicas)
    (other,) = set(lab.running()) - {lab.coordinator()}
    (row,) = [row for row in lab.swarm_status() if row["handle"] == other]
    target = {"swarm": "builders", "workers": row["index"]}
    lab.apply(prompt("there", script(STAYS), target=target))
    begun(lab, "there")
    return other


@pytest.mark.parametrize(
    "how", ["stop", pytest.param("kill", marks=SOAK), pytest.param("crash", marks=SOAK)]
)
def test_a_machine_goes_and_no_attempt_is_used_up(lab: AwsLab, how: str) -> None:
    """The others' turns go on; the machine is replaced."""
    repository = lab.repository()
    other = on_another(lab)
    getattr(lab.cloud, how)(other)
    lab.wait(lambda: other not in lab.running(), "EC2 to say so")
    lab.apply(project(tasks=[work("a")]))
    lab.ready(3)
    finished(lab, repository, [None])
    (first,) = lab.attempts("there")[:1]
    assert (first["class"], first["reason"]) == ("Infrastructure", "WorkerLost"), first
    told = [e.message for e in lab.db.events() if e.reason == "WorkerLost"]
    # What is stopped is soon terminated by us: either may be seen first.
    assert any("InstanceTerminated" in t or "InstanceStopped" in t for t in told), told
    assert len(lab.running()) == 2
    assert other not in lab.running()
    assert lab.cloud.instances()[other]["state"] == "terminated", "nothing that costs is left"


@pytest.mark.parametrize(
    "how", ["kill", pytest.param("crash", marks=SOAK), pytest.param("reboot", marks=SOAK)]
)
def test_the_coordinator_goes_with_work_unread(lab: AwsLab, how: str) -> None:
    """A turn ends while nobody can read that; then the machine goes. It is not done again."""
    repository = slow_project(lab, replicas=3)
    leader, job = lab.coordinator(), job_of(lab)
    lab.kill()
    open_gate(lab)
    outbox = f"/shared/codeswarm/*/*/{job}/mailbox/outbox/*.jsonl"
    lab.wait(
        lambda: "turn_complete" in lab.cloud.run(leader, "sh", "-c", f"cat {outbox}"),
        "the turn to end on the machine",
    )
    lab.cloud.run(leader, "sync")
    getattr(lab.cloud, how)(leader)
    lab.start()
    finished(lab, repository, [None])
    lab.ready(3)
    assert len(lab.running()) == 2
    if how != "reboot":
        assert leader not in lab.running()
    ended(lab)


def test_the_coordinator_goes_while_a_turn_runs(lab: AwsLab) -> None:
    repository = slow_project(lab, replicas=3, step=STAYS)
    leader = lab.coordinator()
    lab.cloud.kill(leader)
    finished(lab, repository, ["Infrastructure", None])
    lab.ready(3)
    assert len(lab.running()) == 2
    assert len(lab.cloud.volumes()) == 1
    ended(lab)


def test_a_spot_machine_is_taken_with_notice(lab: AwsLab) -> None:
    """What was done is saved before the machine goes."""
    repository = slow_project(lab, step=STAYS, aws={"spot": True})
    leader = lab.coordinator()
    lab.cloud.interrupt_spot(leader, 20.0)
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    left = lab.attempts("demo.a")[0]
    assert (left["class"], left["reason"]) == ("Infrastructure", "SpotInterruption")
    assert refs(repository)[left["ref"]] == left["headCommit"], "its work is at the attempt's ref"
    finished(lab, repository, ["Infrastructure", None])
    assert leader not in lab.running()


@SOAK
def test_a_spot_machine_is_taken_at_once(lab: AwsLab) -> None:
    repository = slow_project(lab, step=STAYS, aws={"spot": True})
    lab.cloud.take_spot(lab.coordinator())
    finished(lab, repository, ["Infrastructure", None])
    told = [e.message for e in lab.db.events() if e.reason == "WorkerLeft"]
    assert any("SpotInterruption" in text for text in told), told


def test_connections_are_cut_again_and_again(lab: AwsLab) -> None:
    repository = slow_project(lab, replicas=3)
    for _ in range(3):
        for machine in lab.running():
            lab.cloud.cut(machine)
        lab.outlast(1.0)
    open_gate(lab)
    finished(lab, repository, [None])
    assert len(lab.cloud.instances()) == 2


@SOAK
def test_a_machine_that_hangs_is_ended(lab: AwsLab) -> None:
    """Its worker cannot be killed, nor be believed dead: the machine is ended, then replaced."""
    repository = lab.repository()
    other = on_another(lab)
    lab.cloud.freeze(other)
    lab.wait(lambda: lab.cloud.instances()[other]["state"] == "terminated", "its end", SECONDS)
    lab.ready(3)
    lab.apply(project(tasks=[work("a")]))
    finished(lab, repository, [None])
    assert len(lab.running()) == 2


def test_ssh_is_refused_for_long_while_booting(lab: AwsLab) -> None:
    """Nothing is launched besides; the machine is used once it lets in."""
    lab.cloud.set(boot_seconds=8.0)
    lab.start()
    lab.apply(lab.swarm_of(replicas=2))
    lab.wait(lambda: lab.find("Swarm", "builders") and lab.running(), "a machine")
    lab.outlast(6.0)
    assert len(lab.cloud.instances()) == 1
    lab.ready(2)
    assert len(lab.cloud.instances()) == 1
    lab.cloud.set(boot_seconds=0.05)


def test_nfs_is_blocked_between_machines(lab: AwsLab) -> None:
    """The condition says what to do; what is on the coordinator works."""
    lab.cloud.block_nfs()
    lab.start()
    lab.apply(lab.swarm_of(replicas=3))

    def said() -> bool:
        return "2049" in str(lab.condition("Swarm", "builders", "Available").get("message"))

    lab.wait(said, "it to be said", SECONDS)
    assert lab.swarm("builders")["ready"] == "2/3"
    lab.apply(prompt("meanwhile", script('say: "still here"')))
    lab.wait_phase("Task", "meanwhile", "Succeeded")
    lab.cloud.block_nfs(on=False)
    lab.ready(3)
    assert len(lab.running()) == 2
