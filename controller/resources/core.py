"""Secrets and ConfigMaps as file mode takes them: the parts of ``v1`` that are used here.

See https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from controller.resources.errors import FieldError, did_you_mean, listed
from controller.resources.messages import type_name

MAX_DATA_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_COMMON = ("apiVersion", "kind", "metadata", "immutable", "data")
_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"Secret": (*_COMMON, "stringData", "type"), "ConfigMap": (*_COMMON, "binaryData")}
)
_MAPS = ("data", "stringData", "binaryData")


def prepare(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without nulls, a Secret's type set."""
    result = {k: v for k, v in obj.items() if v is not None}
    for field in _MAPS:
        if isinstance(result.get(field), dict):
            result[field] = {k: v for k, v in result[field].items() if v is not None}
    if obj.get("kind") == "Secret":
        result.setdefault("type", "Opaque")
    return result


def fold(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A valid object with ``stringData`` folded into ``data``, as it is stored."""
    result = dict(obj)
    plain = result.pop("stringData", None)
    if plain:
        encoded = {k: base64.b64encode(v.encode()).decode("ascii") for k, v in plain.items()}
        result["data"] = {**result.get("data", {}), **encoded}
    return result


def errors(obj: Mapping[str, Any]) -> Iterator[FieldError]:
    """All that is wrong with a prepared object, its metadata apart."""
    known = _FIELDS[obj["kind"]]
    for name in obj:
        if name not in known:
            hint = did_you_mean(name, known) or f"known here: {listed(known)}"
            yield FieldError(str(name), "unknown field", hint)
    if not isinstance(obj.get("immutable", False), bool):
        yield FieldError("immutable", f"must be true or false, not {type_name(obj['immutable'])}")
    if not isinstance(obj.get("type", ""), str):
        yield FieldError("type", f"must be a string, not {type_name(obj['type'])}")
    size = 0
    for field in _MAPS:
        if field in obj:
            encoded = field == "binaryData" or (field == "data" and obj["kind"] == "Secret")
            yield from _data_errors(field, obj[field], encoded)
            size += _size(obj[field])
    if size > MAX_DATA_BYTES * 4 // 3:
        yield FieldError("data", f"must have at most {MAX_DATA_BYTES} bytes altogether")
    if obj["kind"] == "ConfigMap":
        yield from _twice(obj)


def _size(value: Any) -> int:
    if not isinstance(value, dict):
        return 0
    return sum(len(v.encode()) for v in value.values() if isinstance(v, str))


def _data_errors(field: str, value: Any, encoded: bool) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(field, f"must be an object, not {type_name(value)}")
        return
    for key, item in value.items():
        where = f"{field}[{key}]"
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key in (".", ".."):
            yield FieldError(where, 'the key is not valid: letters, digits, "-", "_" and "." only')
        if not isinstance(item, str):
            # The value may be a secret: its type is told, it is not.
            yield FieldError(where, "must be a string", "write it in quotes")
        elif encoded and not _is_base64(item):
            hint = "write it under stringData as it is" if field == "data" else ""
            yield FieldError(where, "is not base64", hint)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _twice(obj: Mapping[str, Any]) -> Iterator[FieldError]:
    data, binary = obj.get("data"), obj.get("binaryData")
    if isinstance(data, dict) and isinstance(binary, dict):
        for key in data.keys() & binary.keys():
            yield FieldError(f"binaryData[{key}]", "the key is in data as well")


def transition_errors(obj: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[FieldError]:
    """What may not change: the data of an immutable object, a Secret's type."""
    if old.get("immutable"):
        if not obj.get("immutable"):
            yield FieldError(
                "immutable", "cannot be taken back: delete the object and make it anew"
            )
        for field in ("data", "binaryData"):
            if (obj.get(field) or {}) != (old.get(field) or {}):
                yield FieldError(field, "cannot be changed, since immutable is set")
    if obj["kind"] == "Secret" and obj.get("type") != old.get("type", "Opaque"):
        yield FieldError("type", "cannot be changed")


def value_of(obj: Mapping[str, Any], key: str) -> bytes | None:
    """The value under a key of a stored Secret or ConfigMap; None if there is none."""
    text = (obj.get("data") or {}).get(key)
    if obj.get("kind") == "Secret":
        return None if text is None else base64.b64decode(text)
    if text is not None:
        return str(text).encode()
    binary = (obj.get("binaryData") or {}).get(key)
    return None if binary is None else base64.b64decode(binary)
