"""JSONPath as kubectl takes it, for printer columns and ``-o jsonpath``.

The dialect is that of https://kubernetes.io/docs/reference/kubectl/jsonpath/: ``.a.b``, ``['a']``,
``[0]``, ``[-1]``, ``[1:3]``, ``[*]``, ``..a``, ``[?(@.type=="Ready")]``; in templates also
``{"text"}`` and ``{range ...}...{end}``.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Step = Callable[[Any], Iterator[Any]]
Path = tuple[Step, ...]


class JsonPathError(ValueError):
    """The expression cannot be read; the text says where."""


_STEP = re.compile(
    r"""(?P<deep>\.\.)(?P<deepname>(?:\\.|[^.\[\]\\\s(){}'"])+)
      | \.?\*
      | \.(?P<name>(?:\\.|[^.\[\]\\\s(){}'"*])+)
      | \[(?P<quote>['"])(?P<key>.*?)(?P=quote)\]
      | \[(?P<star>\*)\]
      | \[(?P<from>-?\d+)?:(?P<to>-?\d+)?\]
      | \[(?P<index>-?\d+)\]
      | \[\?\((?P<filter>.*?)\)\]
    """,
    re.VERBOSE,
)
_FILTER = re.compile(r"^\s*@(?P<path>\S*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>.+?))?\s*$")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_path(text: str) -> Path:
    """Steps of one path, e.g. ``.status.conditions[?(@.type=="Ready")].status``.

    Raises: JsonPathError.
    """
    rest = text.strip()
    if rest[:1] in ("$", "@"):
        rest = rest[1:]
    if rest and rest[0] not in ".[":
        rest = "." + rest
    if rest == ".":
        rest = ""
    steps: list[Step] = []
    while rest:
        match = _STEP.match(rest)
        if match is None:
            raise JsonPathError(f'cannot read the JSONPath "{text}" at "{rest}"')
        steps.append(_step(match))
        rest = rest[match.end() :]
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    groups = match.groupdict()
    for group, make in _MAKERS.items():
        if groups[group] is not None:
            return make(groups[group])
    if match.group().startswith("[") and groups["star"] is None:
        return _slice(_int(groups["from"]), _int(groups["to"]))
    return _children


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _child(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _deep(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]
        for child in _children(value):
            yield from step(child)

    return step


def _slice_one(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _slice(begin: int | None, end: int | None) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[begin:end]

    return step


def _filter(text: str) -> Step:
    match = _FILTER.match(text)
    if match is None:
        raise JsonPathError(f'cannot read the JSONPath filter "{text}"')
    path = compile_path(match["path"])
    compare = _OPERATORS.get(match["op"] or "")
    literal = _literal(match["literal"]) if compare else None

    def holds(item: Any) -> bool:
        for found in evaluate(path, item):
            try:
                if compare is None or compare(found, literal):
                    return True
            except TypeError:
                continue
        return False

    def step(value: Any) -> Iterator[Any]:
        yield from (item for item in _children(value) if holds(item))

    return step


_MAKERS: dict[str, Callable[[str], Step]] = {
    "deepname": lambda name: _deep(_unescape(name)),
    "name": lambda name: _child(_unescape(name)),
    "key": _child,
    "index": lambda index: _slice_one(int(index)),
    "filter": _filter,
}


def _literal(text: str) -> Any:
    if text[:1] == "'" and text[-1:] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise JsonPathError(f'cannot read the value "{text}" in a JSONPath filter') from None


def evaluate(path: Path, value: Any) -> list[Any]:
    """All values that a path finds."""
    found = [value]
    for step in path:
        found = [child for item in found for child in step(item)]
    return found


def as_text(value: Any) -> str:
    """A value as kubectl prints it: strings bare, the rest as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class _Range:
    path: Path
    body: tuple[_Part, ...]


_Part = str | Path | _Range
_TOKEN = re.compile(r"\{((?:\"(?:\\.|[^\"\\])*\"|'[^']*'|[^{}\"'])*)\}")


def compile_template(text: str) -> tuple[_Part, ...]:
    """A whole ``-o jsonpath=`` template, e.g. ``{range .items[*]}{.metadata.name}{"\\n"}{end}``.

    Raises: JsonPathError.
    """
    stack: list[tuple[Path, list[_Part]]] = [((), [])]
    position = 0
    for match in _TOKEN.finditer(text):
        if match.start() > position:
            stack[-1][1].append(text[position : match.start()])
        position = match.end()
        word = match[1].strip()
        if word.startswith("range "):
            stack.append((compile_path(word[6:]), []))
        elif word == "end":
            if len(stack) == 1:
                raise JsonPathError("{end} without {range}")
            path, body = stack.pop()
            stack[-1][1].append(_Range(path, tuple(body)))
        elif word[:1] in ('"', "'"):
            stack[-1][1].append(_literal(word))
        else:
            stack[-1][1].append(compile_path(word))
    if len(stack) > 1:
        raise JsonPathError("{range} without {end}")
    if text[position:]:
        if "{" in text[position:]:
            raise JsonPathError(f'unclosed brace in the JSONPath template "{text}"')
        stack[0][1].append(text[position:])
    return tuple(stack[0][1])


def render(template: tuple[_Part, ...], value: Any) -> str:
    """The template filled in with a value; what is missing is empty."""
    out = []
    for part in template:
        if isinstance(part, str):
            out.append(part)
        elif isinstance(part, _Range):
            out.extend(render(part.body, item) for item in evaluate(part.path, value))
        else:
            out.append(" ".join(as_text(item) for item in evaluate(part, value)))
    return "".join(out)
