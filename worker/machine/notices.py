"""Machines that are about to be taken away: what one of them says to all below the root.

An agent may write there as well: a notice counts for some minutes only, since EC2 takes an
instance two minutes after it said so.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from worker import notes, paths
from worker.paths import write_private
from worker.signals import NOTICE

MACHINES = "machines"
"""Folder below the root, with one of each machine that has something to tell the others."""
SECONDS = 300.0
"""For so long a notice counts."""


def put(root: Path, node: str, text: str) -> None:
    """Say that a machine will be taken away. Raises: OSError, ProviderError."""
    write_private(paths.make(root, MACHINES, node) / NOTICE, f"{text}\n".encode())


def of(root: Path, node: str) -> str | None:
    """What is said of a machine; None: nothing, or it was long ago."""
    path = root / MACHINES / node / NOTICE
    text = notes.read(path)
    try:
        age = time.time() - os.lstat(path).st_mtime
    except OSError:
        return None
    return text if age < SECONDS else None
