"""Orders to leave that come as signals, noted from the first moment of the process on.

``SIGUSR1`` says that the node's time is almost up: a batch system sends it some time before it
ends the job, and who watches over the worker of a machine that is to be taken away says so in
``notice`` first.  ``SIGTERM`` and ``SIGINT`` say: leave now.  How soon they are followed by SIGKILL
is the sender's affair, so the running turn gets only so many seconds to save its work.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from worker import notes

NOTICE = "notice"
"""A file in the worker's folder: the reason that goes with a ``SIGUSR1``."""


@dataclass(frozen=True)
class Notice:
    """One order to leave."""

    reason: str
    """Goes into ``turn_complete`` and ``thread_status``."""
    seconds: float
    """How long the turn may take to save its work and end."""


TIME_LIMIT = Notice("TimeLimit", 20.0)
SPOT_INTERRUPTION = Notice("SpotInterruption", 20.0)
"""The machine, which was let cheaply, is wanted back: two minutes before it is taken (EC2)."""
STOPPED = Notice("Stopped", 8.0)
REASONS = frozenset({one.reason for one in (TIME_LIMIT, SPOT_INTERRUPTION, STOPPED)})
"""A turn that ends for one of these has done nothing wrong: its work is kept."""

_NOTICES = {
    signal.SIGUSR1: TIME_LIMIT,
    signal.SIGTERM: STOPPED,
    signal.SIGINT: STOPPED,
}


class Signals:
    """Takes over the process's signals; make it in the main thread, before anything else."""

    def __init__(self) -> None:
        self._came: list[Notice] = []
        for number in _NOTICES:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOTICES)  # who started us may have held it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def take(self) -> list[Notice]:
        """What came since the last call, in order."""
        came, self._came = self._came, []
        return came

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(_NOTICES[signal.Signals(number)])


def explained(notice: Notice, base: Path) -> Notice:
    """A notice with the reason that stands in the worker's folder, where one is known there."""
    if notice is TIME_LIMIT and (notes.read(base / NOTICE) or "").strip() == (
        SPOT_INTERRUPTION.reason
    ):
        return SPOT_INTERRUPTION
    return notice
