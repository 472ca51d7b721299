"""A worker host as a process of its own, told by JSON; it may die at a chosen point of a launch."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from providers.host import HostSettings, run


class DyingPopen(subprocess.Popen[bytes]):
    """Kills this process right before or right after a worker is begun."""

    point = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.point == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(*args, **kwargs)
        if self.point == "after":
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Be a worker host."""
    told = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if told["die"]:
        DyingPopen.point = told["die"]
        subprocess.Popen = DyingPopen  # type: ignore[misc,assignment]
    return run(
        HostSettings(
            socket=Path(told["socket"]),
            root=Path(told["root"]),
            uids=frozenset(told["uids"]),
            workspace_roots=tuple(Path(path) for path in told["workspace_roots"]),
            grace_seconds=told["grace"],
            command=told["command"],
            poll_seconds=0.1,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
