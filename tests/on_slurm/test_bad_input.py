"""What cannot work is a condition that says why and what to do; no job waits without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import prompt
from tests.on_slurm.lab import SlurmLab
from tests.sshd import Sshd, free_port

SLURM = {"sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "srun", "salloc"}
Change = Callable[[SlurmLab], dict[str, Any]]


def rekeyed(lab: SlurmLab) -> dict[str, Any]:
    """The host has another key than the one that is known."""
    lab.cluster.login.rekey()
    return {}


def another_key(lab: SlurmLab) -> dict[str, Any]:
    """A key that the host does not let in."""
    return {"identityFile": str(lab.cluster.login.make_key("stranger"))}


def no_known_hosts(lab: SlurmLab) -> dict[str, Any]:
    """A host that nobody has ever met."""
    empty = lab.path / "known_hosts"
    empty.touch()
    return {"knownHostsFile": str(empty)}


def nobody_there(lab: SlurmLab) -> dict[str, Any]:
    """A port that nobody listens on."""
    return {"port": free_port()}


def unwritable(lab: SlurmLab) -> dict[str, Any]:
    """A workspace that lies where nothing can be made, not even by root."""
    return {"workspaceRoot": "/proc/codeswarm"}


def unreachable(problem: str, **parameters: Any) -> Any:
    """A case of ``ProviderReachable``."""
    return pytest.param(lambda lab: parameters, problem, id=problem)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        unreachable("HostNotFound", loginHost="no-such-host.invalid"),
        pytest.param(
            lambda lab: {"port": free_port()}, "ConnectionRefused", id="ConnectionRefused"
        ),
        pytest.param(no_known_hosts, "HostKeyUnknown", id="HostKeyUnknown"),
        pytest.param(rekeyed, "HostKeyChanged", id="HostKeyChanged"),
        pytest.param(another_key, "AuthenticationFailed", id="AuthenticationFailed"),
        unreachable("KeyUnusable", identityFile="/nowhere/id_ed25519"),
        pytest.param(unwritable, "WorkspaceNotWritable", id="WorkspaceNotWritable"),
    ],
)
def test_a_login_host_that_cannot_be_used(lab: SlurmLab, change: Change, reason: str) -> None:
    try:
        lab.start()
        lab.apply(lab.swarm_of(slurm=change(lab)))
        said = lab.wait(lambda: said_of(lab, "ProviderReachable", reason), reason)
        assert said["status"] == "False"
        assert len(said["message"]) > 40, "it says what to do"
        assert lab.live_jobs() == []
    finally:
        if reason == "HostKeyChanged":
            lab.cluster.login.remember()


def test_a_prompt_says_that_its_swarm_cannot_be_reached(lab: SlurmLab) -> None:
    lab.start()
    lab.apply(lab.swarm_of(slurm=nobody_there(lab)), prompt("p"))
    lab.wait(lambda: "ConnectionRefused" in str(lab.task("p").get("blocker")), "it to be said")
    assert lab.task("p")["blocker"]["on"] == {"kind": "Swarm", "name": "builders"}


@pytest.mark.parametrize(
    ("parameters", "reason", "says"),
    [
        ({"partition": "no-such"}, "PartitionNotFound", "main"),
        ({"partition": "short", "timeLimit": "12:00:00"}, "TimeLimitTooLong", "10 minutes"),
        ({"partition": "short", "sbatchOptions": ["-c8"]}, "PartitionTooSmall", "holds 1 worker"),
        ({"sbatchOptions": ["--wrap=ls"]}, "SbatchOptionRefused", "setupCommands"),
        ({"sbatchOptions": ["--no-such-option"]}, "SubmissionRefused", "no-such-option"),
    ],
)
def test_what_slurm_refuses(
    lab: SlurmLab, parameters: dict[str, Any], reason: str, says: str
) -> None:
    lab.start()
    lab.apply(lab.swarm_of(slurm=parameters))
    said = lab.wait(lambda: said_of(lab, "Available", reason), reason)
    assert said["status"] == "False"
    assert says in said["message"]


def test_more_workers_than_the_partition_can_ever_hold(lab: SlurmLab) -> None:
    """Those that fit run; that the others never will is said at once."""
    lab.start()
    lab.apply(lab.swarm_of(replicas=5, slurm={"sbatchOptions": ["--exclusive"]}))
    said = lab.wait(lambda: said_of(lab, "Available", "PartitionTooSmall"), "it to be said", 60)
    assert "4" in said["message"] and "5" in said["message"]
    lab.wait(lambda: lab.swarm("builders").get("readyReplicas") == 4, "the four that fit")


def test_a_partition_that_is_down(lab: SlurmLab) -> None:
    """Said while it lasts; the swarm starts by itself when it is up again."""
    lab.cluster.slurm.set_partition("main", "DOWN")
    lab.start()
    lab.apply(lab.swarm_of(replicas=1))
    lab.wait(lambda: said_of(lab, "Available", "PartitionDown"), "it to be said")
    lab.cluster.slurm.set_partition("main", "UP")
    lab.wait_phase("Swarm", "builders", "Running", deadline=90)


@pytest.fixture
def no_slurm(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A login host whose logins find every program but Slurm's."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in SLURM:
            (programs / program.name).symlink_to(program)
    with Sshd(tmp_path / "plain") as login:
        (login.home / ".bash_profile").write_text(f"PATH={programs}\n")
        yield login.parameters()


def test_a_host_without_slurm(lab: SlurmLab, no_slurm: dict[str, Any]) -> None:
    lab.start()
    lab.apply(lab.swarm_of(slurm=no_slurm))
    said = lab.wait(lambda: said_of(lab, "ProviderReachable", "SlurmNotFound"), "it to be said")
    assert "Slurm's commands" in said["message"]


def said_of(lab: SlurmLab, type: str, reason: str) -> dict[str, Any]:
    """A condition of the swarm, once it has this reason."""
    found = lab.condition("Swarm", "builders", type)
    return found if found.get("reason") == reason else {}
