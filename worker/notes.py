"""Small files in a job's folder that say one thing: a claim, an end, a failure.

Agents write in these folders too: no link is followed, nothing is waited for, sizes are bounded.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_NOTE = 8192
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path) -> str | None:
    """The beginning of a small file; None if it is not there, or no file."""
    try:
        descriptor = os.open(path, READ_FLAGS)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, MAX_NOTE).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
