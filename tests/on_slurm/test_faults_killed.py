"""The controller is killed at its steps while its workers are on a cluster."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.clusters import Cluster
from tests.faults.life import life
from tests.on_slurm.lab import SlurmLab

SEED = 20261126
SAMPLES = 3


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_the_controller_is_killed_at_some_steps(lab: SlurmLab, steps: int, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start_crashing(1 + int((sample + chosen.random()) / SAMPLES * steps))
    life(lab)
    assert lab.live_jobs() == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_controller_is_killed_at_every_step(
    cluster: Cluster, steps: int, tmp_path: Path
) -> None:
    failed = {}
    for at in range(1, steps + 1):
        cluster.clear()
        with SlurmLab(tmp_path / str(at), cluster) as lab:
            log = lab.start_crashing(at)
            try:
                life(lab)
            except AssertionError as error:
                failed[log.read_text().splitlines()[-1]] = str(error)
    assert not failed


@pytest.fixture(scope="module")
def steps(shared_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many steps an undisturbed life has."""
    shared_cluster.clear()
    with SlurmLab(tmp_path_factory.mktemp("undisturbed"), shared_cluster) as lab:
        log = lab.start_crashing(0)
        life(lab)
        return len(log.read_text().splitlines())
