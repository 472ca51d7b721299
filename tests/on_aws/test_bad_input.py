"""What cannot work is a condition with AWS's own code that says what to do; nothing is paid for.

What the preflight alone says of each field: ``tests/aws/test_preflight.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from controller.store.base import Key
from tests.cli.conftest import Run
from tests.lab import prompt
from tests.on_aws.lab import AwsLab

REFUSED = {
    "image": ({"amiId": "ami-00000000"}, "ImageNotFound", "InvalidAMIID.NotFound", "amiId"),
    "subnet": ({"subnetId": "subnet-9"}, "SubnetNotFound", "InvalidSubnetID.NotFound", "subnetId"),
    "group": (
        {"securityGroupIds": ["sg-9"]},
        "SecurityGroupNotFound",
        "InvalidGroup.NotFound",
        "securityGroupIds",
    ),
    "pair": ({"keyName": "nobodys"}, "KeyPairNotFound", "InvalidKeyPair.NotFound", "keyName"),
    "type": (
        {"instanceType": "c9z.huge"},
        "InstanceTypeNotFound",
        "InvalidInstanceType",
        "instanceType",
    ),
    "profile": (
        {"iamInstanceProfile": "nobody"},
        "InstanceProfileNotFound",
        "NoSuchEntity",
        "iamInstanceProfile",
    ),
    "zone": (
        {"availabilityZone": "us-east-1b"},
        "ZoneNotFound",
        "InvalidParameterValue",
        "availabilityZone",
    ),
    "iops": (
        {"volume": {"sizeGib": 8, "iops": 16000}},
        "VolumeInvalid",
        "InvalidParameterValue",
        "volume",
    ),
    "key": ({"identityFile": "~/no-such.pem"}, "KeyUnusable", "no such file", "identityFile"),
}
"""By the swarm's name: what is wrong, the reason, AWS's code (or what is said), the field."""


def test_each_field_that_is_wrong_is_named_before_anything_is_launched(
    lab: AwsLab, run: Run
) -> None:
    lab.start()
    lab.apply(
        *(lab.swarm_of(name, aws=wrong) for name, (wrong, *_) in REFUSED.items()),
        lab.swarm_of("secret", aws={"tags": {"note": "AKIAIOSFODNN7EXAMPLE"}}),
        lab.swarm_of("nowhere", aws={"endpointUrl": "http://127.0.0.1:9"}),
        prompt("one", target={"swarm": "image"}),
    )
    for name, (_, reason, code, field) in REFUSED.items():
        said = lab.wait(lambda n=name, r=reason: said_of(lab, n, "Available", r), reason)
        assert said["status"] == "False"
        assert code in said["message"] and field in said["message"], said
    said = lab.wait(
        lambda: said_of(lab, "secret", "Accepted", "CredentialsInManifest"), "it to be refused"
    )
    assert "AKIA" not in said["message"]
    said = lab.wait(
        lambda: said_of(lab, "nowhere", "ProviderReachable", "AwsUnreachable"), "it to be said", 60
    )
    assert "endpointUrl" in said["message"]
    lab.wait(lambda: lab.task("one").get("blocker"), "the prompt to wait")
    assert "InvalidAMIID.NotFound" in run("explain", "task/one").output
    assert lab.cloud.counts().get("RunInstances", 0) == 0
    told = [event.count for event in lab.db.events(Key("Swarm", "default", "image"))]
    assert told == [1], "however often it is asked again"


def test_credentials_that_are_missing_and_then_over(lab: AwsLab) -> None:
    """Said as such, and nothing is concluded about machines; with good ones it goes on."""
    lab.start(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_SESSION_TOKEN="")
    lab.apply(lab.swarm_of(replicas=1))
    said = lab.wait(
        lambda: said_of(lab, "builders", "ProviderReachable", "CredentialsMissing"), "it"
    )
    assert "AWS" in said["message"] or "environment" in said["message"]
    lab.stop()
    lab.cloud.expire_credentials()
    lab.start()
    said = lab.wait(
        lambda: said_of(lab, "builders", "ProviderReachable", "CredentialsExpired"), "it", 30
    )
    assert "RequestExpired" in said["message"] and "renew" in said["message"]
    lab.cloud.mend()
    lab.cloud.expire_credentials(on=False)
    lab.ready(1, deadline=60)


def test_who_cannot_log_in_and_what_cannot_be_set_up_is_said(lab: AwsLab, run: Run) -> None:
    lab.start()
    failing = {"commands": ["echo before && echo why >&2 && exit 3"]}
    lab.apply(
        lab.swarm_of("user", replicas=1, aws={"sshUser": "ec2-user"}),
        lab.swarm_of("command", replicas=1, aws={"bootstrap": failing}),
    )
    said = lab.wait(lambda: said_of(lab, "user", "Available", "AuthenticationFailed"), "user", 60)
    assert "ec2-user" in said["message"] and "authorized_keys" in said["message"]
    said = lab.wait(lambda: said_of(lab, "command", "Available", "BootstrapFailed"), "command", 60)
    assert "bootstrap.commands[0]" in said["message"] and "exit status 3" in said["message"]
    log = run("logs", "swarm/command").output.splitlines()
    assert any(line.endswith("  why") for line in log), log
    for name in ("user", "command"):
        uid = lab.uid(name)
        lab.delete("Swarm", name)
        lab.gone(uid, name)


@pytest.fixture
def run(lab: AwsLab, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``codeswarm`` on the lab's home."""
    from click.testing import CliRunner

    from cli.main import cli

    monkeypatch.setenv("CODESWARM_HOME", str(lab.home.root))
    return lambda *words, input=None: CliRunner().invoke(cli, list(words), input=input)


def said_of(lab: AwsLab, swarm: str, type: str, reason: str) -> dict[str, Any]:
    """A condition of a swarm, once it has this reason."""
    found = lab.condition("Swarm", swarm, type)
    return found if found.get("reason") == reason else {}
