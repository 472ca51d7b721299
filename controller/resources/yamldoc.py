"""YAML documents as plain values, with the line of every field; strict about what is odd.

Scalars are read as kubectl reads them: YAML 1.1 as Go's yaml.v2 has it, that is with ``y`` and
``n``, with ``0o7`` and any exponent, but without sexagesimal numbers, and with dates as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from controller.resources.yamlio import SafeLoader

MAX_VALUES = 500_000
"""Most values in one file, with aliases written out."""
MAX_DEPTH = 100
_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
_SAFE_DEPTH = 1000
_EXACT = 2**53
"""Below it a float without a fraction is exactly the integer that it looks like."""

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?0([xX][0-9a-fA-F]+|[bB][01]+|[oO][0-7]+)")
_LETTERS = {"y": True, "Y": True, "n": False, "N": False}
_TAGGED = re.compile(r"(&\S+\s+)?!")
_OTHER_VERSION = re.compile(r"^%YAML[ \t]+(?!1\.1\s)(\S*)", re.MULTILINE)
_TEXTS = ("timestamp", "value", "merge")
_SCALARS = ("str", "int", "float", "bool", "null", *_TEXTS)
_INDEX = re.compile(r"\[([0-9]+)\]")


class YamlError(Exception):
    """A document cannot be understood."""

    def __init__(self, message: str, document: int, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.document = document
        self.line = line


@dataclass(frozen=True, slots=True)
class Parsed:
    """One document."""

    value: Any
    index: int
    """From 1."""
    line: int
    """Where it begins, from 1."""
    node: Any
    """The tree with positions; None where there is none (JSON)."""

    def line_of(self, path: str) -> int:
        """The line of a field, or of the nearest thing around it."""
        node, line = self.node, self.line
        while path:
            found = _child(node, path)
            if found is None:
                break
            line, node, path = found[0] + 1, found[1], found[2]
        return line


def _child(node: Any, path: str) -> tuple[int, Any, str] | None:
    """The line, the node and the rest of a path, whose first name may have dots of its own."""
    if isinstance(node, yaml.MappingNode):
        path = path.removeprefix(".")
        for key, value in sorted(node.value, key=lambda pair: -len(str(pair[0].value))):
            for name in (str(key.value), f"[{key.value}]"):
                rest = path.removeprefix(name)
                if rest != path and (not rest or rest[0] in ".["):
                    return key.start_mark.line, value, rest
    elif isinstance(node, yaml.SequenceNode):
        index = _INDEX.match(path)
        if index and int(index[1]) < len(node.value):
            item = node.value[int(index[1])]
            return item.start_mark.line, item, path[index.end() :]
    return None


def parse(text: str) -> Iterator[Parsed]:
    """The documents of a text; an empty one has the value None. Raises: YamlError."""
    _refuse_depth(text)
    _refuse_version(text)
    number = 1
    loader = SafeLoader(text)
    builder = _Builder(loader, text)
    try:
        while loader.check_node():
            node = loader.get_node()
            builder.document = number
            yield Parsed(builder.build(node), number, node.start_mark.line + 1, node)
            number += 1
    except yaml.YAMLError as error:
        raise _syntax_error(text, error, number) from None
    finally:
        loader.dispose()


def _syntax_error(text: str, error: yaml.YAMLError, number: int) -> YamlError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it does not parse"
    context = getattr(error, "context", None)
    line = mark.line + 1 if mark else 0
    if "nesting depth" in problem:  # newer versions of libyaml have a limit of their own
        return YamlError(_TOO_DEEP, number, line)
    words = f"is not YAML: {problem}" + (f" ({context})" if context else "")
    return YamlError(words + _advice(text, mark), number, line)


def _refuse_version(text: str) -> None:
    found = _OTHER_VERSION.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        message = f"calls itself YAML {found[1]}; manifests are YAML 1.1: leave the %YAML line out"
        raise YamlError(message, 1, line)


def _refuse_depth(text: str) -> None:
    """Refuse what is nested so deeply that building its tree would overflow the stack.

    Only a text that could be is gone through: its depth is at most the number of brackets plus
    the indentation and the dashes of one line.
    """
    block = max(
        (len(line) - len(line.lstrip()) + line.count("- ") + line.count("? "))
        for line in (text.splitlines() or [""])
    )
    if text.count("[") + text.count("{") + block < _SAFE_DEPTH:
        return
    depth, number = 0, 0
    try:
        for event in yaml.parse(text, Loader=SafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
            elif isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise YamlError(_TOO_DEEP, number, line)
    except yaml.YAMLError as error:
        raise _syntax_error(text, error, max(number, 1)) from None


def _advice(text: str, mark: Any) -> str:
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines):
        return ""
    if "\t" in lines[mark.line][: len(lines[mark.line]) - len(lines[mark.line].lstrip())]:
        return "; indent with spaces, not with tabs"
    return f'; the line reads "{lines[mark.line].strip()[:60]}"'


class _Builder:
    """Makes plain values of nodes."""

    def __init__(self, loader: Any, text: str) -> None:
        self._loader = loader
        self._text = text
        self._open: set[int] = set()
        self._count = 0
        self.document = 1

    def build(self, node: Any) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(node, f"has more than {MAX_VALUES} values, with aliases written out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise self._error(node, "an alias stands inside of what it stands for")
        if len(self._open) >= MAX_DEPTH:
            raise self._error(node, _TOO_DEEP)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node)
            self._check_tag(node, "seq")
            return [self.build(item) for item in node.value]
        finally:
            self._open.discard(id(node))

    def _error(self, node: Any, message: str) -> YamlError:
        return YamlError(message, self.document, node.start_mark.line + 1)

    def _check_tag(self, node: Any, *known: str) -> None:
        if node.tag not in [_TAG + name for name in known]:
            short = node.tag.replace(_TAG, "!!")
            raise self._error(node, f"the tag {short} is not allowed; write a plain value")

    def _mapping(self, node: Any) -> dict[str, Any]:
        self._check_tag(node, "map")
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged = {**self._merge(value_node), **merged}
                continue
            key = self._key(key_node)
            if key in result:
                raise self._error(key_node, f'the field "{key}" stands twice in one object')
            result[key] = self.build(value_node)
        return {**merged, **result} if merged else result

    def _merge(self, node: Any) -> dict[str, Any]:
        values = self.build(node)
        result: dict[str, Any] = {}
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, dict):
                raise self._error(node, "<< takes an object, or a list of objects")
            result = {**value, **result}
        return result

    def _key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "the name of a field must be a plain text")
        value = self._scalar(node)
        if value is None:
            raise self._error(node, "the name of a field is empty")
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    def _scalar(self, node: Any) -> Any:
        self._check_tag(node, *_SCALARS)
        kind, text = node.tag[len(_TAG) :], node.value
        if kind in _TEXTS or (kind in ("int", "float") and ":" in text):
            return text
        if kind == "str":
            tagged = _TAGGED.match(self._text, node.start_mark.index)
            return text if node.style or tagged else self._plain(node, text)
        try:
            value = self._loader.construct_object(node)
        except (ValueError, yaml.YAMLError):
            raise self._error(node, f'"{text[:60]}" is not a valid {kind}') from None
        return self._number(node, value) if isinstance(value, float) else value

    def _plain(self, node: Any, text: str) -> Any:
        """An unquoted text that the parser has no other type for, and kubectl's has."""
        if text in _LETTERS:
            return _LETTERS[text]
        digits = text if text.startswith(("_", ".")) else text.replace("_", "")
        if _INTEGER.fullmatch(digits):
            return int(digits, 0)
        return self._number(node, float(digits)) if _FLOAT.fullmatch(digits) else text

    def _number(self, node: Any, value: float) -> float:
        if not math.isfinite(value):
            raise self._error(node, f"{node.value} is not a number that JSON can carry")
        return plain_number(value)


def plain_number(value: float) -> float:
    """A number as kubectl sends it: 3.0 and 1e3 are the integers 3 and 1000."""
    return int(value) if value.is_integer() and abs(value) < _EXACT else value
