"""A controller that dies at a chosen point of a launch: ``before|after|returned`` and JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from providers.remote import RemoteHost
from providers.remote_values import Ran
from tests.providers.harness import die, request_of
from tests.slurm_provider.harness import provider

_run = RemoteHost.run


async def dying_run(self: RemoteHost, argv: Sequence[str], **more: Any) -> Ran:
    """Kills this process right before or right after a submission."""
    if "sbatch" in argv and sys.argv[1] == "before":
        die()
    ran = await _run(self, argv, **more)
    if "sbatch" in argv and sys.argv[1] == "after":
        die()
    return ran


async def main() -> None:
    """Launch, and never return."""
    wanted = request_of(sys.argv[2])
    launching = provider()
    launching.start(lambda batch: None)
    await launching.launch([wanted])
    die()


if __name__ == "__main__":
    asyncio.run(main())
