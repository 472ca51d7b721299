"""What is known and said of a Swarm while it is being deleted: its status, and what a person asks.

That a provider's machines are let go of is decided once, and written before it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.reconcile.clock import seconds_of
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.swarm_status import FINALIZER
from controller.store.base import Key, Resource
from providers.base import InProgress, Provider

FORCE_ANNOTATION = "codeswarm.dev/force"
ABANDON_ANNOTATION = "codeswarm.dev/abandon"
MAX_MESSAGE = 1024
ROWS = 20
"""Workers or machines named in a message."""
PATIENCE_SECONDS = 600.0
"""So long, or the grace period if that is longer, machines that cost wait for contact, and for
work to be brought home."""


def is_forced(obj: Resource) -> bool:
    """Whether a person has asked for the end at once (``--force``)."""
    return FORCE_ANNOTATION in (obj["metadata"].get("annotations") or {})


def is_abandoned(obj: Resource) -> bool:
    """Whether a person lets go of what cannot be reached (``--abandon``)."""
    return ABANDON_ANNOTATION in (obj["metadata"].get("annotations") or {})


def grace_of(spec: Mapping[str, Any]) -> float:
    """How long turns may go on, seconds."""
    return float((spec.get("termination") or {}).get("gracePeriodSeconds", 45))


def patience_of(spec: Mapping[str, Any]) -> float:
    """How long machines that cost wait for what may come yet, seconds."""
    return max(grace_of(spec), PATIENCE_SECONDS)


def since_of(obj: Resource) -> float:
    """When the end was begun; seconds since the epoch."""
    return seconds_of((obj.get("status") or {}).get("terminatingSince")) or 0.0


def is_letting_go(obj: Resource) -> bool:
    """Whether it is decided that its machines go, whatever they hold."""
    return bool((obj.get("status") or {}).get("letGo"))


def let_go_since(obj: Resource) -> float:
    """When that was decided; seconds since the epoch, 0.0: it is not."""
    return seconds_of(((obj.get("status") or {}).get("letGo") or {}).get("since")) or 0.0


def keeps_volume(obj: Resource) -> bool:
    """Whether the volume of a swarm that is let go of is kept, whatever the manifest says."""
    return bool(((obj.get("status") or {}).get("letGo") or {}).get("keepVolume"))


def lacks_archive(obj: Resource, spec: Mapping[str, Any]) -> bool:
    """Whether an archive was asked for, and there is none yet of what was ever there."""
    status = obj.get("status") or {}
    asked = (spec.get("termination") or {}).get("archive")
    return bool(asked and not status.get("archivePath") and status.get("incarnations"))


class EndStatus:
    """Writes it."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def mark(self, obj: Resource) -> Resource:
        """Say that the end has begun, once."""
        status = dict(obj.get("status") or {})
        if status.get("phase") == "Terminating":
            return obj
        writer = ConditionWriter(obj, self._ctx.now())
        for type in ("Available", "Ready"):
            writer.set(type, False, "Terminating", "the swarm is being deleted")
        status.update(
            phase="Terminating",
            reason="Terminating",
            terminatingSince=self._ctx.now(),
            conditions=writer.conditions,
            observedGeneration=obj["metadata"]["generation"],
        )
        self._ctx.event(obj, "Terminating", "draining the workers")
        return await self._ctx.write_status(obj, status)

    async def reached(
        self, obj: Resource, provider: Provider, parameters: Mapping[str, Any] | None
    ) -> None:
        """Say that there is contact (again), and by which way."""
        status = dict(obj.get("status") or {})
        writer = ConditionWriter(obj, self._ctx.now())
        if _answers(writer):
            status.update(conditions=writer.conditions, reason="Terminating")
        if status.get("effective"):
            way = {provider.name: dict(parameters or {})}
            status["effective"] = {**status["effective"], "provider": way}
        obj.update(await self._ctx.write_status(obj, status))

    async def say(self, obj: Resource, condition: str, reason: str, message: str) -> None:
        """Say what the end waits for; ``reason`` is the swarm's too."""
        writer = ConditionWriter(obj, self._ctx.now())
        writer.set(condition, False, reason, message)
        await self._told(obj, writer, reason)

    async def under_way(self, obj: Resource, error: InProgress) -> None:
        """Say what is going on: nothing is wrong, and the provider answers."""
        writer = ConditionWriter(obj, self._ctx.now())
        _answers(writer)
        writer.set("Ready", False, error.reason, str(error))
        await self._told(obj, writer, error.reason)

    async def _told(self, obj: Resource, writer: ConditionWriter, reason: str) -> None:
        status = dict(obj.get("status") or {})
        status["conditions"], status["reason"] = writer.conditions, reason
        obj.update(await self._ctx.write_status(obj, status))

    async def let_go(self, obj: Resource, *, keep_volume: bool, why: str = "") -> None:
        """Decide that the machines go, and whether their volume does as the manifest says.

        What is decided stays; a volume that is kept against the manifest is told of.
        """
        if is_letting_go(obj):
            return
        told: dict[str, Any] = {"since": self._ctx.now(), "keepVolume": keep_volume}
        if why:
            told["message"] = why[:MAX_MESSAGE]
        status = {**(obj.get("status") or {}), "letGo": told}
        obj.update(await self._ctx.write_status(obj, status))
        if keep_volume:
            text = f"the machines go, the volume is kept: {why}"
            self._ctx.event(obj, "VolumeKept", text, warning=True)

    async def release(self, obj: Resource, *, told: bool = False) -> None:
        """Let the object go."""
        meta = obj["metadata"]
        current = self._ctx.store.get(Key("Swarm", meta["namespace"], meta["name"]))
        if current is None or current["metadata"]["uid"] != meta["uid"]:
            return
        current["metadata"]["finalizers"] = [
            f for f in current["metadata"].get("finalizers") or () if f != FINALIZER
        ]
        if not told:
            self._ctx.event(obj, "Terminated", "every worker is gone")
        await self._ctx.store.update(current)


def _answers(writer: ConditionWriter) -> bool:
    """Take back that the provider cannot be reached; whether that was said."""
    if writer.status_of("ProviderReachable")[0] != "False":
        return False
    writer.set("ProviderReachable", True, "Reachable")
    return True


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - ROWS} more" if len(names) > ROWS else ""
    return ", ".join(names[:ROWS]) + more


def tasks_have(number: int) -> str:
    """``1 task has``, ``2 tasks have``."""
    return f"{number} {'task has' if number == 1 else 'tasks have'}"
