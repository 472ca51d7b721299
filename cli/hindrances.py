"""What holds an object up until somebody does something, read off its status.

What passes by itself (a worker that is busy, a dependency at work, a backoff) is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import outcomes
from controller.resources.conditions import find

if TYPE_CHECKING:
    from controller.store.base import Resource

LASTING = frozenset(
    {
        "BudgetExceeded",
        "DependencyCycle",
        "DependencyNotFound",
        "ProjectNotFound",
        "SwarmNotFound",
        "Unpriced",
        "WorkerNotFound",
    }
)
"""Reasons of a task's ``Assignable`` that do not pass by themselves and are no other object's."""
COMING = frozenset(
    {"Launching", "LaunchDelayed", "LaunchFailed", "Terminating", "WorkerLimit", "NotAccepted"}
)
"""Reasons of a swarm's ``Available`` that say no more than its phase, or pass by themselves."""
ENDED = frozenset({"Succeeded", "Completed", "Failed", "Cancelled"})


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why an object does not go on."""

    reason: str
    message: str
    refused: bool = False
    """Whether the object is not accepted."""

    @property
    def cause(self) -> str:
        """Reason and message."""
        return f"{self.reason}: {self.message}" if self.message else self.reason

    @property
    def text(self) -> str:
        """As the end of a sentence that begins with the object's name."""
        return f"{'not accepted' if self.refused else 'waits'}: {self.cause}"


def of(obj: Resource) -> Hindrance | None:
    """The first thing that holds the object up; None also where its status is not of its spec."""
    status = obj.get("status") or {}
    over = "deletionTimestamp" in obj["metadata"] or status.get("phase") in ENDED
    if over or not outcomes.current(obj):
        return None
    conditions = status.get("conditions") or []
    accepted = find(conditions, "Accepted")
    if accepted is not None and accepted["status"] != "True":
        return _from(accepted, refused=accepted["status"] == "False")
    if any(worker.get("phase") == "Lost" for worker in status.get("workers") or ()):
        unusable = find(conditions, "Available")
        if unusable is not None and unusable["status"] == "False":
            return _from(unusable)
    if obj["kind"] == "Swarm":
        lacking = _lacking(conditions, str(status.get("progress") or ""))
        if lacking is not None:
            return lacking
    types = ("Assignable",) if obj["kind"] == "Task" else ("WithinBudget", "QuotaAvailable")
    for held in (find(conditions, type_) for type_ in types):
        if held is not None and held["status"] == "False":
            passing = obj["kind"] == "Task" and held["reason"] not in LASTING
            return None if passing else _from(held)
    attention = find(conditions, "NeedsAttention")
    return _from(attention) if attention is not None and attention["status"] == "True" else None


def _lacking(conditions: list[Mapping[str, Any]], progress: str) -> Hindrance | None:
    """What keeps a swarm from having workers, or from their being heard.

    Args:
        conditions: the swarm's.
        progress: what is under way (``status.progress``), which is none.
    """
    contact = find(conditions, "ProviderReachable")
    if contact is not None and contact["status"] == "False":
        return _from(contact)
    available = find(conditions, "Available")
    if available is None or available["status"] != "False" or available["reason"] in COMING:
        return None
    if progress.startswith(f"{available['reason']}:"):
        return None
    return _from(available)


def _from(condition: Mapping[str, Any], *, refused: bool = False) -> Hindrance:
    return Hindrance(condition.get("reason") or "", condition.get("message") or "", refused)
