"""Regular expressions that people write, searched in time that grows with the text and no faster.

They are those of CEL's ``matches`` (RE2 syntax), by the evaluator that rules of the CRDs have
too: no backtracking, so no expression can hang the controller.  What remains is bounded: the
size of an expression with its repetitions written out, and the text that is looked at.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from controller.resources.cel import evaluator

MAX_SIZE = 1200
"""Most steps of an expression, counted repetitions written out."""
MAX_TEXT = 4096
"""Characters of a text that are looked at. Both together bound one search to about 0.1 s."""


@lru_cache(maxsize=2048)
def problem(pattern: str) -> str:
    """What is wrong with an expression, fit for people; empty if it can be used."""
    try:
        _matches("", pattern)
    except (RuntimeError, ValueError) as error:
        return _reason(str(error))
    size = _size(pattern)
    if size > MAX_SIZE:
        return f"it comes to {size} steps with its repetitions written out; {MAX_SIZE} are allowed"
    return ""


def found(pattern: str, text: str) -> bool:
    """Whether a usable expression is found in the first ``MAX_TEXT`` characters of a text."""
    return _matches(text[:MAX_TEXT], pattern)


def _matches(text: str, pattern: str) -> bool:
    context = evaluator().Context({"text": text, "pattern": pattern})
    return _program().execute(context) is True


@cache
def _program() -> Any:
    return evaluator().compile("text.matches(pattern)")


def _reason(message: str) -> str:
    """The evaluator's own reason without what only its authors understand."""
    reason = message.partition(". Check function")[0]
    _, told, last = reason.rpartition("error: ")
    return " ".join((last if told else reason.rpartition("\n")[2]).split()).rstrip(".")


def _size(pattern: str) -> int:
    """Steps of a valid expression; a counted repetition counts what it repeats so often."""
    totals, last, at = [0], 0, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "(":
            totals.append(0)
            at += 1
            continue
        if char == "{" and (times := _times(pattern, at)) is not None:
            count, at = times
            totals[-1] += last * (max(count, 1) - 1)
            last *= max(count, 1)
            continue
        if char == ")":
            last = (totals.pop() if len(totals) > 1 else 0) or 1
            at += 1
        elif char == "[":
            last, at = 1, _after_class(pattern, at)
        else:
            last, at = int(char != "|"), at + (2 if char == "\\" else 1)
        totals[-1] += last
    return sum(totals)


def _times(pattern: str, at: int) -> tuple[int, int] | None:
    """The larger count of ``{n}``, ``{n,}`` or ``{n,m}``, and the place after it."""
    end = pattern.find("}", at)
    low, comma, high = pattern[at + 1 : max(end, 0)].partition(",")
    if end < 0 or not low.strip().isdigit() or (high.strip() and not high.strip().isdigit()):
        return None
    return max(int(low), int(high) if high.strip() else int(low) + bool(comma)), end + 1


def _after_class(pattern: str, at: int) -> int:
    """The place after a character class, which may have others in it."""
    depth = 0
    while at < len(pattern):
        char = pattern[at]
        at += 2 if char == "\\" else 1
        if char == "[":
            depth += 1
            if pattern[at : at + 1] == "^":
                at += 1
            if pattern[at : at + 1] == "]":
                at += 1  # the first one is a character like others
        elif char == "]":
            depth -= 1
            if depth == 0:
                break
    return at
