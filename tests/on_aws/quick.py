"""A controller that looks at EC2 oftener than users need; it may kill itself, as ``crashing`` says.

Run as ``python -m tests.on_aws.quick``, with the command line of a cluster's controller for one of
those.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import providers.aws
from controller.runtime import local
from tests.aws_provider.harness import TIMES
from tests.faults import crashing

IDLE = "CODESWARM_TEST_IDLE"
"""Seconds after which the last machine goes, if no worker is wanted."""
SETTLE = "CODESWARM_TEST_SETTLE"
"""Seconds after the last launch until nothing to be seen is believed to be nothing."""


def main() -> int:
    """Be the controller."""
    idle = float(os.environ.pop(IDLE, TIMES.patience.idle))
    times = replace(
        TIMES,
        settle=float(os.environ.pop(SETTLE, TIMES.settle)),
        patience=replace(TIMES.patience, idle=idle),
        wanted=min(idle, TIMES.wanted),
    )
    providers.aws.Times = lambda: times  # type: ignore[assignment,misc]
    if crashing.AT in os.environ:
        return crashing.main()
    if sys.argv[1:]:
        from cli.main import main as command

        return command()
    return local.main()


if __name__ == "__main__":
    sys.exit(main())
