"""A rig for each test, and a loop in virtual time around it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.reconcile.loop import run
from tests.reconcile.rig import Rig

Scenario = Callable[[Rig], Coroutine[Any, Any, None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], Rig]:
    """Run a scenario with a running controller; no pass may have failed in it."""

    def played(scenario: Scenario) -> Rig:
        rig = Rig(tmp_path)

        async def main() -> None:
            rig.start()
            try:
                await scenario(rig)
            finally:
                await rig.crash()

        run(main())
        assert not rig.errors, rig.errors
        return rig

    return played
