"""One cloud for all tests of a process; a home of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.machines import Cloud, cloud
from tests.on_aws.lab import AwsLab

__all__ = ["cloud"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def lab(cloud: Cloud, tmp_path: Path) -> Iterator[AwsLab]:
    """A home of its own; nothing of it lives on."""
    with AwsLab(tmp_path, cloud) as made:
        yield made
