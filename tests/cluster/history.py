"""Every version of every object in a namespace, as a watch tells them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from controller.store.kube_rest import path_of
from tests.kube import Cluster

SECONDS = 2
"""A watch is begun anew so often: then its end can be asked for."""


@dataclass
class Life:
    """One object from its first version to its last."""

    kind: str
    name: str
    versions: list[dict[str, Any]] = field(default_factory=list)
    deleted: bool = False

    @property
    def last(self) -> dict[str, Any]:
        """The newest version."""
        return self.versions[-1]

    def pairs(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each version with the one after it."""
        return zip(self.versions, self.versions[1:], strict=False)


class History:
    """Watches until it is closed.

    Args:
        kinds: of which objects.
    """

    def __init__(self, cluster: Cluster, namespace: str, kinds: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._stop = threading.Event()
        self._lives: dict[str, Life] = {}
        self._lock = threading.Lock()
        self.problems: list[str] = []
        self._threads = [threading.Thread(target=self._watch, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def lives(self, kind: str = "") -> list[Life]:
        """All objects (of a kind) so far."""
        with self._lock:
            found = list(self._lives.values())
        return [life for life in found if kind in ("", life.kind)]

    def life(self, kind: str, name: str) -> Life:
        """The last object of this name."""
        return [life for life in self.lives(kind) if life.name == name][-1]

    def _watch(self, kind: str) -> None:
        path = path_of(kind, self._namespace)
        version = self._cluster.request("GET", path)["metadata"]["resourceVersion"]
        while not self._stop.is_set():
            for told in self._cluster.watch(path, version, SECONDS):
                if told["type"] == "ERROR":
                    self.problems.append(f"{kind}: {told['object']}")
                    return
                self._take(kind, told)
                version = told["object"]["metadata"]["resourceVersion"]

    def _take(self, kind: str, told: dict[str, Any]) -> None:
        obj = told["object"]
        with self._lock:
            uid = obj["metadata"]["uid"]
            life = self._lives.setdefault(uid, Life(kind, obj["metadata"]["name"]))
            life.versions.append(obj)
            life.deleted = told["type"] == "DELETED"


def size(obj: dict[str, Any]) -> int:
    """Bytes of an object's status."""
    return len(json.dumps(obj.get("status") or {}, separators=(",", ":")).encode())
