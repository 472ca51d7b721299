"""An agent's question as its worker tells it, made fit for an Approval; and its possible answers.

What a worker tells may be cut, odd or forged by its agent: here it becomes what the CRD allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DECISIONS = ("approve", "approve-session", "approve-always", "deny", "cancel")
REFUSALS = ("deny", "cancel")
KINDS = ("command", "file-change", "tool")
_TEXTS = {
    "command": ("command", 16_384),
    "tool": ("tool", 256),
    "arguments_digest": ("argumentsDigest", 128),
    "cwd": ("directory", 4096),
    "reason": ("reason", 4096),
    "diff": ("diff", 131_072),
}
"""By field of the record: the field of ``spec.request`` and its limit, characters."""
_MAX_PATHS, _MAX_AMENDMENTS, _MAX_ITEM = 200, 20, 4096
_MAX_LIST = 65_536
"""Characters of a list altogether, so that an object stays far below what can be stored."""
_JUDGED = ("command", "tool", "paths")
"""What rules look at."""


def question(told: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Approval.spec.request`` that come from ``exec_approval_required``.

    What fills its field may have been cut by the worker already, so it counts as cut.
    """
    asked: dict[str, Any] = {}
    cut = set()
    for name, (field, limit) in _TEXTS.items():
        value = told.get(name)
        if isinstance(value, str) and value:
            asked[field] = _clean(value[:limit])
            if len(value) >= limit:
                cut.add(field)
    for field, most in (("paths", _MAX_PATHS), ("amendments", _MAX_AMENDMENTS)):
        given = told.get(field)
        items = _items(given if isinstance(given, list) else (), most)
        if items:
            asked[field] = items
        if isinstance(given, list) and (len(given) >= most or items != given):
            cut.add(field)
    kind = told.get("kind") or ("command" if "command" in asked else "tool")
    asked["kind"] = kind if kind in KINDS else "tool"
    asked["decisions"] = _offered(told.get("decisions"))
    if cut.intersection((*_JUDGED, "diff")):
        asked["truncated"] = True
    return asked


def _items(given: Iterable[Any], most: int) -> list[str]:
    items: list[str] = []
    room = _MAX_LIST
    for value in given:
        text = _clean(value[:_MAX_ITEM]) if isinstance(value, str) else ""
        room -= len(text)
        if len(items) >= most or room < 0:
            break
        if text:
            items.append(text)
    return items


def _offered(given: Any) -> list[str]:
    """The decisions offered: known ones, and always one that refuses."""
    names = given if isinstance(given, list) else ["approve", "deny"]
    offered = [decision for decision in DECISIONS if decision in names]
    if not set(offered) & set(REFUSALS):
        offered.append("deny")
    return offered


def _clean(text: str) -> str:
    """Text that can be stored: half a surrogate pair cannot."""
    return text.encode("utf-8", "replace").decode()


def fitting(decision: str, offered: Sequence[str]) -> str | None:
    """What stands for ``approve`` or ``deny`` among the decisions offered.

    Nothing stands for an approval that is not offered, since another one would say more.
    """
    if decision in offered:
        return decision
    if decision in REFUSALS:
        return next((refusal for refusal in REFUSALS if refusal in offered), None)
    return None


def default_answer(decision: str, offered: Sequence[str]) -> str:
    """What a deadline answers: an approval that is not offered becomes a refusal."""
    return fitting(decision, offered) or fitting("deny", offered) or "deny"
