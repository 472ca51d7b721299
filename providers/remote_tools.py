"""The agents' own tools on a login host's shared file system: found on the path, or installed.

A first installation takes minutes.  A launch does not wait for it: it is told so, and tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import InProgress, ProviderError, ProviderUnreachable
from providers.remote import RemoteHost

INSTALL_SECONDS = 900.0
"""For the first installation; whoever comes meanwhile waits for it."""
WAIT_SECONDS = 5.0
"""How long somebody who wants tools waits for them."""
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 600.0
"""After an installation that failed; the pause doubles."""
_GRACE = 15.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What was installed; nothing, if a workspace uses what its hosts have."""

    path: tuple[str, ...] = ()
    """Folders that come first on a worker's PATH."""
    python: str = ""
    """The Python that has Claude Code's package: a worker of that runtime must be run by it."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ProviderError
    until: float
    pause: float


class ToolsThere:
    """The tools of one workspace.

    Args:
        host: whose workspace it is.
    """

    def __init__(self, host: RemoteHost) -> None:
        self._host = host
        self._running: dict[tuple[tuple[str, str], ...], asyncio.Task[Tools]] = {}
        self._failures: dict[tuple[tuple[str, str], ...], _Failure] = {}

    async def have(self, parameters: Mapping[str, Any]) -> Tools:
        """Have the tools that a provider block asks for; safe to repeat, and quick then.

        Args:
            parameters: with ``tools: {install, nodeVersion, codexVersion, claudePackage}``.

        Raises: InProgress (``ToolsInstalling``); ProviderError (``ToolsFailed``; ``LockHeld``:
            somebody else has been installing them all the time; ``InvalidParameters``),
            ProviderUnreachable.
        """
        wanted = parameters.get("tools") or {}
        if not wanted.get("install"):
            return Tools()
        key = tuple(sorted((name, str(value)) for name, value in wanted.items()))
        failed = self._failures.get(key)
        if failed is not None and time.monotonic() < failed.until:
            raise type(failed.error)(failed.error.reason, str(failed.error))
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._install(key, wanted))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        done, _ = await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if not done:
            raise InProgress(
                "ToolsInstalling",
                f"the agents' tools are being installed on {self._host.place.name}, which takes "
                "minutes the first time; its workers start afterwards",
            )
        return task.result()

    async def close(self) -> None:
        """Wait no more; what is being installed there goes on."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _ended(self, key: tuple[tuple[str, str], ...], task: asyncio.Task[Tools]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # whoever still waits for it is told; nobody else is

    async def _install(self, key: tuple[tuple[str, str], ...], wanted: Mapping[str, Any]) -> Tools:
        try:
            told = await self._host.call(
                "tools",
                {**wanted, "seconds": INSTALL_SECONDS},
                seconds=INSTALL_SECONDS + _GRACE,
                effect=False,
            )
        except ProviderUnreachable:
            raise
        except ProviderError as error:
            before = self._failures.get(key)
            pause = FIRST_PAUSE if before is None else min(2 * before.pause, LONGEST_PAUSE)
            self._failures[key] = _Failure(error, time.monotonic() + pause, pause)
            raise
        self._failures.pop(key, None)
        return self._read(told)

    def _read(self, told: Any) -> Tools:
        try:
            path, python = told["path"], told["python"]
            if not all(isinstance(text, str) and "\n" not in text for text in (*path, python)):
                raise TypeError
            return Tools(tuple(path), python)
        except (TypeError, KeyError) as error:
            raise ProviderUnreachable(
                "AttendantFailed", f"tools: what {self._host.place.name} answers cannot be read"
            ) from error
