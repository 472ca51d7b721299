"""Looking for a notice again and again, beside everything else: what is asked may hang."""

from __future__ import annotations

import threading
from collections.abc import Callable

SECONDS = 5.0
"""Between two looks; what EC2 asks for (User Guide, "Spot Instance interruption notices")."""


class Watch(threading.Thread):
    """Looks until there is a notice, then tells it once.

    Args:
        look: gives the notice, or None while there is none.
        tell: called in this thread with what the notice says.
        seconds: between two looks.
    """

    def __init__(
        self,
        look: Callable[[], str | None],
        tell: Callable[[str], None],
        seconds: float = SECONDS,
    ) -> None:
        super().__init__(daemon=True)
        self._look = look
        self._tell = tell
        self._seconds = seconds
        self._done = threading.Event()

    def run(self) -> None:
        """Look until there is a notice."""
        while not self._done.is_set():
            notice = self._look()
            if notice is not None:
                self._tell(notice)
                return
            self._done.wait(self._seconds)

    def end(self) -> None:
        """Look no more."""
        self._done.set()
