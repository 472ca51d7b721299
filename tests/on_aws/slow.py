"""A project whose turn lasts until a gate on the shared volume is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.cloud.machines import ROOT
from tests.faults.support import check_turns, check_workers
from tests.lab import git, project, work
from tests.on_aws.lab import AwsLab

SECONDS = 60.0
_GATE = f"{ROOT}/gate"
WAITS = f'run: "while [ ! -e {_GATE} ]; do sleep 0.05; done"'
"""A script's step that lasts until the gate is open."""
STAYS = '{run: "sleep 300", attempt: 1}'
"""One that lasts for ever, but only in the first attempt."""


def begun(lab: AwsLab, name: str) -> None:
    """Wait until a task's turn runs."""
    lab.wait(
        lambda: lab.attempts(name)[-1:] and "turnStartedAt" in lab.attempts(name)[-1],
        f"{name} to begin", SECONDS,
    )  # fmt: skip


def open_gate(lab: AwsLab, swarm: str = "builders") -> None:
    """Let turns end."""
    lab.cloud.run(lab.coordinator(swarm), "touch", _GATE)


def slow_project(lab: AwsLab, replicas: int = 1, step: str = WAITS, **spec: Any) -> Path:
    """A project of one task, whose turn has begun; a worker more than one is there too."""
    repository = lab.repository()
    if lab._controller is None:
        lab.start()
    lab.apply(lab.swarm_of(replicas=replicas, **spec), project(tasks=[work("a", step)]))
    lab.ready(replicas)
    begun(lab, "demo.a")
    return repository


def job_of(lab: AwsLab) -> str:
    """The worker that has the project's task now."""
    return str(lab.attempts("demo.a")[-1]["job"])


def finished(lab: AwsLab, repository: Path, classes: list[str | None]) -> None:
    """The project comes to its end, its task after attempts of these classes."""
    lab.converge(lambda: lab.phase_of("Project", "demo") == "Completed", "the project", SECONDS)
    assert [attempt.get("class") for attempt in lab.attempts("demo.a")] == classes
    assert git("-C", str(repository), "show", "codeswarm/demo/integration:a.txt") == "a"
    check_turns(lab)
    check_workers(lab)


def ended(lab: AwsLab, swarm: str = "builders") -> None:
    """The swarm is deleted, and nothing of it is left."""
    uid = lab.uid(swarm)
    lab.delete("Swarm", swarm)
    lab.gone(uid, swarm)
