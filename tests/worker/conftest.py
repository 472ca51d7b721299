"""Fixtures: workers that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.harness import Repository, Worker


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Makes workers (not started yet) in folders of their own."""
    made: list[Worker] = []

    def make(name: str = "w0", **config: Any) -> Worker:
        made.append(Worker(tmp_path / name, **config))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    """A running worker."""
    return make_worker().start()


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    """A bare repository with one commit on main."""
    return Repository(tmp_path / "remote.git")
