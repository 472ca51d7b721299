"""The controller is killed with SIGKILL: at every step, and at random."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.life import life
from tests.faults.support import (
    PRICED,
    USE,
    FaultLab,
    check_branches,
    check_turns,
    check_usage,
    check_workers,
)
from tests.lab import project, swarm, work

SAMPLES = 25
SEED = 20260714


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """How many steps an undisturbed life has."""
    with FaultLab(tmp_path_factory.mktemp("undisturbed")) as lab:
        log = lab.start_crashing(0)
        life(lab)
        yield len(log.read_text().splitlines())


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_at_some_steps(lab: FaultLab, steps: int, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start_crashing(1 + int((sample + chosen.random()) / SAMPLES * steps))
    life(lab)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_at_every_step(tmp_path: Path, steps: int) -> None:
    failed = {}
    for at in range(1, steps + 1):
        with FaultLab(tmp_path / str(at)) as lab:
            log = lab.start_crashing(at)
            try:
                life(lab)
            except AssertionError as error:
                failed[log.read_text().splitlines()[-1]] = str(error)
    assert not failed


@pytest.mark.parametrize(
    "every", [11, *(pytest.param(every, marks=pytest.mark.soak) for every in (13, 19, 29))]
)
@pytest.mark.timeout(600)
def test_after_every_few_steps(lab: FaultLab, every: int) -> None:
    """No controller lives longer than a few steps, and yet everything comes to its end."""
    lab.patience = 150.0  # dozens of controllers start, one after another
    lab.crash_at = every
    lab.start_crashing(every)
    life(lab)


@pytest.mark.parametrize(
    ("tasks", "kills"), [(100, 4), pytest.param(300, 80, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1800)
def test_at_random_in_a_large_project(lab: FaultLab, tasks: int, kills: int) -> None:
    repository = lab.repository()
    chosen = random.Random(SEED)
    names = [f"t{number}" for number in range(tasks)]
    pause = "sleep: 0.05" if kills < 10 else "sleep: 0.5"
    listed = [
        work(
            name,
            USE,
            pause,
            *(['{run: "exit 1", attempt: 1}'] if number % 17 == 5 else []),
            depends_on=chosen.sample(names[:number], min(number, 2)) if number % 3 == 0 else [],
        )
        for number, name in enumerate(names)
    ]
    lab.apply(swarm(replicas=4, agent=PRICED), project(tasks=listed))
    killed = 0
    while lab.phase_of("Project", "demo") != "Completed" and killed < 2 * kills:
        lab.start_crashing(0)
        time.sleep(chosen.uniform(0.0, 1.0))
        lab.kill()
        killed += 1
    assert killed >= kills
    lab.start()
    lab.wait_phase("Project", "demo", "Completed", deadline=1200)
    assert all(turn.complete for turn in check_turns(lab).values())
    for number, name in enumerate(names):
        expected = ["Task", None] if number % 17 == 5 else [None]
        assert [a.get("class") for a in lab.attempts(f"demo.{name}")] == expected
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", names)
