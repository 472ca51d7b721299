"""``http.json``: where the running controller listens, and the token for it. Light to import."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a controller."""

    url: str
    """Without a path: ``http://127.0.0.1:4000``."""
    token: str


class EndpointFile:
    """The file of one home, mode 0600; there while its controller listens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, endpoint: Endpoint) -> None:
        """Say where; whoever reads sees all of it or nothing. Raises: OSError."""
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            new.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(new, flags, 0o600), "w") as file:
            json.dump({"url": endpoint.url, "token": endpoint.token}, file)
        new.replace(self._path)

    def read(self) -> Endpoint | None:
        """Where, or None. What a killed controller left may still be there: ask its lock first."""
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(MAX_BYTES))
            return Endpoint(str(found["url"]), str(found["token"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self, mine: Endpoint | None = None) -> None:
        """Say no more; with ``mine`` only if it still says that."""
        if mine is None or self.read() == mine:
            with suppress(OSError):
                self._path.unlink()
