"""A controller that dies at a chosen point of a launch: ``before|after|returned`` and JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from providers.base import LaunchRequest, SwarmHandle
from providers.remote import RemoteHost
from providers.remote_values import Ran
from tests.slurm_provider.harness import provider

_run = RemoteHost.run


def die() -> None:
    """End as by ``kill -9``, which it is."""
    os.kill(os.getpid(), signal.SIGKILL)


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
    told = json.loads(sys.argv[2])
    RemoteHost.run = dying_run  # type: ignore[method-assign]
    swarm = SwarmHandle(**told["swarm"])
    launching = provider()
    launching.start(lambda batch: None)
    wanted = LaunchRequest(swarm, told["job"], told["index"], told["config"], told["env"])
    await launching.launch([wanted])
    die()


if __name__ == "__main__":
    asyncio.run(main())
