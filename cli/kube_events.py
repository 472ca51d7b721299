"""Kubernetes Events of Codeswarm's objects, as the store's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from controller.resources import kinds
from controller.store.base import Event, Key
from controller.store.kube_rest import CHUNK, path_of

if TYPE_CHECKING:
    from cli.kube_server import Server


def read(server: Server, key: Key | None, namespace: str | None, *, uid: str = "") -> list[Event]:
    """Events of one object (with ``uid``: of no other of its name), of a namespace, or of all;
    oldest first.

    Raises: Forbidden, StoreUnavailable.
    """
    selector = ""
    if key is not None:
        namespace = key.namespace
        selector = f"involvedObject.kind={key.kind},involvedObject.name={key.name}"
        selector += f",involvedObject.uid={uid}" if uid else ""
    found = [
        event
        for raw in _pages(server, path_of("Event", namespace), selector)
        if (event := _event(raw)) is not None and key in (None, event.key)
    ]
    return sorted(found, key=lambda event: event.last)


def _pages(server: Server, path: str, selector: str) -> Iterator[Mapping[str, Any]]:
    token = ""
    while True:
        query = [("limit", str(CHUNK))]
        query += [("fieldSelector", selector)] if selector else []
        query += [("continue", token)] if token else []
        page = server.request("GET", path, query=query)
        yield from page.get("items") or ()
        token = (page.get("metadata") or {}).get("continue") or ""
        if not token:
            return


def _event(raw: Mapping[str, Any]) -> Event | None:
    """One event; None if it is about something else, such as another group's ``Task``."""
    about = raw.get("involvedObject") or {}
    known = {kind.kind: kind.api_version for kind in kinds.kinds()}
    kind, version = about.get("kind"), about.get("apiVersion")
    if kind not in known or version not in (known[kind], None):
        return None
    # The newer API leaves out count and last time, and counts in a series.
    series = raw.get("series") or {}
    made = raw.get("eventTime") or (raw.get("metadata") or {}).get("creationTimestamp") or ""
    first = raw.get("firstTimestamp") or made
    return Event(
        Key(kind, about.get("namespace") or "default", about.get("name") or ""),
        raw.get("type") or "Normal",
        raw.get("reason") or "",
        raw.get("message") or "",
        first,
        raw.get("lastTimestamp") or series.get("lastObservedTime") or first,
        int(raw.get("count") or series.get("count") or 1),
    )
