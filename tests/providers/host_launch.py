"""A controller that launches one worker at a worker host, and says in a word what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from providers.base import LaunchRequest, ProviderError, SwarmHandle
from providers.hosted import HostedProvider


async def launch() -> str:
    """``launched``, or the kind of error."""
    told = json.loads(sys.argv[1])
    swarm = SwarmHandle(**told["swarm"])
    wanted = LaunchRequest(swarm, told["job"], told["index"], told["config"], told["env"])
    provider = HostedProvider(Path(told["socket"]), told["epoch"], archives=Path("/archives"))
    provider.start(lambda batch: None)
    try:
        await provider.launch([wanted])
    except ProviderError as error:
        return type(error).__name__
    finally:
        await provider.close()
    return "launched"


if __name__ == "__main__":
    print(asyncio.run(launch()))
