"""Inbox lines as typed records: everything that a turn relies on is checked here, once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast

from worker.records import ControlRecord, UserRecord

KINDS = frozenset({"work", "plan", "integration", "prompt"})
ACTIONS = frozenset({"interrupt", "drain", "shutdown", "approval", "steer"})

_Check = Callable[[Any], bool]

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
_REF = re.compile(r"refs/[A-Za-z0-9._@+/-]+\Z")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z")


class BadRecord(Exception):
    """A line that is no record; the text says what is wrong with it."""


def parse(line: bytes) -> UserRecord | ControlRecord:
    """One inbox line.

    Raises: BadRecord.
    """
    try:
        record = json.loads(line.decode())
        if b"\\ud" in line.lower():
            json.dumps(record, ensure_ascii=False).encode()  # lone surrogates are no text
    except UnicodeError:
        raise BadRecord("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadRecord("not a JSON object")
    kind = record.get("type")
    if kind == "user":
        _require(record, _USER, "")
        return cast(UserRecord, record)
    if kind == "control":
        _require(record, _CONTROL, "")
        return cast(ControlRecord, record)
    raise BadRecord(f"type is {_short(kind)}, not 'user' or 'control'")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _require(table: Any, fields: dict[str, Any], where: str) -> None:
    """Check a table's fields; a name that ends in ``?`` may be absent or null."""
    if not isinstance(table, dict):
        raise BadRecord(f"{where.rstrip('.') or 'record'} is not an object")
    for name, check in fields.items():
        key = name.rstrip("?")
        value = table.get(key)
        if value is None and name.endswith("?"):
            table.pop(key, None)
            continue
        if isinstance(check, dict):
            _require(value, check, f"{where}{key}.")
        elif isinstance(check, list):
            _require_items(value, check[0], f"{where}{key}")
        elif not check(value):
            raise BadRecord(f"{where}{key} is {_short(value)}")


def _require_items(value: Any, fields: dict[str, Any], where: str) -> None:
    if not isinstance(value, list):
        raise BadRecord(f"{where} is not a list")
    for index, item in enumerate(value):
        _require(item, fields, f"{where}[{index}].")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _one_of(names: frozenset[str]) -> _Check:
    return lambda value: isinstance(value, str) and value in names


def _matches(pattern: re.Pattern[str]) -> _Check:
    return lambda value: isinstance(value, str) and pattern.match(value) is not None


def _ref(value: Any) -> bool:
    return _matches(_REF)(value) and ".." not in value and "//" not in value


def _identity(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256


def _url(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not set(value) & set("\0\r\n")


def _branch(value: Any) -> bool:
    return isinstance(value, str) and _ref(f"refs/heads/{value}")


def _branch_text(value: Any) -> bool:
    """Any branch of the user's own: git judges it, as long as it can be only a branch."""
    return _url(value) and not set(value) & set(" :*?[\\^~") and not value.startswith("-")


def _expected(value: Any) -> bool:
    return value == "" or _matches(_OID)(value)


def _path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/") and "\0" not in value


def _commands(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) and "\0" not in v for v in value)


_HEAD = {"task": _text, "commit": _matches(_OID), "ref": _ref}
_USER: dict[str, Any] = {
    "epoch": _count,
    "injection_id": _identity,
    "content": _text,
    "task": {
        "name": _text,
        "uid": _text,
        "kind": _one_of(KINDS),
        "attempt": _count,
        "project?": _text,
        "task_id?": _text,
        "title?": _text,
    },
    "repository?": {
        "url": _url,
        "project_uid": _matches(_COMPONENT),
        "store?": _path,
        "base_branch": _branch_text,
        "base_commit": _matches(_OID),
        "dependencies": [_HEAD],
        "previous?": _HEAD,
        "attempt_ref?": _ref,
        "branch?": _branch,
        "expected?": _expected,
    },
    "integration?": {"merges": [_HEAD], "verify?": _commands},
    "secrets?": _matches(_COMPONENT),
}
_CONTROL: dict[str, Any] = {
    "epoch": _count,
    "payload": {
        "action": _one_of(ACTIONS),
        "injection_id?": _text,
        "reason?": _text,
        "request_id?": _text,
        "decision?": _text,
        "by?": _text,
        "content?": _text,
    },
}
