"""What a deletion waits for, and what it has brought home: lines for who waits for its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from controller.resources.conditions import find

if TYPE_CHECKING:
    from controller.store.base import Resource

_PLAIN = frozenset({"", "Terminating", "Progressing"})


class Told:
    """What was said of swarms that are being deleted; each thing is said once.

    Args:
        say: takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: dict[str, tuple[str, str]] = {}
        self._archives: set[str] = set()
        self._volumes: set[str] = set()

    def tell(self, obj: Resource) -> None:
        """Say what is new of it."""
        status = obj.get("status") or {}
        if obj["kind"] != "Swarm" or "deletionTimestamp" not in obj["metadata"]:
            return
        name, uid = obj["metadata"]["name"], obj["metadata"]["uid"]
        archive = status.get("archivePath")
        if archive and uid not in self._archives:
            self._archives.add(uid)
            self._say(f"swarm/{name} archive: {archive}")
        ready = find(status.get("conditions") or [], "Ready") or {}
        told = (str(ready.get("reason") or ""), str(ready.get("message") or ""))
        if told[0] == "InstancesEnding" and uid not in self._volumes and _keeps_volume(status):
            self._volumes.add(uid)
            self._say(f"swarm/{name} its volume stays, and costs: see codeswarm doctor --aws")
        if told[0] not in _PLAIN and self._last.get(uid) != told:
            self._last[uid] = told
            self._say(f"swarm/{name} {told[0]}: {told[1]}")


def _keeps_volume(status: Mapping[str, Any]) -> bool:
    provider = (status.get("effective") or {}).get("provider") or {}
    volume = (provider.get("aws") or {}).get("volume") or {}
    return "aws" in provider and not volume.get("deleteOnTermination")
