"""Which endpoints and instance profiles a manifest may name."""

from __future__ import annotations

import pytest

from controller.resources.cloud_limits import refusal
from controller.resources.settings import AwsSettings, SettingsError, parse_settings

ENDPOINT = {"endpointUrl": "https://ec2.example.org/"}
PROFILE = {"iamInstanceProfile": "worker"}


@pytest.mark.parametrize(
    ("block", "allowed", "trusted", "reason"),
    [
        ({}, AwsSettings(), False, None),
        (ENDPOINT, AwsSettings(), True, None),
        (ENDPOINT, AwsSettings(), False, "EndpointNotAllowed"),
        (ENDPOINT, AwsSettings(endpoints=()), True, "EndpointNotAllowed"),
        (ENDPOINT, AwsSettings(endpoints=("https://ec2.example.org",)), False, None),
        (ENDPOINT, AwsSettings(endpoints=("https://ec2.example.or",)), False, "EndpointNotAllowed"),
        (PROFILE, AwsSettings(), False, None),
        (PROFILE, AwsSettings(instance_profiles=("worker",)), False, None),
        (PROFILE, AwsSettings(instance_profiles=()), True, "InstanceProfileNotAllowed"),
    ],
)
def test_what_is_refused(
    block: dict[str, str], allowed: AwsSettings, trusted: bool, reason: str | None
) -> None:
    found = refusal(block, allowed, trusted=trusted)
    assert (found and found[0]) == reason
    if found:
        assert next(iter(block)) in found[1]


def test_the_settings_are_read() -> None:
    text = "aws: {endpoints: ['https://x'], instanceProfiles: [], removeLeftovers: true}"
    assert parse_settings(text, "x").aws == AwsSettings(("https://x",), (), True)
    assert parse_settings("http: {}", "x").aws == AwsSettings()
    with pytest.raises(SettingsError, match=r"aws.endpoints\[0\]"):
        parse_settings("aws: {endpoints: ['https://user@x']}", "x")
