"""Values of any shape as indented text for people, as ``kubectl describe`` shows a spec."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cli.table import clean

MAX_TEXT_LINES = 6
MAX_ITEMS = 12
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def title(name: str) -> str:
    """``Acceptance Criteria`` of ``acceptanceCriteria``."""
    words = _WORDS.sub(" ", name)
    return words[:1].upper() + words[1:]


def lines(value: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """One line a field, long texts and lists cut."""
    pad = " " * indent
    for name, item in value.items():
        label = f"{pad}{title(name)}:"
        if isinstance(item, Mapping):
            yield label if item else f"{label}  {{}}"
            yield from lines(item, indent + 2)
        elif isinstance(item, list):
            yield label if item else f"{label}  []"
            yield from _items(item, indent + 2)
        elif isinstance(item, str) and "\n" in item.rstrip("\n"):
            yield label
            yield from text(item, indent + 2)
        else:
            yield f"{label}  {scalar(item)}"


def scalar(value: Any) -> str:
    """One value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return clean("" if value is None else str(value).rstrip("\n"))


def text(value: str, indent: int, limit: int = MAX_TEXT_LINES) -> Iterator[str]:
    """The first lines of a text."""
    pad = " " * indent
    all_lines = value.rstrip("\n").split("\n")
    yield from (pad + clean(line) for line in all_lines[:limit])
    if len(all_lines) > limit:
        yield f"{pad}... ({len(all_lines) - limit} lines more)"


def _items(values: list[Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    for value in values[:MAX_ITEMS]:
        if isinstance(value, Mapping):
            inner = list(lines(value, indent + 2))
            if inner:
                yield f"{pad}- {inner[0].lstrip()}"
                yield from inner[1:]
        elif isinstance(value, str) and "\n" in value.rstrip("\n"):
            first, *rest = text(value, indent + 2)
            yield f"{pad}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{pad}- {scalar(value)}"
    if len(values) > MAX_ITEMS:
        yield f"{pad}... ({len(values) - MAX_ITEMS} more)"
