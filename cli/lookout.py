"""Is a controller still there, while somebody waits for what only it can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from controller.store.base import StoreError

if TYPE_CHECKING:
    from cli.client import Client

LOOK_SECONDS = 2.0
LOOKS = 2
"""So many looks in a row find none before it is told: a controller may be restarted."""


class Lookout:
    """Tells once when no controller runs any more, and when one runs again."""

    def __init__(self, client: Client, tell: Callable[[str], None]) -> None:
        self._client = client
        self._tell = tell
        self._next = 0.0
        self._missed = 0

    def look(self) -> None:
        """Ask, if it is time to; called as often as one likes."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        try:
            state = self._client.controller()
        except StoreError:
            return  # the verb itself will meet it
        if state.running:
            if self._missed >= LOOKS:
                self._tell(f"a controller runs again ({state.detail})")
            self._missed = 0
            return
        self._missed += 1
        if self._missed == LOOKS:
            self._tell(f"no controller runs: {state.remedy}")
