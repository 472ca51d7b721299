"""The tables of ``state.db``, their version, and the way from an older version to this one.

An object's small, often changed part (``objects``: revision and status) lies apart from its
large, rarely changed part (``bodies``: metadata and spec), because SQLite rewrites a whole row:
a prompt of 10 KB must not be written again with every change of status.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from controller.store.base import StoreUnavailable

_VERSION_1 = (
    # schema: version of these tables; revision: the last resourceVersion; epoch: the controller's
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO meta VALUES ('schema', 1), ('revision', 0), ('epoch', 0)",
    """CREATE TABLE objects (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
        revision INTEGER NOT NULL, status TEXT)""",
    "CREATE UNIQUE INDEX objects_name ON objects (kind, namespace, name)",
    "CREATE UNIQUE INDEX objects_uid ON objects (uid)",
    "CREATE INDEX objects_revision ON objects (revision)",
    # revision: that of the last change of this row; a change of status leaves it
    """CREATE TABLE bodies (
        id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, api_version TEXT NOT NULL,
        metadata TEXT NOT NULL, spec TEXT, extra TEXT)""",
    "CREATE TABLE applied (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL)",
    """CREATE TABLE owners (owner TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (owner, id))
        WITHOUT ROWID""",
    "CREATE INDEX owners_id ON owners (id)",
    """CREATE TABLE tombstones (
        id INTEGER PRIMARY KEY, revision INTEGER NOT NULL, kind TEXT NOT NULL,
        namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, at REAL NOT NULL)""",
    "CREATE INDEX tombstones_revision ON tombstones (revision)",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        type TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
        first TEXT NOT NULL, last TEXT NOT NULL, count INTEGER NOT NULL)""",
    "CREATE INDEX events_name ON events (kind, namespace, name)",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)
"""Statement by statement, how version N is made from version N - 1 (0: an empty file)."""

VERSION = len(MIGRATIONS)


def prepare(connection: sqlite3.Connection, path: Path, busy_seconds: float) -> None:
    """Bring the file to this version; several processes may do so at once.

    Raises:
        StoreUnavailable: the file is of a newer version, or is another program's.
        sqlite3.Error: it cannot be read or written.
    """
    _check(_version(connection, path), path)
    _use_wal(connection, busy_seconds)
    if _version(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)
        _check(version, path)
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (VERSION,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return 0
    row = None
    if "meta" in tables:
        row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if row is None:
        raise StoreUnavailable(
            f"{path} is another program's SQLite file, not a Codeswarm state; nothing was changed: "
            "set CODESWARM_HOME to another directory"
        )
    return int(row[0])


def _check(version: int, path: Path) -> None:
    if version > VERSION:
        raise StoreUnavailable(
            f"{path} has schema version {version}, written by a newer Codeswarm; this one knows "
            f"versions up to {VERSION}: upgrade Codeswarm, or set CODESWARM_HOME to another "
            "directory (nothing was changed)"
        )


def _use_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to write-ahead logging; SQLite does not wait here by itself while others do so too."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
            continue
        if mode != "wal":
            raise StoreUnavailable(
                f"the file system of the state directory does not allow write-ahead logging "
                f"(SQLite chose {mode!r}): set CODESWARM_HOME to a directory on a local disk"
            )
        return
