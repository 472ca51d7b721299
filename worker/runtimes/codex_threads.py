"""Which conversation a worker is in, kept in its folder so that it outlives every process."""

from __future__ import annotations

import json
import os
from pathlib import Path


class ThreadFile:
    """``<base>/codex/thread.json``.

    Args:
        path: the file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """The thread's id; empty if there is none."""
        try:
            found = json.loads(self._path.read_bytes())["thread"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        return found if isinstance(found, str) else ""

    def write(self, thread: str) -> None:
        """Keep the id, on the disk when this returns; an empty one forgets it.

        Raises: OSError.
        """
        part = self._path.with_name(self._path.name + ".part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump({"thread": thread}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
