"""What a server refuses, field by field, as admission tells it in the file home."""

from __future__ import annotations

import re

from controller.resources.errors import FieldError, Invalid
from controller.store.base import Key, NotFound, StoreError
from controller.store.kube_rest import Rejected

_UNKNOWN = re.compile(r'(unknown|duplicate) field "([^"]+)"')
_NO_PATH = ("", "<nil>")
_NOT_CHECKED = "some validation rules were not checked"
"""What the server adds to other faults."""


def explained(key: Key, error: StoreError) -> Invalid:
    """The faults of the object that a server refused."""
    return Invalid(key.kind, key.name, _faults(key, error))


def _faults(key: Key, error: StoreError) -> list[FieldError]:
    message = str(error)
    if isinstance(error, NotFound) and message.startswith("namespaces "):
        hint = f"kubectl create namespace {key.namespace}"
        text = f'there is no namespace "{key.namespace}"'
        return [FieldError("metadata.namespace", text, hint)]
    if isinstance(error, Rejected) and error.causes:
        found = [cause for cause in error.causes if _NOT_CHECKED not in cause.message]
        return [
            FieldError("" if cause.field in _NO_PATH else cause.field, cause.message or message)
            for cause in found or error.causes
        ]
    if isinstance(error, Rejected) and (fields := _UNKNOWN.findall(message)):
        return [FieldError(path, f"{word} field") for word, path in fields]
    return [FieldError("", message)]
