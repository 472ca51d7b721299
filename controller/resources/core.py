"""Secrets and ConfigMaps as file mode takes them: the parts of ``v1`` that are used here.

See https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/.
"""

from __future__ import annotations

import base64
import binascii
import json
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
_BASIC_AUTH = "kubernetes.io/basic-auth"
_TOKEN = "kubernetes.io/service-account-token"
_ACCOUNT = "kubernetes.io/service-account.name"
_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kubernetes.io/tls": ("tls.crt", "tls.key"),
        "kubernetes.io/ssh-auth": ("ssh-privatekey",),
        "kubernetes.io/dockercfg": (".dockercfg",),
        "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    }
)
_JSON = frozenset({"kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"})
_MAPS = ("data", "stringData", "binaryData")


def prepare(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without nulls, a Secret's type set."""
    result = {k: v for k, v in obj.items() if v is not None}
    for field in _MAPS:
        if isinstance(result.get(field), dict):
            result[field] = {k: v for k, v in result[field].items() if v is not None}
    if obj.get("kind") == "Secret":
        result["type"] = result.get("type") or "Opaque"
    return result


def fold(obj: Mapping[str, Any]) -> dict[str, Any]:
    """A valid object with ``stringData`` folded into ``data``, as it is stored."""
    result = dict(obj)
    for field in ("binaryData", *(["data"] if obj["kind"] == "Secret" else [])):
        if field in result:
            result[field] = {k: _encode(_decode(v)) for k, v in result[field].items()}
    plain = result.pop("stringData", None)
    if plain:
        result["data"] = {
            **result.get("data", {}),
            **{k: _encode(v.encode()) for k, v in plain.items()},
        }
    return result


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


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
            size += _size(obj[field], encoded)
    if size > MAX_DATA_BYTES:
        yield FieldError("data", f"must have at most {MAX_DATA_BYTES} bytes altogether")
    if obj["kind"] == "ConfigMap":
        yield from _twice(obj)
    else:
        yield from _typed_errors(obj)


def _size(value: Any, encoded: bool) -> int:
    """Bytes of the values as they will be when they are used."""
    if not isinstance(value, dict):
        return 0
    texts = [item for item in value.values() if isinstance(item, str)]
    if not encoded:
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return sum(len(_decode(text)) for text in texts if _is_base64(text))


def _data_errors(field: str, value: Any, encoded: bool) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(field, f"must be an object, not {type_name(value)}")
        return
    for key, item in value.items():
        where = f"{field}[{key}]"
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            yield FieldError(where, 'the key is not valid: letters, digits, "-", "_" and "." only')
        elif key == "." or key.startswith(".."):
            yield FieldError(where, 'the key is not valid: it must not be "." or start with ".."')
        if not isinstance(item, str):
            # The value may be a secret: its type is told, it is not.
            yield FieldError(where, "must be a string", "write it in quotes")
        elif encoded and not _is_base64(item):
            hint = "write it under stringData as it is" if field == "data" else ""
            yield FieldError(where, "is not base64", hint)


def _is_base64(text: str) -> bool:
    try:
        _decode(text)
    except (binascii.Error, ValueError):
        return False
    return True


def _decode(text: str) -> bytes:
    return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)


def _typed_errors(obj: Mapping[str, Any]) -> Iterator[FieldError]:
    """What a Secret of a type of Kubernetes' own must have, as its API server wants it."""
    given: set[Any] = set()
    for field in ("data", "stringData"):
        given |= set(obj[field]) if isinstance(obj.get(field), dict) else set()
    type_ = obj["type"] if isinstance(obj["type"], str) else ""
    needed = _NEEDED.get(type_, ())
    if type_ == _BASIC_AUTH:
        needed = () if given & {"username", "password"} else ("username",)
    for key in needed:
        if key not in given:
            yield FieldError(f"data[{key}]", f"is required in a Secret of type {type_}")
    for key in needed if type_ in _JSON else ():
        if key in given and not _is_json(obj, key):
            yield FieldError(f"data[{key}]", "is not JSON")
    annotations = obj["metadata"].get("annotations") if isinstance(obj["metadata"], dict) else None
    if type_ == _TOKEN and not (isinstance(annotations, dict) and annotations.get(_ACCOUNT)):
        yield FieldError(f"metadata.annotations[{_ACCOUNT}]", f"is required for type {type_}")


def _is_json(obj: Mapping[str, Any], key: str) -> bool:
    plain = (obj.get("stringData") or {}).get(key)
    try:
        json.loads(plain if plain is not None else _decode(obj["data"][key]))
    except (ValueError, RecursionError, TypeError, AttributeError):
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
