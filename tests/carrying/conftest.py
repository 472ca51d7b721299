"""A lab whose workers do not reach the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.carrying import elsewhere
from tests.faults import crashing
from tests.faults.support import FaultLab


class FarLab(FaultLab):
    """Its provider of this name has workers elsewhere."""

    provider = "local"

    def start(self, **variables: str):  # type: ignore[no-untyped-def]
        self.start_special(elsewhere, **{elsewhere.NAME: self.provider}, **variables)
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
        found = self.home.workspaces.rglob("inbox/*.jsonl")
        return "\n".join(path.read_text() for path in found)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FarLab]:
    """A home of its own; nothing of it lives on."""
    with FarLab(tmp_path) as made:
        yield made
    assert not made.processes()
