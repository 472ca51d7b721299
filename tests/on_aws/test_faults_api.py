"""EC2 refuses, forgets to answer, shows things late or is away, while swarms live there."""

from __future__ import annotations

import pytest

from tests.lab import prompt, script
from tests.on_aws.lab import AwsLab
from tests.on_aws.slow import SECONDS, ended, finished, job_of, open_gate, slow_project


def test_requests_are_throttled_and_everything_is_shown_late(lab: AwsLab) -> None:
    cloud = lab.cloud
    cloud.hide_new(1.5)
    cloud.hide_tags(1.0)
    for action in ("RunInstances", "CreateVolume", "AttachVolume", "CreateTags"):
        cloud.throttle(action)
    cloud.throttle("DescribeInstances", 3)
    cloud.throttle("DescribeVolumes", 3)
    lab.start()
    lab.apply(lab.swarm_of(replicas=3))
    lab.ready(3)
    assert len(lab.running()) == 2
    assert len(cloud.volumes()) == 1
    for action in ("TerminateInstances", "DeleteVolume", "DescribeInstances"):
        cloud.throttle(action, 2)
    ended(lab)
    assert len(cloud.instances()) == 2, "none was launched besides"


@pytest.mark.parametrize(
    "honoured",
    [pytest.param(True, marks=pytest.mark.soak), False],
    ids=["tokens-honoured", "tokens-ignored"],
)
def test_answers_are_lost(lab: AwsLab, honoured: bool) -> None:
    cloud = lab.cloud
    cloud.honour_tokens(honoured)
    changes = ("RunInstances", "CreateVolume", "AttachVolume", "CreateTags")
    for action in changes:
        cloud.lose_answer(action)
    lab.start()
    lab.apply(lab.swarm_of(replicas=3))
    lab.ready(3)
    lab.wait(lambda: len(lab.running()) == 2, "what was launched twice to end")
    lab.wait(lambda: len(cloud.volumes()) == 1, "what was created twice to go")
    assert len(lab.workers()) == 3
    for action in ("TerminateInstances", "DeleteVolume"):
        cloud.lose_answer(action)
    ended(lab)
    if honoured:
        assert len(cloud.instances()) == 2, "a lost answer costs nothing"


def test_there_are_no_machines_then_some_then_enough(lab: AwsLab) -> None:
    """What cannot be launched is said; who runs already does not suffer."""
    cloud = lab.cloud
    lab.start()
    lab.apply(lab.swarm_of("happy", replicas=1))
    lab.ready(1, "happy")
    cloud.capacity(0)
    lab.apply(lab.swarm_of(replicas=4))

    def said() -> bool:
        told = lab.condition("Swarm", "builders", "Available")
        return told.get("reason") == "InsufficientInstanceCapacity"

    lab.wait(said, "it to be said")
    text = lab.condition("Swarm", "builders", "Available")["message"]
    assert "spec.provider.aws.instanceType" in text, "what to do about it"
    lab.apply(prompt("meanwhile", script('say: "still here"'), swarm="happy"))
    lab.wait_phase("Task", "meanwhile", "Succeeded")
    cloud.capacity(1)
    lab.wait(lambda: lab.swarm("builders").get("ready") == "2/4", "some", SECONDS)
    lab.wait(said, "it to be said that some are missing", SECONDS)
    cloud.capacity(-1)
    lab.ready(4)
    lab.wait(lambda: "progress" not in lab.swarm("builders"), "nothing to be under way")
    assert len(lab.running()) == 2
    assert len(lab.running("happy")) == 1
    told = [e for e in lab.db.events() if e.reason == "InsufficientInstanceCapacity"]
    assert sum(e.count for e in told) <= 4, "told when it changes, not whenever it is tried"
    ended(lab)


@pytest.mark.parametrize("fault", ["expired", pytest.param("down", marks=pytest.mark.soak)])
def test_ec2_does_not_answer_while_a_turn_runs(lab: AwsLab, fault: str) -> None:
    """Nothing is concluded; turns begin, go on and end over the machines' own connections."""
    repository = slow_project(lab, replicas=3)
    jobs = set(lab.jobs("builders"))
    if fault == "expired":
        lab.cloud.expire_credentials()
    else:
        lab.cloud.down()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "False",
        "it to be said", SECONDS,
    )  # fmt: skip
    lab.apply(prompt("meanwhile", script('say: "still here"')))
    lab.wait_phase("Task", "meanwhile", "Succeeded", deadline=SECONDS)
    assert [a["state"] for a in lab.attempts("demo.a")] == ["Running"]
    if fault == "expired":
        lab.cloud.expire_credentials(on=False)
    else:
        lab.cloud.up()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "ProviderReachable").get("status") == "True",
        "contact", SECONDS,
    )  # fmt: skip
    open_gate(lab)
    finished(lab, repository, [None])
    assert set(lab.jobs("builders")) == jobs
    assert job_of(lab) in jobs
    assert len(lab.cloud.instances()) == 2
