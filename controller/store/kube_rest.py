"""The Kubernetes API as paths and answers, for every client of it: no connection is made here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from controller.resources import kinds
from controller.store.base import (
    AlreadyExists,
    Conflict,
    Forbidden,
    NotFound,
    StoreError,
    StoreUnavailable,
)

CHUNK = 500
"""Objects in one page of a list."""
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
BUSY = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses that pass."""

_PATHS = {
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Event": ("api/v1", "events"),
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that the server says is wrong with an object."""

    field: str
    """Such as ``spec.tasks[2].name``; may be empty."""
    message: str


class Expired(StoreUnavailable):
    """The version to go on from is too old: everything is to be read again."""


class NotServed(StoreUnavailable):
    """The server does not know the kind (now): nothing follows for its objects."""


class Rejected(StoreError):
    """The server does not take the request as it is."""

    def __init__(self, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.causes = causes


def path_of(kind: str, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """The path of a kind's objects, of one of them, or of a part of one.

    Args:
        kind: one of ours, a core kind, or ``Lease`` and ``Event``.
        namespace: None for all of them.
    """
    group, plural = _PATHS.get(kind) or _own(kind)
    parts = [group, *(["namespaces", namespace] if namespace else []), plural]
    parts += [part for part in (name, subresource) if part]
    return "/" + "/".join(quote(part, safe="/" if part is group else "") for part in parts)


def _own(kind: str) -> tuple[str, str]:
    found = kinds.get(kind)
    group = f"apis/{found.api_version}" if found.group else f"api/{found.api_version}"
    return group, found.plural


def refusal(status: int, answer: Mapping[str, Any]) -> StoreError:
    """What a refused request means to a store.

    Args:
        status: the HTTP status, 400 or above.
        answer: the ``Status`` object that came with it, or whatever came.
    """
    message = str(answer.get("message") or f"HTTP status {status}")
    reason = str(answer.get("reason") or "")
    if status == 404:
        details = answer.get("details")
        named = isinstance(details, Mapping) and details.get("name")
        return NotFound(message) if named else NotServed(message)
    if status == 409:
        return AlreadyExists(message) if reason == "AlreadyExists" else Conflict(message)
    if status == 403:
        return Forbidden(message)
    if status == 410:
        return Expired(f"the API server refuses: {message}")
    if status in BUSY or status == 401:
        return StoreUnavailable(f"the API server refuses: {message}")
    return Rejected(message, _causes(answer))


def _causes(answer: Mapping[str, Any]) -> tuple[Cause, ...]:
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return tuple(
        Cause(str(cause.get("field") or ""), str(cause.get("message") or ""))
        for cause in causes or ()
        if isinstance(cause, Mapping)
    )
