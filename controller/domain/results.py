"""The agent's own report of its task: the ``TASK_RESULT`` block at the end of its answer.

It is believed for what only the agent knows: whether the task is done, what it checked, its
notes.  A missing or malformed block is never a success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controller.domain import blocks

HEADER = "TASK_RESULT"
MAX_TEXT = 8192
"""Characters of notes and of verification that are kept (as in the Task's status)."""
MAX_FILES = 200

_FIELD_LINE = re.compile(r"[ \t]{0,20}[-*]?[ \t]{0,20}([A-Za-z_]{1,40})[ \t]{0,20}:[ \t]*(.*)")
_ITEM_LINE = re.compile(r"^[ \t]*[-*][ \t]+(.*)$")


class ReportedStatus(StrEnum):
    """What an agent may say of its task."""

    DONE = "done"
    BLOCKED = "blocked"
    FAILED = "failed"
    NEEDS_FOLLOWUPS = "needs_followups"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """A well-formed report. What the agent left out is empty."""

    status: ReportedStatus
    task_id: str = ""
    branch: str = ""
    base_commit: str = ""
    head_commit: str = ""
    files_changed: tuple[str, ...] = ()
    verification: str = ""
    """One check a line."""
    notes: str = ""


class ResultReason(StrEnum):
    """Why there is no report."""

    MISSING = "ResultMissing"
    MALFORMED = "ResultMalformed"


@dataclass(frozen=True, slots=True)
class ResultProblem:
    """There is no report that could be believed."""

    reason: ResultReason
    message: str


_FIELDS = frozenset(
    {
        "task_id", "status", "branch", "base_commit", "head_commit", "files_changed",
        "verification", "notes",
    }
)  # fmt: skip
_LIST_FIELDS = frozenset({"files_changed", "verification"})


def parse_result(answer: str) -> TaskResult | ResultProblem:
    """The report in an agent's final answer; the last header line counts.

    After the header comes a JSON object (plain or fenced) or lines ``key: value``.
    """
    found = blocks.blocks(answer, HEADER)
    if not found:
        return ResultProblem(
            ResultReason.MISSING, f"the agent's answer has no {HEADER} block at its end"
        )
    block = found[-1]
    lines = _field_lines(block.body)
    json = blocks.json_in(block)
    if json is not None and not lines:
        if json.error:
            return _malformed(json.error)
        return _from_fields(json.value)
    return _from_fields(lines) if lines else _malformed("nothing follows its header")


def _malformed(what: str) -> ResultProblem:
    return ResultProblem(
        ResultReason.MALFORMED, f"the agent's {HEADER} block cannot be read: {what}"
    )


def _field_lines(body: str) -> dict[str, Any]:
    """``key: value`` lines from the start of the block; a list goes on in ``- item`` lines."""
    fields: dict[str, Any] = {}
    current = ""
    for line in blocks.without_fences(body).splitlines():
        if not line.strip():
            if fields:
                current = ""
            continue
        match = _FIELD_LINE.match(line)
        key = match.group(1).lower() if match else ""
        if match and key in _FIELDS:
            current = key
            value = match.group(2).strip()
            fields[key] = _listed(value) if key in _LIST_FIELDS else value
        elif current in _LIST_FIELDS:
            item = _ITEM_LINE.match(line)
            fields[current].append(item.group(1).strip() if item else line.strip())
        elif current:
            fields[current] = f"{fields[current]}\n{line.strip()}".strip()
        elif not fields:
            return {}
    return fields


def _listed(value: str) -> list[str]:
    """A list on one line: ``a, b``, ``["a", "b"]`` or nothing."""
    value = value.strip()
    if value.startswith("["):
        decoded = blocks.decode(value, 0).value
        if isinstance(decoded, list):
            return [str(item) for item in decoded]
        value = value.strip("[]")
    if value.lower() in ("", "none", "-"):
        return []
    return [item.strip() for item in value.split(",")]


def _from_fields(fields: Any) -> TaskResult | ResultProblem:
    if not isinstance(fields, dict):
        return _malformed(f"it must be a JSON object, not {blocks.type_name(fields)}")
    status = fields.get("status")
    known = ", ".join(ReportedStatus)
    if not isinstance(status, str):
        what = "it has no status" if status is None else f"status is {blocks.type_name(status)}"
        return _malformed(f"{what}; give one of {known}")
    try:
        reported = ReportedStatus(status.strip().strip("`\"'").lower())
    except ValueError:
        return _malformed(f"status is {status[:80]!r}; give one of {known}")
    texts: dict[str, str] = {}
    for name in ("task_id", "branch", "base_commit", "head_commit"):
        value = fields.get(name)
        if value is not None and not isinstance(value, str):
            return _malformed(f"{name} must be a string, not {blocks.type_name(value)}")
        texts[name] = blocks.clean(value or "").strip()[:512]
    files = fields.get("files_changed") or []
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        return _malformed("files_changed must be a list of strings")
    return TaskResult(
        status=reported,
        files_changed=tuple(blocks.clean(file)[:4096] for file in files[:MAX_FILES]),
        verification=_as_text(fields.get("verification")),
        notes=_as_text(fields.get("notes")),
        **texts,
    )


def _as_text(value: Any) -> str:
    """Free text, however an agent chose to shape it: a list is one item a line."""
    if value is None:
        return ""
    if isinstance(value, list):
        text = "\n".join(_as_text(item) for item in value[:1000])
    elif isinstance(value, dict):
        text = ", ".join(f"{key}: {_as_text(item)}" for key, item in list(value.items())[:1000])
    else:
        text = str(value)
    return blocks.clean(text).strip()[:MAX_TEXT]
