"""One cluster for all tests of a process; a home of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters import Cluster, running
from tests.on_slurm.lab import SlurmLab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder."""
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="package")
def shared_cluster() -> Iterator[Cluster]:
    """A login host in front of four nodes."""
    with running() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The shared one, with nothing left of an earlier test."""
    shared_cluster.clear()
    return shared_cluster


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path) -> Iterator[SlurmLab]:
    """A home of its own; nothing of it lives on."""
    with SlurmLab(tmp_path, cluster) as made:
        yield made
