"""Finding what an agent wrote for the machine: a header line and the JSON or lines after it.

The text is an agent's: anything may be in it, and nothing here raises because of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_BLOCKS = 50
"""Of the headers in one text, the last so many are looked at."""

_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n]*(?:\n|\Z)", re.MULTILINE)
_BRACKET_LINE = re.compile(r"^[ \t]*(?=[\[{])", re.MULTILINE)
_FENCE_START = re.compile(
    r"^[ \t]*(?:`{3,}|~{3,})[ \t]*(?:json[a-z0-9]*)?[ \t\r]*\n\s*(?=[\[{])",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A header line, and the text between it and the next header or the end."""

    start: int
    """Where the header line begins."""
    body_start: int
    body: str


@dataclass(frozen=True, slots=True)
class Json:
    """JSON that was found, or why it could not be read."""

    start: int
    value: Any = None
    error: str = ""


def clean(text: str) -> str:
    """The text with what UTF-8 cannot carry (lone surrogates) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def blocks(text: str, header: str) -> list[Block]:
    """The blocks after lines that consist of ``header`` (markup around it allowed), in order.

    The JSON may begin on the header's own line.
    """
    pattern = re.compile(
        rf"^[ \t>#*_`]{{0,20}}{re.escape(header)}[ \t*_`]{{0,20}}:?[ \t*_`]{{0,20}}(?=\r?$|[\[{{])",
        re.MULTILINE,
    )
    heads = list(pattern.finditer(text))
    starts = [head.start() for head in heads] + [len(text)]
    found = [
        Block(head.start(), head.end(), text[head.end() : end])
        for head, end in zip(heads, starts[1:], strict=True)
    ]
    return found[-MAX_BLOCKS:]


def json_in(block: Block) -> Json | None:
    """The first JSON value in the block that begins a line (fenced or not); None if none does."""
    match = _BRACKET_LINE.search(block.body)
    if match is None:
        return None
    value = decode(block.body, match.end())
    return Json(block.body_start + match.end(), value.value, value.error)


def fenced_json(text: str) -> Iterator[Json]:
    """JSON values that follow the opening line of a fence, in order."""
    for match in list(_FENCE_START.finditer(text))[-MAX_BLOCKS:]:
        yield decode(text, match.end())


def decode(text: str, start: int) -> Json:
    """The JSON value that begins at ``start``, whatever follows it."""
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line = text.count("\n", start, error.pos) + 1
        return Json(start, error=f"it is not valid JSON: {error.msg} (line {line} of it)")
    except RecursionError:
        return Json(start, error="it is not valid JSON: nested too deeply")
    except ValueError as error:
        return Json(start, error=f"it is not valid JSON: {error}")
    return Json(start, value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def without_fences(body: str) -> str:
    """The lines of a block, those of fences left out."""
    return _FENCE.sub("", body)


def type_name(value: Any) -> str:
    """What a JSON value is called in a message."""
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        (str, "a string"),
        ((int, float), "a number"),
        (list, "a list"),
        (dict, "an object"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), "null")
