"""Plain tables as kubectl prints them: left-aligned, three spaces between columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029"
    r"\u202a-\u202e\u2066-\u2069]"  # what turns the direction of text shows another order
)


def clean(text: str) -> str:
    """Text from outside made safe for a terminal: no control characters but tab and newline."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def cell(text: str) -> str:
    """One line, safe for a terminal."""
    return clean(" ".join(text.split("\n"))).replace("\t", " ")


def render(headers: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """The table with a newline after every line; without headers when None."""
    lines = [headers, *rows] if headers is not None else list(rows)
    if not lines:
        return ""
    return render_wide(lines, [0] * len(lines[0]))


def render_wide(lines: Sequence[Sequence[str]], widths: list[int]) -> str:
    """Lines with columns of at least ``widths`` characters; ``widths`` grows to what was used."""
    lines = [[cell(value) for value in line] for line in lines]
    for i in range(len(widths)):
        widths[i] = max([widths[i], *(len(line[i]) for line in lines)])
    return "".join(_line(line, widths) for line in lines)


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    padded = [value.ljust(width) for value, width in zip(line, widths, strict=True)]
    return "   ".join(padded).rstrip() + "\n"


def aligned(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    """``Name:   value`` with the values below each other."""
    width = max(len(name) for name, _ in pairs) + 4
    for name, value in pairs:
        yield f"{name + ':' if name else '':<{width}}{cell(value)}".rstrip()


def section(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """An indented table under a title."""
    yield f"{title}:"
    for line in render(headers, rows).splitlines():
        yield f"  {line}".rstrip()
