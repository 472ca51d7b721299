"""Taking the exit status of orphans, which fall to the first process of a container.

Workers' commands daemonise and die; without a parent that waits for them they stay as zombies,
each with its pid.  Workers that this process started itself are left to whoever asks how they
ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection
from contextlib import suppress

import psutil

_LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
IDLE_SECONDS = 60.0
"""Between two looks where no signal said that a child ended."""


class Reaper:
    """Reaps zombies that are our children by adoption.

    Args:
        started: tells the pids of the children that this process started and will wait for.
        look_seconds: between two looks. Who is found dead twice is reaped: then it is no child
            that is just being taken note of, and whoever wants a dead worker's exit status had
            time to take it.
    """

    def __init__(
        self, started: Callable[[], Collection[int]], *, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._started = started
        self._look_seconds = look_seconds
        self._ended = asyncio.Event()
        self._found: set[int] = set()

    def child_ended(self) -> None:
        """SIGCHLD came."""
        self._ended.set()

    async def run(self) -> None:
        """Reap until cancelled."""
        while True:
            if not self._found:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), IDLE_SECONDS)
            self._ended.clear()
            dead = await asyncio.to_thread(_zombies)
            dead -= set(self._started())
            for pid in dead & self._found:
                _reap(pid)
            self._found = dead
            await asyncio.sleep(self._look_seconds)


def _zombies() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # somebody else took its status meanwhile
        if os.waitpid(pid, os.WNOHANG)[0]:
            _LOG.debug("reaped %d", pid)
