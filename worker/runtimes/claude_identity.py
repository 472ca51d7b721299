"""Which conversation with Claude Code is a worker's, kept over the worker's own end."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path


class StoredIdentity:
    """The id of the worker's conversation.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """The stored id; empty if there is none."""
        try:
            found = json.loads(self._path.read_bytes())["session"]
            return str(uuid.UUID(found))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return ""

    def make(self) -> str:
        """A new id, stored before it is used.

        Raises: OSError.
        """
        identity = str(uuid.uuid4())
        part = self._path.with_suffix(".part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "w") as file:
            json.dump({"session": identity}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return identity
