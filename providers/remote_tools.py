"""The agents' own tools on a login host's shared file system: found on the path, or installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.base import ProviderUnreachable
from providers.remote import RemoteHost

INSTALL_SECONDS = 900.0
"""For the first installation; whoever comes meanwhile waits for it."""
_GRACE = 15.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What was installed; nothing, if a workspace uses what its hosts have."""

    path: tuple[str, ...] = ()
    """Folders that come first on a worker's PATH."""
    python: str = ""
    """The Python that has Claude Code's package: a worker of that runtime must be run by it."""


async def have_tools(host: RemoteHost, parameters: Mapping[str, Any]) -> Tools:
    """Have the tools that a provider block asks for; safe to repeat, and quick then.

    Args:
        host: whose workspace gets them.
        parameters: with ``tools: {install, nodeVersion, codexVersion, claudePackage}``.

    Raises: ProviderError (``ToolsFailed``, ``InvalidParameters``, ``LockHeld``: somebody else has
        been installing them all the time), ProviderUnreachable.
    """
    wanted = parameters.get("tools") or {}
    if not wanted.get("install"):
        return Tools()
    told = await host.call(
        "tools",
        {**wanted, "seconds": INSTALL_SECONDS},
        seconds=INSTALL_SECONDS + _GRACE,
        effect=False,
    )
    try:
        path, python = told["path"], told["python"]
        if not all(isinstance(text, str) and "\n" not in text for text in (*path, python)):
            raise TypeError
        return Tools(tuple(path), python)
    except (TypeError, KeyError) as error:
        raise ProviderUnreachable(
            "AttendantFailed", f"tools: what {host.place.name} answers cannot be read"
        ) from error
