"""What is wrong with an object, field by field, in words for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong."""

    path: str
    """Where, e.g. ``spec.tasks[2].name``; empty for the object as a whole."""
    message: str
    hint: str = ""
    """What would be right, if that can be said."""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.hint})" if self.hint else text


class Invalid(Exception):
    """An object that is refused, with all that is wrong with it."""

    def __init__(self, kind: str, name: str, errors: Sequence[FieldError]) -> None:
        self.kind = kind
        self.name = name
        self.errors = tuple(errors)
        super().__init__(kind, name, self.errors)

    def __str__(self) -> str:
        who = f"{self.kind}/{self.name}" if self.name else self.kind
        return "\n".join(f"{who}: {error}" for error in self.errors)


def join(path: str, part: str | int) -> str:
    """A path with one more field or index."""
    if isinstance(part, int):
        return f"{path}[{part}]"
    return f"{path}.{part}" if path else part


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``did you mean "x"?`` for the nearest known word, or nothing."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return f'did you mean "{by_lower[near[0]]}"?' if near else ""


def listed(words: Iterable[str], limit: int = 12) -> str:
    """Words with commas, cut after ``limit``."""
    all_words = list(words)
    text = ", ".join(all_words[:limit])
    return f"{text}, ..." if len(all_words) > limit else text
