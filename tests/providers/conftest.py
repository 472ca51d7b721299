"""The local provider, where a file of tests has no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.test_conformance import STANDIN, LocalHarness


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[LocalHarness]:
    """This machine with the stand-in."""
    harness = LocalHarness(tmp_path.resolve() / "workspaces", STANDIN)
    yield harness
    harness.end()
