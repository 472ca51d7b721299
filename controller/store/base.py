"""The port to desired and observed state: what both homes' stores promise.

Objects are plain dicts of the Kubernetes shape (``apiVersion``, ``kind``, ``metadata``,
``spec``, ``status``).  Reads are synchronous and never yield, so that "look and decide" is
atomic inside the event loop (SQLite reads rows; the Kubernetes store reads its watch cache).
Writes are awaited: when one returns, it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from controller.resources.texts import Denied

Resource = dict[str, Any]


class Key(NamedTuple):
    """Identity of an object by name, e.g. ``Key("Task", "default", "greeter.library")``."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


def key_of(obj: Mapping[str, Any]) -> Key:
    """The key of a resource; a missing namespace is ``default``."""
    meta = obj["metadata"]
    return Key(obj["kind"], meta.get("namespace") or "default", meta["name"])


class StoreError(Exception):
    """Base of what a store raises; its text is fit for people."""


class NotFound(StoreError):
    """No such object (or it has another uid than the one asked for)."""


class AlreadyExists(StoreError):
    """``create`` of a name that is taken."""


class Conflict(StoreError):
    """The object changed since it was read: read again and decide again."""


class Forbidden(StoreError, Denied):
    """No right to read or write this."""


class StoreUnavailable(StoreError):
    """The state cannot be read or written now (disk full, read-only, newer version, ...)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is now different. ``deleted`` carries its last known uid."""

    key: Key
    uid: str
    deleted: bool = False
    version: str = field(default="", compare=False)
    """The resourceVersion that the object has now."""


@dataclass(frozen=True, slots=True)
class Event:
    """A transition worth telling a person, as a Kubernetes Event.

    ``count``, ``first`` and ``last`` (RFC 3339) fold repetitions of the same reason and message.
    """

    key: Key
    type: str  # Normal | Warning
    reason: str  # CamelCase
    message: str
    first: str
    last: str
    count: int = 1


def is_newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is later than another one of the same kind."""
    if version.isdigit() and than.isdigit():
        return int(version) > int(than)
    return version != than


Events = list[Event]
"""For signatures in classes that have a method called ``list``."""


class Reader(Protocol):
    """Synchronous reads, always of committed state."""

    def get(self, key: Key) -> Resource | None:
        """The object, or None. The caller owns the dict and may change it."""
        ...

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        owner_uid: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Resource]:
        """All of a kind (in one namespace, or all), by namespace and name."""
        ...


class Store(Reader, Protocol):
    """Reads and awaited writes, as the controller needs them."""

    async def create(self, obj: Resource) -> Resource:
        """Store a new object; returns it with uid, resourceVersion, generation 1, timestamps.

        Raises: AlreadyExists.
        """
        ...

    async def update(self, obj: Resource) -> Resource:
        """Replace metadata and spec (status is ignored).

        ``metadata.resourceVersion`` must be the stored one. Generation rises when spec changed.
        An object that is being deleted and has lost its last finalizer is removed.

        Raises: NotFound, Conflict.
        """
        ...

    async def update_status(self, obj: Resource) -> Resource:
        """Replace status only. ``metadata.resourceVersion`` must be the stored one.

        Raises: NotFound, Conflict.
        """
        ...

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete: at once without finalizers, else by setting ``deletionTimestamp``.

        Objects owned through ``ownerReferences`` follow when the owner is really gone.

        Raises: NotFound (also when ``uid`` is given and differs).
        """
        ...

    def record_event(self, key: Key, type: str, reason: str, message: str) -> None:
        """Note an event; written with the next commit, never awaited, never fatal."""
        ...

    def subscribe(self, callback: Callable[[Iterable[Change]], None]) -> None:
        """Call back in the event loop for every change, own writes included."""
        ...
