"""The controller of a cluster is killed with SIGKILL: between intent and effect, and at random."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.faulty import KubeFaultLab
from tests.faults.life import life
from tests.faults.support import USE, check_branches, check_turns, check_usage, check_workers
from tests.kube import Cluster
from tests.lab import swarm, work

SEED = 20260801

POINTS = {
    "beginning": (
        "before LocalProvider.launch#1",
        "after KubeStore.create#1",
        "before LocalProvider.deliver#1",
    ),
    "middle": (
        "after LocalProvider.launch#1",
        "after LocalProvider.deliver#2",
        "before KubeStore.update_status#9",
    ),
    "end": (
        "after Repositories.ensure_base#1",
        "after LocalProvider.archive#1",
        "after Repositories.delete#1",
    ),
}
"""Where one controller after another dies within one life."""


@pytest.mark.parametrize("part", POINTS)
def test_at_chosen_steps(faulty: KubeFaultLab, part: str) -> None:
    first, *faulty.crash_points = POINTS[part]
    faulty.start_crashing(first)
    life(faulty)
    for point in POINTS[part]:
        steps = (faulty.path / f"steps {point}").read_text().splitlines()
        assert steps[-1].partition(" ")[2] == point
    faulty.check_log()


@pytest.fixture(scope="module")
def steps(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """How many steps an undisturbed life has."""
    path = tmp_path_factory.mktemp("undisturbed")
    with server.namespace() as namespace, KubeFaultLab(server, namespace, path) as lab:
        log = lab.start_crashing(0)
        life(lab)
        yield len(log.read_text().splitlines())


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_at_every_step(server: Cluster, tmp_path: Path, steps: int) -> None:
    failed = {}
    for at in range(1, steps + 1):
        path = tmp_path / str(at)
        path.mkdir()
        with server.namespace() as namespace, KubeFaultLab(server, namespace, path) as lab:
            log = lab.start_crashing(at)
            try:
                life(lab)
                lab.check_log()
            except AssertionError as error:
                failed[log.read_text().splitlines()[-1]] = str(error)
    assert not failed


@pytest.mark.soak
@pytest.mark.parametrize("every", [11, 17, 29])
@pytest.mark.timeout(1800)
def test_after_every_few_steps(faulty: KubeFaultLab, every: int) -> None:
    """No controller lives longer than a few steps, and yet everything comes to its end."""
    faulty.crash_at = every
    faulty.start_crashing(every)
    life(faulty)
    faulty.check_log()


@pytest.mark.parametrize(
    ("tasks", "kills"), [(60, 4), pytest.param(300, 60, marks=pytest.mark.soak)]
)
@pytest.mark.timeout(1800)
def test_at_random_in_a_large_project(faulty: KubeFaultLab, tasks: int, kills: int) -> None:
    chosen = random.Random(SEED)
    repository = faulty.repository()
    names = [f"t{number}" for number in range(tasks)]
    listed = [
        work(
            name,
            USE,
            "sleep: 0.1" if kills < 10 else "sleep: 0.5",
            *(['{run: "exit 1", attempt: 1}'] if number % 17 == 5 else []),
            depends_on=chosen.sample(names[:number], min(number, 2)) if number % 3 == 0 else [],
        )
        for number, name in enumerate(names)
    ]
    faulty.apply(swarm(replicas=4), faulty.project(repository, tasks=listed))
    killed = 0
    while faulty.phase_of("Project", "demo") != "Completed" and killed < 2 * kills:
        faulty.start()
        time.sleep(chosen.uniform(0.0, 2.0))
        faulty.kill()
        killed += 1
    assert killed >= kills
    faulty.converge(
        lambda: faulty.phase_of("Project", "demo") == "Completed", "the project", 60 + 2 * tasks
    )
    assert all(turn.complete for turn in check_turns(faulty).values())
    for number, name in enumerate(names):
        expected = ["Task", None] if number % 17 == 5 else [None]
        assert [a.get("class") for a in faulty.attempts(f"demo.{name}")] == expected
    check_usage(faulty, "demo")
    check_workers(faulty)
    check_branches(faulty, repository, "demo", names)
    faulty.check_log()
