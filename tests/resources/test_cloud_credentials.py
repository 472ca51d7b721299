"""A credential in a manifest is found wherever it stands, and never shown."""

from __future__ import annotations

import pytest

from controller.resources.cloud_credentials import credentials_in

KEY = "AKIA" + "IOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("block", "path"),
    [
        ({"tags": {"key": KEY}}, "aws.tags.key"),
        ({"tags": {KEY: "x"}}, "aws.tags"),
        ({"tags": {"owner": SECRET}}, "aws.tags.owner"),
        ({"tags": {"aws_secret_access_key": "x"}}, "aws.tags.aws_secret_access_key"),
        ({"tags": {"AWS-Session-Token": "x"}}, "aws.tags.AWS-Session-Token"),
        (
            {"bootstrap": {"commands": ["true", f"export AWS_SECRET_ACCESS_KEY={SECRET}"]}},
            "aws.bootstrap.commands[1]",
        ),
        (
            {"bootstrap": {"commands": [f"aws configure set aws_secret_access_key '{SECRET}'"]}},
            "aws.bootstrap.commands[0]",
        ),
        (
            {"bootstrap": {"commands": ["AWS_SESSION_TOKEN=IQoJb3JpZ2luX2VjEHoaCX x"]}},
            "aws.bootstrap.commands[0]",
        ),
        (
            {"bootstrap": {"commands": ["cat <<E\n-----BEGIN OPENSSH PRIVATE KEY-----\nE"]}},
            "aws.bootstrap.commands[0]",
        ),
        ({"bootstrap": {"packages": [f"https://x/?X-Amz-Signature={'a' * 9}"]}},
         "aws.bootstrap.packages[0]"),
        ({"endpointUrl": "https://user:word@ec2.example.org"}, "aws.endpointUrl"),
        ({"iamInstanceProfile": "ASIA" + "IOSFODNN7EXAMPLE"}, "aws.iamInstanceProfile"),
    ],
)  # fmt: skip
def test_credentials(block: dict, path: str) -> None:
    found = credentials_in(block, "aws")
    assert found == [path]
    assert KEY not in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "block",
    [
        {
            "amiId": "ami-12c6146b",
            "securityGroupIds": ["sg-1"],
            "endpointUrl": "http://127.0.0.1:5",
        },
        {"bootstrap": {"commands": ["git checkout 9f8e7d6c5b4a39281706f5e4d3c2b1a098765432"]}},
        {"bootstrap": {"commands": ['test -n "$AWS_SECRET_ACCESS_KEY" || echo none']}},
        {"tags": {"commit": "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432", "aws_session_token": ""}},
        {"sshKeyFrom": {"secretKeyRef": {"name": "aws", "key": "private"}}},
        {"knownHosts": "host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPOYHf1SEJaSVgNtp4htZRgg2shf"},
        {"iamInstanceProfile": "arn:aws:iam::123456789012:instance-profile/codeswarm-worker"},
        {"volume": {"sizeGib": 8}},
    ],
)
def test_what_is_none(block: dict) -> None:
    assert credentials_in(block, "aws") == []
