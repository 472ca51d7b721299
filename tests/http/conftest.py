"""The reconcilers' rig, and a lab for tests with a real controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.reconcile.conftest import play

__all__ = ["lab", "play"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A home of its own; nothing of it lives on."""
    with Lab(tmp_path) as made:
        yield made
    assert not made.processes()
