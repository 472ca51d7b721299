"""Events: folded while they repeat, and kept few."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from controller.store.base import Key

PER_OBJECT = 50
TOTAL = 20_000
MESSAGE_LENGTH = 1024
"""Characters kept of a message, as in Kubernetes."""
_SLACK = 100  # the total is looked at once in so many new events


class Happening(NamedTuple):
    """One occurrence, before it is folded. ``at`` is an RFC 3339 stamp."""

    key: Key
    type: str
    reason: str
    message: str
    at: str


def happening(key: Key, type_: str, reason: str, message: str, at: str) -> Happening:
    """An occurrence whose message is storable text of bounded length."""
    text = message.encode("utf-8", "replace").decode()
    if len(text) > MESSAGE_LENGTH:
        text = text[: MESSAGE_LENGTH - 1] + "…"
    return Happening(key, type_, reason, text, at)


def fold(connection: sqlite3.Connection, new: Happening) -> None:
    """Count ``new`` on the event it repeats, or add it; the oldest beyond the limits go."""
    known = connection.execute(
        "SELECT id, message FROM events WHERE kind = ? AND namespace = ? AND name = ? "
        "AND type = ? AND reason = ?",
        (*new.key, new.type, new.reason),
    )
    same = [id_ for id_, message in known if message == new.message]
    if same:
        connection.execute(
            "UPDATE events SET count = count + 1, last = ? WHERE id = ?", (new.at, same[0])
        )
        return
    cursor = connection.execute(
        "INSERT INTO events (kind, namespace, name, type, reason, message, first, last, count) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (*new.key, new.type, new.reason, new.message, new.at, new.at),
    )
    _prune(connection, new.key, cursor.lastrowid or 0)


def _prune(connection: sqlite3.Connection, key: Key, newest: int) -> None:
    connection.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE kind = ? AND namespace = ? "
        "AND name = ? ORDER BY last DESC, id DESC LIMIT -1 OFFSET ?)",
        (*key, PER_OBJECT),
    )
    if newest % _SLACK == 0:
        connection.execute(
            "DELETE FROM events WHERE id IN "
            "(SELECT id FROM events ORDER BY last DESC, id DESC LIMIT -1 OFFSET ?)",
            (TOTAL - _SLACK,),
        )
