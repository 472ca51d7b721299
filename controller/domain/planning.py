"""A planner's answer becomes a plan: found in its text, checked field by field, stored whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controller.domain import blocks, graph
from controller.domain.paths import PathProblem, normalise
from controller.resources.names import task_name_from_id

HEADER = "TASK_GRAPH_JSON"
MAX_TASKS = 1000
MAX_ITEMS = 64
"""Dependencies, owned paths or acceptance criteria of one task."""
MAX_ID, MAX_TITLE, MAX_PROMPT, MAX_CRITERION, MAX_PATH = 256, 200, 262_144, 4096, 512
"""Lengths in characters, as in crds/tasks.yaml."""


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One task of a plan."""

    task_id: str
    """Word for word as the planner wrote it."""
    name: str
    """The task's name within the project."""
    title: str
    prompt: str
    acceptance_criteria: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    """Names (not ids) of tasks of the same plan."""
    owned_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid task graph, in the planner's order."""

    tasks: tuple[PlanTask, ...]

    def canonical(self) -> str:
        """The plan as JSON in its only spelling, in the planner's own words (ids, not names)."""
        ids = {task.name: task.task_id for task in self.tasks}
        tasks = [
            {
                "task_id": task.task_id,
                "title": task.title,
                "prompt": task.prompt,
                "acceptance_criteria": list(task.acceptance_criteria),
                "depends_on": [ids[name] for name in task.depends_on],
                "owned_paths": list(task.owned_paths),
            }
            for task in self.tasks
        ]
        return json.dumps(
            {"tasks": tasks}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )

    def digest(self) -> str:
        """SHA-256 of the canonical form, in hex."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


class PlanReason(StrEnum):
    """Why an answer gave no plan."""

    MISSING = "PlanMissing"
    MALFORMED = "PlanMalformed"
    INVALID = "PlanInvalid"


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """An answer gave no plan; the message says exactly why."""

    reason: PlanReason
    message: str


class _Wrong(Exception):
    """A candidate is no plan."""

    def __init__(self, reason: PlanReason, message: str) -> None:
        super().__init__(message)
        self.problem = PlanProblem(reason, message)


def parse_plan(answer: str) -> Plan | PlanProblem:
    """The plan in a planner's final answer.

    Looked at are the JSON after each ``TASK_GRAPH_JSON`` line, fenced JSON, and an answer that
    is nothing but JSON.  The last valid one that has tasks counts; if there is none, the problem
    of the last one that followed a header (else of the last one) is told.
    """
    candidates = _candidates(answer)
    if not candidates:
        return PlanProblem(
            PlanReason.MISSING, f"the planner's answer has no {HEADER} line followed by JSON"
        )
    problems: list[tuple[bool, PlanProblem]] = []
    for headed, found in reversed(candidates):
        try:
            return _plan(found)
        except _Wrong as wrong:
            problems.append((headed, wrong.problem))
    return next((problem for headed, problem in problems if headed), problems[0][1])


def plan_from_json(text: str) -> Plan | PlanProblem:
    """A stored plan (``Plan.canonical``) read again."""
    try:
        return _plan(blocks.decode(text, 0))
    except _Wrong as wrong:
        return wrong.problem


def _candidates(answer: str) -> list[tuple[bool, blocks.Json]]:
    """JSON values that may be the plan, in the order of the text, each once; headed or not."""
    found: dict[int, tuple[bool, blocks.Json]] = {}
    for json_value in blocks.fenced_json(answer):
        found[json_value.start] = (False, json_value)
    for block in blocks.blocks(answer, HEADER):
        headed = blocks.json_in(block)
        if headed is None:
            headed = blocks.Json(block.body_start, error="no JSON follows its header")
        found[headed.start] = (True, headed)
    start = len(answer) - len(answer.lstrip())
    if answer.startswith(("{", "["), start):
        found.setdefault(start, (False, blocks.decode(answer, start)))
    return [found[start] for start in sorted(found)]


def _plan(found: blocks.Json) -> Plan:
    if found.error:
        raise _Wrong(PlanReason.MALFORMED, f"the plan cannot be read: {found.error}")
    items = _task_list(found.value)
    if not items:
        raise _Wrong(PlanReason.INVALID, "the plan has no tasks")
    if len(items) > MAX_TASKS:
        raise _Wrong(
            PlanReason.INVALID, f"the plan has {len(items)} tasks; at most {MAX_TASKS} are allowed"
        )
    raw = [_raw_task(item, number) for number, item in enumerate(items)]
    problems = graph.validate([graph.Node(task.task_id, task.depends_on) for task in raw])
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise _Wrong(PlanReason.INVALID, f"the plan is no task graph: {problems[0].message}{more}")
    return Plan(tuple(_named(raw)))


def _task_list(value: Any) -> list[Any]:
    """The tasks in any of the shapes that are understood."""
    if (
        isinstance(value, dict)
        and "tasks" not in value
        and isinstance(value.get("graph"), dict | list)
    ):
        value = value["graph"]
    if isinstance(value, dict):
        if "tasks" not in value:
            raise _Wrong(PlanReason.MALFORMED, "the plan must be an object with 'tasks'")
        value = value["tasks"]
    if not isinstance(value, list):
        kind = blocks.type_name(value)
        raise _Wrong(PlanReason.MALFORMED, f"the plan's 'tasks' must be a list, not {kind}")
    return value


@dataclass(frozen=True, slots=True)
class _Raw:
    """A task with dependencies still by id."""

    task_id: str
    title: str
    prompt: str
    acceptance_criteria: tuple[str, ...]
    depends_on: tuple[str, ...]
    owned_paths: tuple[str, ...]


def _raw_task(item: Any, number: int) -> _Raw:
    where = f"tasks[{number}]"
    if not isinstance(item, dict):
        raise _Wrong(
            PlanReason.MALFORMED, f"{where} must be an object, not {blocks.type_name(item)}"
        )
    task_id = _text(item, "task_id", where, MAX_ID)
    where = f"{where} ({task_id})"
    depends_on = _texts(item, "depends_on", where, MAX_ID)
    owned = _texts(item, "owned_paths", where, MAX_PATH)
    try:
        owned = tuple(normalise(path) for path in owned)
    except PathProblem as problem:
        raise _Wrong(PlanReason.INVALID, f"{where}.owned_paths: {problem}") from None
    return _Raw(
        task_id=task_id,
        title=_text(item, "title", where, MAX_TITLE, default=task_id[:MAX_TITLE]),
        prompt=_text(item, "prompt", where, MAX_PROMPT),
        acceptance_criteria=_texts(item, "acceptance_criteria", where, MAX_CRITERION),
        depends_on=tuple(dict.fromkeys(depends_on)),
        owned_paths=tuple(dict.fromkeys(owned)),
    )


def _text(
    item: dict[str, Any], field: str, where: str, limit: int, default: str | None = None
) -> str:
    value = item.get(field)
    if value is None and default is not None:
        return default
    if value is None:
        raise _Wrong(PlanReason.MALFORMED, f"{where}.{field} is missing")
    checked = _string(value, f"{where}.{field}", limit)
    if not checked.strip():
        if default is not None:
            return default
        raise _Wrong(PlanReason.INVALID, f"{where}.{field} is empty")
    return checked


def _texts(item: dict[str, Any], field: str, where: str, limit: int) -> tuple[str, ...]:
    value = item.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _Wrong(
            PlanReason.MALFORMED,
            f"{where}.{field} must be a list of strings, not {blocks.type_name(value)}",
        )
    if len(value) > MAX_ITEMS:
        raise _Wrong(
            PlanReason.INVALID,
            f"{where}.{field} has {len(value)} items; at most {MAX_ITEMS} are allowed",
        )
    return tuple(
        _string(entry, f"{where}.{field}[{number}]", limit) for number, entry in enumerate(value)
    )


def _string(value: Any, where: str, limit: int) -> str:
    if not isinstance(value, str):
        raise _Wrong(
            PlanReason.MALFORMED, f"{where} must be a string, not {blocks.type_name(value)}"
        )
    if len(value) > limit:
        raise _Wrong(
            PlanReason.INVALID,
            f"{where} has {len(value)} characters; at most {limit} are allowed",
        )
    if value != blocks.clean(value):
        raise _Wrong(PlanReason.MALFORMED, f"{where} is not valid Unicode")
    return value


def _named(raw: Iterable[_Raw]) -> list[PlanTask]:
    """Give each task its name; two ids never share one."""
    raw = list(raw)
    names: dict[str, str] = {}
    taken: set[str] = set()
    for task in raw:
        names[task.task_id] = task_name_from_id(task.task_id, taken)
        taken.add(names[task.task_id])
    return [
        PlanTask(
            task_id=task.task_id,
            name=names[task.task_id],
            title=task.title,
            prompt=task.prompt,
            acceptance_criteria=task.acceptance_criteria,
            depends_on=tuple(names[task_id] for task_id in task.depends_on),
            owned_paths=task.owned_paths,
        )
        for task in raw
    ]
