"""A controller that looks at EC2 oftener than users need; it may kill itself, as ``crashing`` says.

Run as ``python -m tests.on_aws.quick``, with the command line of a cluster's controller for one of
those.
"""

from __future__ import annotations

import os
import sys

import providers.aws
from controller.runtime import local
from tests.aws_provider.harness import TIMES
from tests.faults import crashing


def main() -> int:
    """Be the controller."""
    providers.aws.Times = lambda: TIMES  # type: ignore[assignment,misc]
    if crashing.AT in os.environ:
        return crashing.main()
    if sys.argv[1:]:
        from cli.main import main as command

        return command()
    return local.main()


if __name__ == "__main__":
    sys.exit(main())
