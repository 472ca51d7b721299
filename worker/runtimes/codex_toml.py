"""TOML: writing tables, and reading the user's where this Python can (3.11)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


class TomlError(Exception):
    """A text that is no TOML, or cannot be read here; fit for people."""


def loads(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises: TomlError.
    """
    try:
        import tomllib  # novermin
    except ImportError:
        raise TomlError("TOML can only be read with Python 3.11 or newer") from None
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TomlError(str(error) or "nested too deeply") from None


def dumps(table: Mapping[str, Any]) -> str:
    """TOML text of a table of tables, lists, strings, numbers and booleans.

    Raises: TomlError for anything else.
    """
    return "".join(_table(table, ()))


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``, table by table; everything else is replaced."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[name] = merged(below, value)
        else:
            result[name] = value
    return result


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """The plain values first: what follows a header belongs to it."""
    nested = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in table.items() if name not in nested}
    if path and (plain or not nested):
        yield f"\n[{'.'.join(map(_key, path))}]\n"
    for name, value in plain.items():
        yield f"{_key(name)} = {_value(value)}\n"
    for name, value in nested.items():
        yield from _table(value, (*path, name))


def _key(name: str) -> str:
    return name if _BARE.match(name) else _string(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{{inner}}}"
    raise TomlError(f"a {type(value).__name__} has no place in a configuration")


def _string(text: str) -> str:
    """A basic string; JSON's escapes are TOML's, but for surrogates and DEL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TomlError("a text with half a surrogate pair cannot be written as TOML") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
