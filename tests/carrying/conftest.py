"""A lab whose workers do not reach the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.carrying import elsewhere
from tests.carrying.trip import Trip
from tests.faults import crashing
from tests.faults.support import FaultLab
from tests.lab import work


class FarLab(FaultLab):
    """Its provider of this name has workers elsewhere."""

    kind = "local"

    def start(self, **variables: str):  # type: ignore[no-untyped-def]
        self.start_special(elsewhere, **{elsewhere.NAME: self.kind}, **variables)
        return self.controller

    def start_crashing(self, at: int | str) -> Path:
        steps = self.path / f"steps-{at}"
        self.start(**{crashing.AT: str(at), crashing.LOG: str(steps)})
        return steps

    @property
    def cluster(self) -> Path:
        """The folder of the stores over there."""
        return self.home.workspaces / "cluster"

    @property
    def cut(self) -> Path:
        """As long as this file is there nothing gets through."""
        self.cluster.mkdir(parents=True, exist_ok=True)
        return self.cluster / "cut"

    def mail(self) -> str:
        """Everything that workers were told."""
        home, inboxes = self.home.workspaces, "default/*/*/mailbox/inbox/*.jsonl"
        found = [*home.glob(inboxes), *home.glob(f"elsewhere/{inboxes}")]
        return "\n".join(path.read_text() for path in found)

    @property
    def gate(self) -> Path:
        """As long as this file is not there, tasks of ``waiting`` go on."""
        return self.path / "gate"

    def waiting(self, name: str) -> dict[str, Any]:
        """A task whose turn ends when the gate is opened."""
        return work(name, f'run: "until test -e {self.gate}; do sleep 0.05; done"')

    def wait_turn(self, task: str) -> None:
        """Wait until the agent is at a task."""

        def runs() -> bool:
            attempts = self.task(task).get("attempts") or [{}]
            return "turnStartedAt" in attempts[-1]

        self.wait(runs, f"the turn of {task}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FarLab]:
    """A home of its own; nothing of it lives on."""
    with FarLab(tmp_path) as made:
        yield made
    assert not made.processes()


@pytest.fixture
def trip(tmp_path: Path) -> Trip:
    """A way with nothing sent yet."""
    return Trip(tmp_path)
