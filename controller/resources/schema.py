"""Strict validation of an object against its CRD's schema, by ``jsonschema``.

Behaves as the API server with ``fieldValidation=Strict`` does: an unknown field is an error,
lists of named things may not name one twice, patterns are RE2's (``$`` is the very end).
One validator a kind, built once; ``jsonschema`` is imported where it is first needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from controller.resources import kinds, structural
from controller.resources.errors import FieldError
from controller.resources.messages import describe

_COPIED = (
    "type",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "format",
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[-+]\d\d:\d\d)", re.ASCII)
_METADATA = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Schema:
    """One kind's schema, ready for use."""

    node: structural.Node
    validator: Any
    raw: Mapping[str, Any]

    def prepare(self, value: Any) -> Any:
        """A copy without nulls, with defaults."""
        return structural.prepare(value, self.node)

    def errors(self, value: Any, limit: int = 50) -> list[FieldError]:
        """All that is wrong, in the order of the document; at most ``limit``."""
        found: list[FieldError] = []
        for error in self.validator.iter_errors(value):
            found += describe(error)
            if len(found) >= limit:
                break
        return found[:limit]

    def unknown(self, value: Any, path: str, limit: int = 50) -> list[FieldError]:
        """The unknown fields in a value that stands at ``path``, whatever else is wrong."""
        found: list[FieldError] = []
        for error in self.validator.iter_errors(value):
            if error.validator == "unknownFields":
                found += describe(error, path)
        return found[:limit]


def compile_schema(schema: Mapping[str, Any]) -> Schema:
    """Make a structural schema (``openAPIV3Schema`` or a part of one) ready for use."""
    return Schema(structural.build(schema), _validator_class()(_translate(schema)), schema)


@cache
def object_schema(kind: str) -> Schema:
    """The schema of whole objects of a kind, without status. Raises: UnknownKind."""
    raw = kinds.open_api_schema(kind)
    properties = {k: v for k, v in raw["properties"].items() if k != "status"}
    return compile_schema({**raw, "properties": properties})


@cache
def status_schema(kind: str) -> Schema | None:
    """The schema of a kind's status; None where it has none. Raises: UnknownKind."""
    raw = kinds.open_api_schema(kind)["properties"].get("status")
    return compile_schema(raw) if raw else None


def _translate(schema: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI v3 as a CRD has it -> the JSON schema that our validator understands."""
    result: dict[str, Any] = {}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    result |= {key: schema[key] for key in _COPIED if key in schema}
    if result.pop("exclusiveMinimum", False):  # OpenAPI's is a flag, JSON schema's a number
        result["exclusiveMinimum"] = result.pop("minimum")
    properties = schema.get("properties")
    if properties:
        result["properties"] = {
            name: _METADATA if sub == _METADATA else _translate(sub)
            for name, sub in properties.items()
        }
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        result["additionalProperties"] = _translate(extra)
    elif properties or (schema.get("type") == "object" and not extra):
        result["unknownFields"] = {
            name: sub.get("description", "") for name, sub in (properties or {}).items()
        }
    if "items" in schema:
        result["items"] = _translate(schema["items"])
    list_type = schema.get("x-kubernetes-list-type")
    if list_type in ("map", "set"):
        result["distinct"] = schema.get("x-kubernetes-list-map-keys", [])
    result["description"] = schema.get("description", "")
    return result


def to_python_pattern(pattern: str) -> re.Pattern[str]:
    """Compile an RE2 pattern: ``$`` matches at the very end only, classes are ASCII."""
    translated, in_class, i = "", False, 0
    while i < len(pattern):
        char = pattern[i]
        if char == "\\":
            translated += pattern[i : i + 2]
            i += 2
            continue
        in_class = char == "[" or (in_class and char != "]")
        translated += r"\Z" if char == "$" and not in_class else char
        i += 1
    return re.compile(translated, re.ASCII)


_compiled = cache(to_python_pattern)


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import create

    def pattern(_: Any, value: str, instance: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not _compiled(value).search(instance):
            yield ValidationError("pattern")

    def formatted(_: Any, value: str, instance: Any, __: Any) -> Iterator[ValidationError]:
        if value == "date-time" and isinstance(instance, str) and not _is_time(instance):
            yield ValidationError("format")

    def unknown(
        _: Any, known: Mapping[str, str], instance: Any, __: Any
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict) and not known.keys() >= instance.keys():
            yield ValidationError("unknown")

    def distinct(_: Any, keys: list[str], instance: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(instance, list) and len(instance) > 1 and _repeated(keys, instance):
            yield ValidationError("distinct")

    standard = Draft202012Validator.VALIDATORS
    used = {key: standard[key] for key in (*_COPIED, "properties", "additionalProperties", "items")}
    used |= {
        "pattern": pattern,
        "format": formatted,
        "unknownFields": unknown,
        "distinct": distinct,
    }
    return create(
        meta_schema={"$id": "urn:codeswarm:structural-schema"},
        validators=used,
        type_checker=Draft202012Validator.TYPE_CHECKER,
    )


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def _repeated(keys: list[str], items: list[Any]) -> bool:
    seen = set()
    for item in items:
        key = identity(keys, item)
        if key in seen:
            return True
        seen.add(key)
    return False


def identity(keys: list[str], item: Any) -> str:
    """What must be distinct about a list's item: its keys, or all of it."""
    if keys and isinstance(item, dict):
        return repr([item.get(key) for key in keys])
    return repr(item)
