"""A lab for each test; every test here is an end-to-end test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.support import FaultLab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FaultLab]:
    """A home of its own; nothing of it lives on."""
    with FaultLab(tmp_path) as made:
        yield made
    assert not made.processes()
