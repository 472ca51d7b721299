"""A test cloud, and the environment in which boto3 finds it."""

from __future__ import annotations

import pytest

from tests.aws_provider.harness import AwsHarness
from tests.cloud.machines import Cloud, cloud

__all__ = ["cloud"]


@pytest.fixture
def harness(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> AwsHarness:
    """What the conformance suite needs."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    return AwsHarness(cloud)
