"""The controller is killed at its steps while its workers are on machines of EC2."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.cloud.machines import Cloud
from tests.faults.life import life
from tests.on_aws.lab import AwsLab
from tests.on_aws.slow import ended

POINTS = (
    "before Boto.run#1",
    "after Boto.run#1",
    "after Boto.create_volume#1",
    "after Boto.attach#1",
    "after RemoteHost.call#3",
    "before Nodes.start#1",
    "after Nodes.start#1",
)
ENDS = ("before Boto.terminate#1", "after Boto.terminate#1", "after Boto.delete_volume#1")
SEED = 20261126
SAMPLES = 1


@pytest.mark.parametrize(
    "honoured",
    [pytest.param(True, marks=pytest.mark.soak), False],
    ids=["tokens-honoured", "tokens-ignored"],
)
def test_killed_again_and_again_from_launch_to_end(lab: AwsLab, honoured: bool) -> None:
    """Exactly the declared machines are there afterwards, and in the end none."""
    lab.cloud.honour_tokens(honoured)
    first, *lab.crash_points = POINTS
    lab.start_crashing(first)
    lab.apply(lab.swarm_of(replicas=3))
    lab.ready(3)
    lab.crash_points = []
    lab.converge(lambda: len(lab.running()) == 2, "surplus machines to go")
    assert len(lab.cloud.volumes()) == 1
    assert {len(found) for found in lab.workers().values()} == {1}
    assert set(lab.workers()) == set(lab.jobs("builders"))
    lab.stop()
    first, *lab.crash_points = ENDS
    lab.start_crashing(first)
    ended(lab)
    assert not lab.crash_points, "it was killed each time"
    if honoured:
        assert len(lab.cloud.instances()) == 2, "none was launched besides"


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_the_controller_is_killed_at_some_steps(lab: AwsLab, steps: int, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start_crashing(1 + int((sample + chosen.random()) / SAMPLES * steps))
    life(lab)
    assert lab.cloud.leftovers() == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_the_controller_is_killed_at_every_step(cloud: Cloud, steps: int, tmp_path: Path) -> None:
    failed = {}
    for at in range(1, steps + 1):
        cloud.clear()
        with AwsLab(tmp_path / str(at), cloud) as lab:
            log = lab.start_crashing(at)
            try:
                life(lab)
                assert cloud.leftovers() == []
            except AssertionError as error:
                failed[log.read_text().splitlines()[-1]] = str(error)
    assert not failed


@pytest.fixture
def steps(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many steps an undisturbed life has."""
    if not _STEPS:
        with AwsLab(tmp_path_factory.mktemp("undisturbed"), cloud) as lab:
            log = lab.start_crashing(0)
            life(lab)
            _STEPS.append(len(log.read_text().splitlines()))
        cloud.clear()
    return _STEPS[0]


_STEPS: list[int] = []
