"""How swarms end while something is wrong: nothing that costs is left, nothing is lost unsaid."""

from __future__ import annotations

import tarfile

from tests.cloud.machines import ROOT
from tests.lab import prompt, script
from tests.on_aws.lab import AwsLab
from tests.on_aws.slow import SECONDS, ended, slow_project

KEPT = {"volume": {"sizeGib": 8, "deleteOnTermination": False}}


def test_everything_comes_home_in_one_archive(lab: AwsLab) -> None:
    lab.start()
    lab.apply(
        lab.swarm_of(replicas=3, termination={"archive": True, "gracePeriodSeconds": 10}),
        prompt("one", script('say: "hello"')),
    )
    lab.wait_phase("Task", "one", "Succeeded", deadline=SECONDS)
    lab.ready(3)
    jobs = set(lab.jobs("builders"))
    ended(lab)
    (archive,) = lab.home.archives.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert len(jobs) == 3
    assert all(any(f"{job}/mailbox/outbox" in name for name in names) for job in jobs)


def test_an_archive_that_fails_costs_a_volume_and_no_machine(lab: AwsLab) -> None:
    """The machines stay until the grace is over; then they go, and what was not saved is kept."""
    lab.start()
    lab.apply(lab.swarm_of(replicas=3, termination={"archive": True, "gracePeriodSeconds": 8}))
    lab.ready(3)
    lab.home.archives.mkdir(parents=True, exist_ok=True)
    lab.home.archives.rename(lab.path / "archives-away")
    lab.home.archives.write_text("no folder")
    uid, machines = lab.uid(), lab.running()
    lab.delete("Swarm", "builders")
    lab.wait(lambda: "the machines stay until" in str(lab.condition("Swarm", "builders", "Ready")),
             "it to be said", SECONDS)  # fmt: skip
    assert lab.running() == machines
    lab.converge(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    (volume,) = lab.cloud.leftovers(uid)
    assert lab.cloud.volumes()[volume]["tags"]["codeswarm.dev/kept"] == "true"
    told = [e.message for e in lab.db.events() if e.reason == "ArchiveFailed"]
    assert told


def test_the_volume_stays_if_the_manifest_says_so(lab: AwsLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(replicas=1, aws=KEPT))
    lab.ready(1)
    uid, (volume,) = lab.uid(), lab.cloud.volumes()
    lab.delete("Swarm", "builders")
    lab.converge(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")
    assert lab.cloud.leftovers(uid) == [volume]
    tags = lab.cloud.volumes()[volume]["tags"]
    assert tags["codeswarm.dev/kept"] == "true"
    assert tags["codeswarm.dev/in-use"] == "false"


def test_deleted_while_its_machines_are_launched(lab: AwsLab) -> None:
    """Also machines that EC2 does not show yet are ended."""
    lab.cloud.hide_new(2.0)
    lab.cloud.slow("RunInstances", 1.0, 1)
    lab.start(CODESWARM_TEST_SETTLE="5")
    lab.apply(lab.swarm_of(replicas=4))
    lab.wait(lambda: lab.cloud.requests("RunInstances"), "the launch", SECONDS)
    uid = lab.uid()
    lab.delete("Swarm", "builders")
    lab.gone(uid)
    lab.outlast(3.0)
    assert lab.cloud.leftovers(uid) == [], "nothing turns up afterwards"


def test_deleted_by_force_without_contact_to_the_machines(lab: AwsLab) -> None:
    slow_project(lab, replicas=3)
    uid = lab.uid()
    for machine in lab.running():
        lab.cloud.freeze(machine)
    lab.patch(
        "Swarm", "builders",
        lambda o: o["metadata"]["annotations"].update({"codeswarm.dev/force": "true"}),
    )  # fmt: skip
    lab.delete("Swarm", "builders")
    lab.gone(uid, deadline=20)
    lab.delete("Project", "demo")
    lab.converge(lambda: lab.is_gone("Project", "demo"), "the project to go")


def test_deleted_after_its_coordinator_went(lab: AwsLab) -> None:
    """What is on the volume is read, by way of another machine, before that goes too."""
    lab.start()
    lab.apply(lab.swarm_of(replicas=1, termination={"archive": True, "gracePeriodSeconds": 10}))
    lab.ready(1)
    (job,) = lab.jobs("builders")
    lab.kill()
    lab.cloud.kill(lab.coordinator())
    lab.delete("Swarm", "builders")
    uid = lab.uid()
    lab.start()
    lab.gone(uid)
    (archive,) = lab.home.archives.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        assert any(f"{job}/mailbox/outbox" in name for name in packed.getnames())


def test_no_replicas_then_some_again(lab: AwsLab) -> None:
    """Idle machines go, the volume and what is on it stay."""
    lab.start(CODESWARM_TEST_IDLE="3")
    lab.apply(lab.swarm_of(replicas=3))
    lab.ready(3)
    lab.cloud.run(lab.coordinator(), "touch", f"{ROOT}/still-there")
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=0))
    lab.wait(lambda: not lab.running(), "the machines to go", SECONDS)
    (volume,) = lab.cloud.volumes()
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=2))
    lab.ready(2)
    assert list(lab.cloud.volumes()) == [volume]
    assert lab.cloud.file(lab.coordinator(), f"{ROOT}/still-there").exists()
    ended(lab)


def test_scaled_up_and_down_while_machines_come(lab: AwsLab) -> None:
    lab.cloud.set(boot_seconds=2.0)
    lab.start()
    lab.apply(lab.swarm_of(replicas=6))
    lab.wait(lambda: lab.find("Swarm", "builders") and lab.running(), "machines", SECONDS)
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=2))
    lab.outlast(1.0)
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(replicas=4))
    lab.ready(4)
    lab.wait(lambda: len(lab.running()) == 2, "the others to go", SECONDS)
    lab.cloud.set(boot_seconds=0.05)
    ended(lab)


def test_how_machines_were_set_up_can_be_read(lab: AwsLab) -> None:
    """Also of one whose set-up fails; the condition names the command."""
    lab.start()
    bad = {"bootstrap": {"commands": ["echo first-word", "echo last-word; exit 3"]}}
    lab.apply(lab.swarm_of(replicas=1, aws=bad))

    def said() -> bool:
        told = lab.condition("Swarm", "builders", "Available")
        return told.get("reason") == "BootstrapFailed" and "exit status 3" in told["message"]

    lab.wait(said, "it to be said", SECONDS)
    kept = "".join(path.read_text() for path in lab.home.transcripts.rglob("i-*.jsonl"))
    assert "first-word" in kept
    assert "last-word" in kept
    ended(lab)
