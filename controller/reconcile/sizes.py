"""Keeping a status small: texts and lists cut to so many bytes of UTF-8."""

from __future__ import annotations

from collections.abc import Iterable


def first_bytes(text: str, limit: int) -> str:
    """The beginning of a text, at most ``limit`` bytes."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def last_bytes(text: str, limit: int) -> str:
    """The end of a text, at most ``limit`` bytes."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[-limit:].decode("utf-8", "ignore")


def fitting(texts: Iterable[str], limit: int) -> list[str]:
    """The first of the texts, as many as together have at most ``limit`` bytes."""
    found: list[str] = []
    for text in texts:
        limit -= len(text.encode("utf-8", "replace"))
        if limit < 0:
            break
        found.append(text)
    return found
