"""A controller whose wall clock is off by what a file says, at any moment.

Run as ``python -m tests.faults.skewed``; ``CODESWARM_SKEW`` names the file, seconds in it.  The
monotonic clock is left alone, as by whoever sets the time of a machine.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SKEW = "CODESWARM_SKEW"


def main() -> int:
    """Set the clock, then be the controller."""
    file = Path(os.environ.pop(SKEW))
    real = time.time
    time.time = lambda: real() + float(file.read_text())
    from controller.runtime import local  # binds time.time where it is a default

    return local.main()


if __name__ == "__main__":
    sys.exit(main())
