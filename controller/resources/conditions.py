"""Conditions: what is true of an object now, why, and since when.

The rules are those of the Kubernetes API conventions: one condition of each type, a reason
always set, ``lastTransitionTime`` moved only when the status flips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

OWNED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Swarm": (
            "Accepted",
            "ProviderReachable",
            "Available",
            "RolledOut",
            "QuotaAvailable",
            "WithinBudget",
            "Ready",
        ),
        "Project": (
            "Accepted",
            "Planned",
            "Integrated",
            "UpToDate",
            "WithinBudget",
            "NeedsAttention",
            "Complete",
            "Failed",
            "Stalled",
        ),
        "Task": ("Accepted", "Assignable", "Running", "BranchDurable", "Complete", "Failed"),
        "Approval": ("Decided", "Delivered"),
    }
)
"""The condition types that the controller sets on each kind, in the order that they are shown."""

STATUSES = ("True", "False", "Unknown")
_MESSAGE_LIMIT = 4096


def set_condition(
    conditions: Sequence[Mapping[str, Any]],
    type: str,
    status: str,
    reason: str,
    message: str,
    *,
    generation: int,
    now: str,
) -> list[dict[str, Any]]:
    """The conditions with one of them set; the others, and the order, stay.

    Args:
        status: ``True``, ``False`` or ``Unknown``.
        reason: one CamelCase word, never empty.
        generation: ``metadata.generation`` that this was judged from.
        now: RFC 3339; becomes ``lastTransitionTime`` if the status differs from before.

    Raises: ValueError (a status that is none, an empty reason).
    """
    if status not in STATUSES:
        raise ValueError(f"condition {type}: status {status!r} is none of {', '.join(STATUSES)}")
    if not reason:
        raise ValueError(f"condition {type}: a reason must be given")
    old = find(conditions, type)
    flipped = old is None or old.get("status") != status
    new = {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_LIMIT],
        "observedGeneration": generation,
        "lastTransitionTime": now if flipped or old is None else old["lastTransitionTime"],
    }
    result = [new if c["type"] == type else dict(c) for c in conditions]
    return result if old is not None else [*result, new]


def find(conditions: Iterable[Mapping[str, Any]], type: str) -> Mapping[str, Any] | None:
    """The condition of a type, or None."""
    for condition in conditions:
        if condition["type"] == type:
            return condition
    return None


def is_true(conditions: Iterable[Mapping[str, Any]], type: str) -> bool:
    """Whether a condition is there and its status is ``True``."""
    condition = find(conditions, type)
    return condition is not None and condition["status"] == "True"


def initial_conditions(kind: str, *, generation: int, now: str) -> list[dict[str, Any]]:
    """All owned conditions of a kind as ``Unknown``, for an object's first visit."""
    result: list[dict[str, Any]] = []
    for type in OWNED.get(kind, ()):
        result = set_condition(
            result, type, "Unknown", "NotSeen", "", generation=generation, now=now
        )
    return result
