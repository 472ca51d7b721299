"""One cluster for all tests of a process that may share it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import Slurm, running
from tests.sshd import Sshd


@pytest.fixture(scope="package")
def shared_slurm() -> Iterator[Slurm]:
    """A cluster of four nodes."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def slurm(shared_slurm: Slurm) -> Iterator[Slurm]:
    """The shared cluster, with all nodes idle and no job of an earlier test."""
    shared_slurm.clear()
    yield shared_slurm


@pytest.fixture(scope="package")
def slurm_login(shared_slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """The shared cluster's login host."""
    path = tmp_path_factory.mktemp("login")
    with Sshd(path, environment=shared_slurm.environment) as sshd:
        yield sshd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The shared file system."""
    path = tmp_path.resolve() / "shared it's"
    path.mkdir()
    return path
