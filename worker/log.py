"""What a worker says of itself: lines on stderr, which its provider keeps as ``worker.log``."""

from __future__ import annotations

import sys


def complain(message: str) -> None:
    """Say what is wrong; a log that cannot be written (the disk is full) is no further trouble."""
    try:
        print(message, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # there is nobody left to tell
