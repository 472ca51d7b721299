"""What happens, told once, as lines for people: workers ready, tasks done, merges, results.

Level-triggered: the milestones are read off the objects as they are, so that nothing is told
twice and nothing is missed that still stands in status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli import ages, style
from cli.table import cell
from controller.resources.conditions import find

if TYPE_CHECKING:
    from controller.store.base import Resource

Milestone = tuple[str, str, str]
"""Slot, text, tone: a text is told when it differs from the slot's last one."""


class Progress:
    """Tells milestones that it has not told."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[tuple[str, str], str] = {}

    def skip(self, objects: Iterable[Resource]) -> None:
        """Take what these have reached as told."""
        for obj in objects:
            for slot, text, _ in milestones(obj):
                self._told[obj["metadata"]["uid"], slot] = text

    def tell(self, obj: Resource) -> None:
        """Tell what is new about one object."""
        uid = obj["metadata"]["uid"]
        for slot, text, tone in milestones(obj):
            if self._told.get((uid, slot)) != text:
                self._told[uid, slot] = text
                self.line(text, tone)

    def line(self, text: str, tone: str = "") -> None:
        """One line with the time of day before it."""
        shown = style.paint(cell(text), tone) if tone else cell(text)
        self._say(f"{style.paint(ages.clock(time.time()), 'dim')}  {shown}")


def milestones(obj: Resource) -> Iterator[Milestone]:
    """What an object has reached, in order."""
    status = obj.get("status") or {}
    name = f"{obj['kind'].lower()}/{obj['metadata']['name']}"
    teller = _TELLERS.get(obj["kind"])
    if teller is not None and status:
        yield from _refused(name, status)
        yield from teller(name, status)


def _refused(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    condition = find(status.get("conditions") or [], "Accepted")
    if condition is not None and condition["status"] == "False":
        yield "accepted", f"{name} not accepted: {_why(condition)}", "bad"


def _why(entry: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (entry.get("reason"), entry.get("message")) if part)


def _swarm(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    if status.get("ready"):
        yield "ready", f"{name} {status['ready']} workers ready", ""
    if status.get("phase") in ("Failed", "Degraded"):
        condition = find(status.get("conditions") or [], "Ready")
        why = f": {_why(condition)}" if condition else ""
        tone = "bad" if status["phase"] == "Failed" else "warn"
        yield "phase", f"{name} {status['phase'].lower()}{why}", tone


def _task(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    for attempt in status.get("attempts") or []:
        number = attempt["number"]
        nth = f" (attempt {number})" if number > 1 else ""
        where = f"{attempt.get('swarm', '')}/{attempt.get('worker', '')}"
        if attempt.get("startedAt"):
            yield f"start {number}", f"{name} started on {where}{nth}", ""
        if attempt.get("state") == "Failed":
            kind = attempt.get("class", "")
            text = f"{name} attempt {number} failed ({kind}): {_why(attempt)}"
            yield f"end {number}", text, "warn"
    phase = status.get("phase")
    if phase == "Succeeded":
        yield "end", f"{name} succeeded{_result(status)}", "good"
    elif phase == "Failed":
        condition = find(status.get("conditions") or [], "Failed")
        yield "end", f"{name} failed: {_why(condition or status)}", "bad"
    elif phase == "Cancelled":
        yield "end", f"{name} cancelled", "warn"


def _result(status: Mapping[str, Any]) -> str:
    count, head = status.get("filesChangedCount"), status.get("headCommit")
    parts = []
    if count:
        parts.append(f"{count} file{'' if count == 1 else 's'}")
    if status.get("branch") and head:
        parts.append(f"{status['branch']} at {head[:10]}")
    return f": {', '.join(parts)}" if parts else ""


def _project(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    integration = status.get("integration") or {}
    plan = status.get("plan") or {}
    if plan.get("tasks"):
        count = plan["tasks"] if isinstance(plan["tasks"], int) else len(plan["tasks"])
        yield "plan", f"{name} planned: {count} tasks", ""
    merges = integration.get("merges") or []
    done = 0
    for merge in merges:
        state = merge.get("state") or ""
        if state and state.lower() not in ("pending", "waiting"):
            done += 1
            word = "merged" if state.lower() == "merged" else f"merge {state.lower()}:"
            tone = "warn" if state.lower() == "conflict" else ""
            slot = f"merge {merge.get('task')} {merge.get('commit', '')}"
            yield slot, f"{name} {word} {merge.get('task')} ({done}/{len(merges)})", tone
    attention = status.get("attention") or []
    if attention:
        text = f"{name} needs attention: {', '.join(attention)} (see `codeswarm explain {name}`)"
        yield "attention", text, "warn"
    yield from _end(name, status, integration)


def _end(
    name: str, status: Mapping[str, Any], integration: Mapping[str, Any]
) -> Iterator[Milestone]:
    if status.get("phase") == "Completed":
        head = (integration.get("headCommit") or "")[:10]
        where = (
            f": {status['branch']}{f' at {head}' if head else ''}" if status.get("branch") else ""
        )
        yield "end", f"{name} complete ({status.get('progress', '')}){where}", "good"
    elif status.get("phase") == "Failed":
        condition = find(status.get("conditions") or [], "Failed")
        yield "end", f"{name} failed: {_why(condition or status)}", "bad"


_TELLERS: Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Milestone]]] = {
    "Swarm": _swarm,
    "Project": _project,
    "Task": _task,
}
