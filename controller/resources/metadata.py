"""``metadata`` as the API server takes it: names, labels, annotations, owners, finalizers.

See https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from controller.resources.errors import FieldError, did_you_mean, join, listed
from controller.resources.messages import type_name

MAX_ANNOTATIONS_BYTES = 256 * 1024
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_VERSION = re.compile(r"([^/]+/)?[^/]+")
_OWNER_TEXTS = ("apiVersion", "kind", "name", "uid")
_OWNER_FLAGS = ("controller", "blockOwnerDeletion")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


def metadata_errors(metadata: Any) -> Iterator[FieldError]:
    """All that is wrong with an object's metadata."""
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        yield FieldError("metadata", f"must be an object, not {type_name(metadata)}")
        return
    if metadata.get("name") is None:
        hint = "generateName is not supported" if "generateName" in metadata else ""
        yield FieldError("metadata.name", "is required", hint)
    for name, value in metadata.items():
        check = _CHECKS.get(name)
        path = join("metadata", str(name))
        if check is None:
            hint = did_you_mean(name, _CHECKS) or f"known here: {listed(_CHECKS)}"
            yield FieldError(path, "unknown field", hint)
        elif value is not None:
            yield from check(path, value)


def is_subdomain(name: str) -> bool:
    """Whether a name is a DNS-1123 subdomain of at most 253 characters."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def _name(path: str, value: Any) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(path, f"must be a string, not {type_name(value)}", "write it in quotes")
    elif len(value) > 253:
        yield FieldError(path, f"must have at most 253 characters, not {len(value)}")
    elif not _SUBDOMAIN.fullmatch(value):
        words = "lower-case letters, digits, inner dashes and dots only"
        better = re.sub(r"[^-a-z0-9.]+", "-", value.lower()).strip("-.")
        hint = f'such as "{better}"' if is_subdomain(better) else ""
        yield FieldError(path, f'"{value}" is not valid: {words}', hint)


def _namespace(path: str, value: Any) -> Iterator[FieldError]:
    if not isinstance(value, str):
        yield FieldError(path, f"must be a string, not {type_name(value)}")
    elif value and (len(value) > 63 or not _LABEL.fullmatch(value)):
        words = "at most 63 lower-case letters, digits and inner dashes"
        yield FieldError(path, f'"{value}" is not valid: {words}')


def _qualified_error(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_subdomain(prefix):
        return "the part before the slash must be a DNS name"
    if len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return (
            'at most 63 letters, digits, "-", "_" and ".", beginning and ending with the first two'
        )
    return ""


def _strings(path: str, value: Any, *, any_case: bool = False) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(path, f"must be an object, not {type_name(value)}")
        return
    for key, item in value.items():
        where = f"{path}[{key}]"
        if not isinstance(key, str):
            yield FieldError(where, "the key must be a string", "write it in quotes")
        elif problem := _qualified_error(key.lower() if any_case else key):
            yield FieldError(where, f"the key is not valid: {problem}")
        if not isinstance(item, str | None):
            message = f"must be a string, not {type_name(item)}"
            yield FieldError(where, message, "write it in quotes")


def _labels(path: str, value: Any) -> Iterator[FieldError]:
    errors = list(_strings(path, value))
    yield from errors
    if errors:
        return
    for key, item in value.items():
        if item is not None and (len(item) > 63 or not _LABEL_VALUE.fullmatch(item)):
            words = 'at most 63 letters, digits, "-", "_" and "."'
            yield FieldError(f"{path}[{key}]", f'"{item}" is not valid: {words}')


def _annotations(path: str, value: Any) -> Iterator[FieldError]:
    errors = list(_strings(path, value, any_case=True))
    yield from errors
    if not errors:
        size = sum(len(k.encode()) + len((v or "").encode()) for k, v in value.items())
        if size > MAX_ANNOTATIONS_BYTES:
            limit = MAX_ANNOTATIONS_BYTES
            yield FieldError(path, f"must have at most {limit} bytes altogether, not {size}")


def _finalizers(path: str, value: Any) -> Iterator[FieldError]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        yield FieldError(path, "must be a list of strings")
        return
    for index, item in enumerate(value):
        if problem := _qualified_error(item):
            yield FieldError(join(path, index), f'"{item}" is not valid: {problem}')


def _owners(path: str, value: Any) -> Iterator[FieldError]:
    if not isinstance(value, list):
        yield FieldError(path, f"must be a list, not {type_name(value)}")
        return
    for index, owner in enumerate(value):
        where = join(path, index)
        if isinstance(owner, dict):
            yield from _owner(where, owner)
        else:
            yield FieldError(where, f"must be an object, not {type_name(owner)}")
    if sum(isinstance(owner, dict) and owner.get("controller") is True for owner in value) > 1:
        yield FieldError(path, "only one owner can be the controller")


def _owner(where: str, owner: Mapping[str, Any]) -> Iterator[FieldError]:
    for name in owner:
        if name not in (*_OWNER_TEXTS, *_OWNER_FLAGS):
            yield FieldError(join(where, str(name)), "unknown field")
    for name in _OWNER_TEXTS:
        if not isinstance(owner.get(name), str) or not owner[name]:
            yield FieldError(join(where, name), "must be a string")
    for name in _OWNER_FLAGS:
        if not isinstance(owner.get(name), bool | None):
            yield FieldError(join(where, name), "must be true or false")
    if not _VERSION.fullmatch(str(owner.get("apiVersion"))):
        yield FieldError(join(where, "apiVersion"), "must be a version, or group/version")
    if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
        yield FieldError(join(where, "kind"), "an Event cannot own anything")


def _time(path: str, value: Any) -> Iterator[FieldError]:
    yield from _string(path, value)
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            yield FieldError(path, f'"{value}" is not a time', "such as 2026-01-31T12:00:00Z")


def _typed(words: str, *types: type) -> Callable[[str, Any], Iterator[FieldError]]:
    def check(path: str, value: Any) -> Iterator[FieldError]:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield FieldError(path, f"must be {words}, not {type_name(value)}")

    return check


_string = _typed("a string", str)
_integer = _typed("an integer", int)
_CHECKS: Mapping[str, Callable[[str, Any], Iterator[FieldError]]] = MappingProxyType(
    {
        "name": _name,
        "namespace": _namespace,
        "labels": _labels,
        "annotations": _annotations,
        "generateName": _string,
        "uid": _string,
        "resourceVersion": _string,
        "generation": _integer,
        "creationTimestamp": _time,
        "deletionTimestamp": _time,
        "deletionGracePeriodSeconds": _integer,
        "finalizers": _finalizers,
        "ownerReferences": _owners,
        "managedFields": _typed("a list", list),
        "selfLink": _string,
    }
)
