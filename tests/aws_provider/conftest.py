"""One cloud for all tests of a process that may share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws_provider.harness import AwsHarness
from tests.cloud.machines import Cloud


@pytest.fixture(scope="package")
def shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud whose machines boot at once."""
    with pytest.MonkeyPatch.context() as patch, Cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        for name, value in cloud.environment().items():
            patch.setenv(name, value)
        yield cloud


@pytest.fixture
def cloud(shared_cloud: Cloud) -> Iterator[Cloud]:
    """The shared cloud, without faults; what a test leaves there is ended."""
    shared_cloud.mend()
    yield shared_cloud
    shared_cloud.mend()
    shared_cloud.clear()


@pytest.fixture
def harness(cloud: Cloud) -> AwsHarness:
    """What the conformance suite needs."""
    return AwsHarness(cloud)
