"""When an object has come to rest, and whether well: for ``--wait``, ``--follow`` and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.resources.conditions import find, is_true

if TYPE_CHECKING:
    from controller.store.base import Resource

WAITABLE = ("Swarm", "Project", "Task")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    good: bool
    text: str


def current(obj: Resource) -> bool:
    """Whether the status was made from the present spec."""
    generation = obj["metadata"].get("generation", 1)
    return int((obj.get("status") or {}).get("observedGeneration") or 0) >= int(generation)


def of(obj: Resource) -> Outcome | None:
    """The outcome of a Swarm (Ready), a Project or a Task (Complete); None while it is open."""
    status = obj.get("status") or {}
    if not current(obj):
        return None
    conditions = status.get("conditions") or []
    if obj["kind"] == "Swarm":
        return _swarm(status, conditions)
    return _work(obj, status, conditions)


def _work(
    obj: Resource, status: Mapping[str, Any], conditions: list[dict[str, Any]]
) -> Outcome | None:
    if is_true(conditions, "Complete"):
        return Outcome(True, "complete")
    for type_ in ("Failed", "Stalled"):
        if is_true(conditions, type_):
            return Outcome(False, _because("failed", find(conditions, type_)))
    if status.get("phase") == "Attention":
        return Outcome(False, _because("needs attention", find(conditions, "NeedsAttention")))
    if status.get("phase") == "Cancelled":
        return Outcome(False, "cancelled")
    if obj["spec"].get("suspend") and obj["kind"] == "Project":
        return Outcome(True, "suspended")
    return None


def _swarm(status: Mapping[str, Any], conditions: list[dict[str, Any]]) -> Outcome | None:
    if is_true(conditions, "Ready"):
        return Outcome(True, "ready")
    if status.get("phase") == "Failed":
        return Outcome(False, _because("failed", find(conditions, "Ready")))
    accepted = find(conditions, "Accepted")
    if accepted is not None and accepted["status"] == "False":
        return Outcome(False, _because("not accepted", accepted))
    return None


def _because(word: str, condition: Mapping[str, Any] | None) -> str:
    if condition is None:
        return word
    parts = [condition.get("reason") or "", condition.get("message") or ""]
    return ": ".join([word, *(part for part in parts if part)])
