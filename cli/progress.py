"""What happens, told once, as lines for people: workers ready, tasks done, merges, results.

Level-triggered: the milestones are read off the objects as they are, so that nothing is told
twice and nothing is missed that still stands in status. A slot names the attempt or the pinned
heads that it is about: the same result a second time is a new milestone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cli import ages, hindrances, style
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
        self._said: set[str] = set()
        """Texts of milestones that were printed."""
        self._held: dict[str, str] = {}
        """By uid: the reason of what holds the object up, once told."""
        self._causes: set[str] = set()

    def skip(self, objects: Iterable[Resource]) -> None:
        """Take what these have reached as told. What holds them up is not: it still does."""
        for obj in objects:
            for slot, text, _ in milestones(obj):
                self._told[obj["metadata"]["uid"], slot] = text

    def tell(self, obj: Resource) -> None:
        """Tell what is new about one object."""
        uid = obj["metadata"]["uid"]
        for slot, text, tone in milestones(obj):
            if self._told.get((uid, slot)) != text:
                self._told[uid, slot] = text
                self._said.add(text)
                self.line(text, tone)
        self.hindered(obj)

    def hindered(self, obj: Resource) -> None:
        """Tell what holds an object up, once as long as it lasts.

        A cause that was told of another object is not told again.
        """
        uid, held = obj["metadata"]["uid"], hindrances.of(obj)
        if held is None:
            self._held.pop(uid, None)
            return
        if self._held.get(uid) == held.reason or (obj.get("status") or {}).get("attention"):
            return
        self._held[uid] = held.reason
        if held.cause not in self._causes:
            self._causes.add(held.cause)
            self.line(f"{name_of(obj)} {held.text}", "bad" if held.refused else "warn")

    def conclude(self, obj: Resource, word: str) -> None:
        """Tell how an object ended well, if that was not told: it had ended before."""
        ends = [(text, tone) for slot, text, tone in milestones(obj) if slot.startswith("end")]
        text, tone = ends[-1] if ends else (f"{name_of(obj)} {word}", "")
        if text not in self._said:
            self.line(text, tone)

    def line(self, text: str, tone: str = "") -> None:
        """One line with the time of day before it."""
        shown = style.paint(cell(text), tone) if tone else cell(text)
        self._say(f"{style.paint(ages.clock(time.time()), 'dim')}  {shown}")


def name_of(obj: Resource) -> str:
    """``task/greeter.docs``."""
    return f"{obj['kind'].lower()}/{obj['metadata']['name']}"


def milestones(obj: Resource) -> Iterator[Milestone]:
    """What an object has reached, in order."""
    status = obj.get("status") or {}
    teller = _TELLERS.get(obj["kind"])
    if teller is not None and status:
        yield from teller(name_of(obj), status)


def _why(entry: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (entry.get("reason"), entry.get("message")) if part)


def _swarm(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    if status.get("ready"):
        yield "end", f"{name} {status['ready']} workers ready", ""
    if status.get("progress"):
        yield "progress", f"{name} {status['progress']}", ""
    if status.get("phase") in ("Failed", "Degraded"):
        condition = find(status.get("conditions") or [], "Ready")
        why = f": {_why(condition)}" if condition else ""
        tone = "bad" if status["phase"] == "Failed" else "warn"
        yield "phase", f"{name} {status['phase'].lower()}{why}", tone


def _task(name: str, status: Mapping[str, Any]) -> Iterator[Milestone]:
    attempts = status.get("attempts") or []
    for attempt in attempts:
        number = attempt["number"]
        nth = f" (attempt {number})" if number > 1 else ""
        where = f"{attempt.get('swarm', '')}/{attempt.get('worker', '')}"
        if attempt.get("startedAt"):
            yield f"start {number}", f"{name} started on {where}{nth}", ""
        if attempt.get("state") == "Failed":
            kind, reason = attempt.get("class") or "", attempt.get("reason")
            shown = "" if kind in ("", reason) else f" ({kind})"
            text = f"{name} attempt {number} failed{shown}: {_why(attempt)}"
            yield f"attempt {number}", text, "warn"
            if status.get("nextAttemptAt") and attempt is attempts[-1]:
                yield f"again {number}", f"{name} is tried again{_pause(attempt, status)}", ""
    phase = status.get("phase")
    blocker = status.get("blocker") or {}
    if phase == "Running" and blocker.get("reason") == "WaitingForApproval":
        asked = blocker.get("message") or "waits for an approval"
        yield f"asked {asked}", f"{name} {asked} (codeswarm approve or deny it)", "warn"
    end = f"end {attempts[-1]['number'] if attempts else 0}"
    if phase == "Succeeded":
        yield end, f"{name} succeeded{_result(status)}", "good"
    elif phase == "Failed":
        condition = find(status.get("conditions") or [], "Failed")
        yield end, f"{name} failed: {_why(condition or status)}", "bad"
    elif phase == "Cancelled":
        yield end, f"{name} cancelled", "warn"


def _pause(attempt: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """`` in 10 s``, from when the attempt ended."""
    try:
        ended = ages.parse(attempt["finishedAt"])
        return f" in {max(1, round(ages.parse(status['nextAttemptAt']) - ended))} s"
    except (KeyError, ValueError):
        return ""


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
            words = {"merged": "merged", "already": "already had"}
            word = words.get(state.lower(), f"merge {state.lower()}:")
            tone = "warn" if state.lower() == "conflict" else ""
            digest, commit = integration.get("digest", ""), merge.get("commit", "")
            slot = f"merge {digest} {merge.get('task')} {commit}"
            yield slot, f"{name} {word} {merge.get('task')} ({done}/{len(merges)})", tone
    attention = status.get("attention") or []
    if attention:
        text = f"{name} needs attention: {', '.join(attention)} (see `codeswarm explain {name}`)"
        yield "attention", text, "warn"
    yield from _end(name, status, integration)


def _end(
    name: str, status: Mapping[str, Any], integration: Mapping[str, Any]
) -> Iterator[Milestone]:
    end = f"end {status.get('observedGeneration', '')} {integration.get('digest', '')}"
    if status.get("phase") == "Completed":
        head = (integration.get("headCommit") or "")[:10]
        where = (
            f": {status['branch']}{f' at {head}' if head else ''}" if status.get("branch") else ""
        )
        yield end, f"{name} complete ({status.get('progress', '')}){where}", "good"
    elif status.get("phase") == "Failed":
        condition = find(status.get("conditions") or [], "Failed")
        yield end, f"{name} failed: {_why(condition or status)}", "bad"


_TELLERS: Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Milestone]]] = {
    "Swarm": _swarm,
    "Project": _project,
    "Task": _task,
}
