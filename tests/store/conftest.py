"""A fresh state for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.store.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state lies; not made yet."""
    return tmp_path / "home" / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    """An empty state."""
    with Database(path) as opened:
        yield opened
