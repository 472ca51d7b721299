"""A controller that dies at a chosen point of a launch: ``before|after|returned`` and JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from providers.base import LaunchRequest, SwarmHandle
from providers.local import LocalProvider


def die() -> None:
    """End as by ``kill -9``, which it is."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingPopen(subprocess.Popen[bytes]):
    """Kills this process right before or right after the child is begun."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if sys.argv[1] == "before":
            die()
        super().__init__(*args, **kwargs)
        if sys.argv[1] == "after":
            die()


def main() -> None:
    """Launch, and never return."""
    told = json.loads(sys.argv[2])
    subprocess.Popen = DyingPopen  # type: ignore[misc,assignment]
    swarm = SwarmHandle(**told["swarm"])
    provider = LocalProvider(Path(told["root"]), command=told["command"])
    wanted = LaunchRequest(swarm, told["job"], told["index"], told["config"], told["env"])
    asyncio.run(provider.launch([wanted]))
    die()


if __name__ == "__main__":
    main()
