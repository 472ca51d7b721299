"""A project whose turn lasts until a gate is opened, for faults while it runs."""

from __future__ import annotations

from pathlib import Path

from tests.faults.support import check_turns, check_workers
from tests.lab import git, project, work
from tests.on_slurm.lab import SlurmLab

SECONDS = 60.0


def begun(lab: SlurmLab, name: str) -> None:
    """Wait until a task's turn runs."""
    lab.wait(lambda: lab.attempts(name)[-1:] and "turnStartedAt" in lab.attempts(name)[-1], name)


def gate(lab: SlurmLab) -> Path:
    """A file whose being there lets a turn end."""
    return lab.path / "gate"


def waits_for(path: Path) -> str:
    """A script's step that lasts until a file is there."""
    return f'run: "while [ ! -e {path} ]; do sleep 0.05; done"'


def slow_project(lab: SlurmLab, replicas: int = 1) -> Path:
    """A project of one task, whose turn has begun and lasts until the gate opens."""
    repository = lab.repository()
    lab.start()
    first = waits_for(gate(lab))
    lab.apply(lab.swarm_of(replicas=replicas), project(tasks=[work("a", first)]))
    begun(lab, "demo.a")
    return repository


def finished(lab: SlurmLab, repository: Path, classes: list[str | None]) -> None:
    """The project comes to its end, its task after attempts of these classes."""
    gate(lab).touch()
    lab.converge(lambda: lab.phase_of("Project", "demo") == "Completed", "the project", SECONDS)
    assert [attempt.get("class") for attempt in lab.attempts("demo.a")] == classes
    assert git("-C", str(repository), "show", "codeswarm/demo/integration:a.txt") == "a"
    check_turns(lab)
    check_workers(lab)
