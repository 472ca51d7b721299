"""Noticing at once that a worker's process has ended, ours by birth or adopted.

Only a hint: who is told looks for itself, and where the system has no pidfd nothing is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress

from providers.base import Ended


class ExitWatch:
    """One descriptor for each live worker; the event loop waits on all of them at no cost."""

    def __init__(self) -> None:
        self._tell: Ended | None = None
        self._watched: dict[str, int] = {}

    def start(self, tell: Ended) -> None:
        """Begin to tell, in the event loop, which job's process ended."""
        self._tell = tell

    def watch(self, running: Iterable[tuple[str, int]]) -> None:
        """Watch these jobs' processes (proven to be theirs just now), each once."""
        if self._tell is None or not hasattr(os, "pidfd_open"):
            return
        for job, pid in running:
            if job in self._watched:
                continue
            with suppress(OSError):  # ended in between: the next look tells
                handle = os.pidfd_open(pid)
                self._watched[job] = handle
                asyncio.get_running_loop().add_reader(handle, self._on_exit, job)

    def _on_exit(self, job: str) -> None:
        self._drop(job)
        if self._tell is not None:
            self._tell(job)

    def _drop(self, job: str) -> None:
        handle = self._watched.pop(job)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)

    def close(self) -> None:
        """Stop watching."""
        self._tell = None
        for job in list(self._watched):
            self._drop(job)
