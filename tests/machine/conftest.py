"""One file of the worker for all, and a machine for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.machine import Machine
from worker.bundle import build


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("program"))


@pytest.fixture
def machine(tmp_path: Path, program: Path) -> Iterator[Machine]:
    one = Machine(tmp_path / "shared", program)
    yield one
    one.close()
