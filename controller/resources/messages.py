"""Words for what ``jsonschema`` finds: what is wrong, and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from controller.resources.errors import FieldError, did_you_mean, join, listed

_LABEL = "lower-case letters, digits and inner dashes only"
_SUBDOMAIN = "lower-case letters, digits, inner dashes and dots only"
_PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": _LABEL,
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": _SUBDOMAIN,
        "^[A-Za-z_][A-Za-z0-9_]*$": "letters, digits and underscores, not beginning with a digit",
        "^[0-9a-f]{40}([0-9a-f]{24})?$": "a full commit hash",
        r"^[0-9]{1,9}(\.[0-9]{1,9})?$": 'a decimal string without sign, such as "25.00"',
        r"^(/|~/)[^\x00-\x1f]*$": "an absolute path, or one from ~/",
    }
)
_TIME = "^[0-9]{4}-(0[1-9]|1[0-2])-"
_LONG_PATTERN = 60
_TYPES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}
_CREDENTIALS = ("accesskey", "secretkey", "password", "secretaccess", "apikey", "sessiontoken")


def describe(error: Any, path: str = "") -> Iterable[FieldError]:
    """The field errors of one ``jsonschema.ValidationError`` in a value that stands at ``path``."""
    for part in error.absolute_path:
        path = join(path, part)
    handler = _HANDLERS.get(error.validator)
    if handler is None:
        return [FieldError(path, str(error.message))]
    return handler(path, error)


def type_name(value: Any) -> str:
    """What a value is, in the words of manifests."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the string "{_short(value)}"'
    return "a list" if isinstance(value, list) else "an object"


def _short(value: Any, limit: int = 60) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _type(path: str, error: Any) -> Iterable[FieldError]:
    wanted = (
        error.validator_value
        if isinstance(error.validator_value, list)
        else [error.validator_value]
    )
    words = " or ".join(_TYPES[w] for w in wanted)
    value, hint = error.instance, ""
    if "string" in wanted and isinstance(value, (int, float)):
        hint = "write it in quotes"
    elif wanted[0] in ("integer", "number") and isinstance(value, str) and _numeric(value):
        hint = "write it without quotes"
    elif wanted == ["array"] and isinstance(value, str):
        hint = f"a list of one is written [{_short(value, 30)}]"
    return [FieldError(path, f"must be {words}, not {type_name(value)}", hint)]


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _required(path: str, error: Any) -> Iterable[FieldError]:
    properties = error.schema.get("properties", {})
    # One error of jsonschema names one missing field; it is the first word of its message.
    for name in error.validator_value:
        if error.message.startswith(repr(name)):
            text = properties.get(name, {}).get("description", "")
            return [FieldError(join(path, name), "is required", text.rstrip("."))]
    return [FieldError(path, str(error.message))]


def _unknown(path: str, error: Any) -> Iterable[FieldError]:
    known = list(error.validator_value)
    for name in error.instance:
        if name in error.validator_value:
            continue
        hint = did_you_mean(name, known)
        if any(word in str(name).lower().replace("_", "") for word in _CREDENTIALS):
            hint = "credentials never stand in a manifest"
        elif not hint:
            hint = f"known here: {listed(known)}" if known else "no fields are known here"
        yield FieldError(join(path, str(name)), "unknown field", hint)


def _enum(path: str, error: Any) -> Iterable[FieldError]:
    allowed = [str(v) for v in error.validator_value]
    if not isinstance(error.instance, str):
        return []  # the wrong type is an error of its own
    message = f'"{_short(error.instance)}" is not one of {", ".join(allowed)}'
    return [FieldError(path, message, did_you_mean(error.instance, allowed))]


def _pattern(path: str, error: Any) -> Iterable[FieldError]:
    rule = _PATTERNS.get(error.validator_value)
    shown = f'"{_short(error.instance)}" is not valid'
    if error.validator_value.startswith(_TIME):
        return [FieldError(path, f"{shown}: a time in UTC, such as 2026-01-31T12:00:00Z")]
    if rule:
        return [FieldError(path, f"{shown}: {rule}")]
    description = error.schema.get("description", "").rstrip(".")
    if len(error.validator_value) <= _LONG_PATTERN:
        shown += f": must match {error.validator_value}"
    return [FieldError(path, shown, description)]


def _format(path: str, error: Any) -> Iterable[FieldError]:
    hint = "such as 2026-01-31T12:00:00Z"
    return [FieldError(path, f'"{_short(error.instance)}" is not a time', hint)]


def _sized(words: str, unit: str) -> Callable[[str, Any], Iterable[FieldError]]:
    def handler(path: str, error: Any) -> Iterable[FieldError]:
        limit, size = error.validator_value, len(error.instance)
        return [FieldError(path, f"must have {words} {limit} {unit}, not {size}")]

    return handler


def _bound(words: str) -> Callable[[str, Any], Iterable[FieldError]]:
    def handler(path: str, error: Any) -> Iterable[FieldError]:
        return [FieldError(path, f"must be {words} {error.validator_value}, not {error.instance}")]

    return handler


def _distinct(path: str, error: Any) -> Iterable[FieldError]:
    keys: list[str] = error.validator_value
    first: dict[str, int] = {}
    for index, item in enumerate(error.instance):
        named = keys and isinstance(item, dict)
        value = " ".join(str(item.get(k)) for k in keys) if named else str(item)
        if value in first:
            where = join(join(path, index), keys[0]) if named else join(path, index)
            what = "/".join(keys) if named else "value"
            earlier = join(path, first[value])
            yield FieldError(where, f'the {what} "{_short(value)}" is already that of {earlier}')
        else:
            first[value] = index


_HANDLERS: Mapping[str, Callable[[str, Any], Iterable[FieldError]]] = MappingProxyType(
    {
        "type": _type,
        "required": _required,
        "unknownFields": _unknown,
        "enum": _enum,
        "pattern": _pattern,
        "minLength": _sized("at least", "characters"),
        "maxLength": _sized("at most", "characters"),
        "minItems": _sized("at least", "items"),
        "maxItems": _sized("at most", "items"),
        "maxProperties": _sized("at most", "entries"),
        "minimum": _bound("at least"),
        "exclusiveMinimum": _bound("above"),
        "maximum": _bound("at most"),
        "distinct": _distinct,
        "format": _format,
    }
)
