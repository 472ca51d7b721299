"""Connections to ``state.db``: how they are opened, and what SQLite's errors mean to people."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.store.base import StoreUnavailable

BUSY_SECONDS = 10.0
"""How long a write waits for another process's write before it gives up."""

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # a commit returns once it is on the disk
    "PRAGMA cache_size = -16000",  # KiB
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
)


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection without implicit transactions, for one thread at a time.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    connection = sqlite3.connect(
        path,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock, so that trying again can help."""
    return _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def unavailable(path: Path, error: sqlite3.Error) -> StoreUnavailable:
    """What an error of SQLite means to the person at the keyboard."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        text = f"no space left for {path}: free some, then try again"
    elif code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}:
        text = (
            f"{path} is read-only: make it and its directory writable, or set CODESWARM_HOME to "
            "another directory"
        )
    elif code == sqlite3.SQLITE_CANTOPEN:
        text = (
            f"{path} cannot be opened: its directory must exist and be writable (or set "
            "CODESWARM_HOME to another one)"
        )
    elif code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        text = f"another process is writing to {path} and does not end: try again"
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        text = (
            f"{path} is damaged or not a state file ({error}): put back a copy of it, or move it "
            "away together with its -wal and -shm files to begin anew"
        )
    elif code == sqlite3.SQLITE_IOERR:
        text = f"{path} cannot be read or written ({error}): look at the disk and its free space"
    else:
        text = f"{path}: {error}"
    return StoreUnavailable(f"{text} (nothing was changed)")


class Guard:
    """``with guard:`` turns SQLite's errors into StoreUnavailable."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise unavailable(self._path, error) from error


def _code(error: sqlite3.Error) -> int:
    # Errors of the Python module itself carry no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
