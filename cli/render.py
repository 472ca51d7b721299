"""A worker's records as text for people: what was said, run, changed, merged and verified.

Everything in a record comes from an agent or its commands: no control character of it reaches
the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from cli.table import clean
from controller.domain import blocks, machine_logs
from controller.domain.shell import inner
from worker import records

Record = dict[str, Any]
MAX_OUTPUT_LINES = 20
MAX_PATHS = 5
LIMITS = {
    "Timeout": "it took longer than timeoutSeconds (a project's taskTimeoutSeconds)",
    "Stalled": "nothing was heard of the agent for stallTimeoutSeconds",
}


def lines(record: Record) -> list[str]:
    """The lines that one record gives; none for what only machines want."""
    renderer = _RENDERERS.get(str(record.get("event")))
    data = record.get("data")
    if renderer is None or not isinstance(data, dict):
        return []
    return [clean(line) for line in renderer(data)]


class Told:
    """What agents have said, so that an answer that begins with it does not say it again."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}
        """By turn: what was said last."""

    def without_repeats(self, record: Record) -> Record:
        """The record without a beginning that was said just before in the same turn."""
        data, turn = record.get("data"), str(record.get("injection_id"))
        if record.get("event") == records.TURN_COMPLETE:
            self._last.pop(turn, None)
        if record.get("event") != records.ASSISTANT or not isinstance(data, dict):
            return record
        text, before = _text(data, "text"), self._last.get(turn, "")
        self._last[turn] = text
        if before.strip() and text.startswith(f"{before}\n"):
            return {**record, "data": {**data, "text": text[len(before) :].lstrip("\n")}}
        return record


def _text(data: Record, name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else "" if value is None else str(value)


def _short(commit: str) -> str:
    return commit[:10]


def _assistant(data: Record) -> Iterator[str]:
    yield from said(_text(data, "text")).splitlines()


def said(text: str) -> str:
    """An agent's text with its machine-readable report as one line."""
    found = blocks.blocks(text, "TASK_RESULT")
    report = blocks.json_in(found[-1]) if found else None
    if report is None or not isinstance(report.value, dict):
        return text.rstrip()
    status, notes = report.value.get("status"), report.value.get("notes")
    told = f"reports {status}" + (f": {notes}" if isinstance(notes, str) and notes else "")
    return "\n".join(part for part in (text[: found[-1].start].rstrip(), told) if part)


def _reasoning(data: Record) -> Iterator[str]:
    yield from (f"(thinks) {line}" for line in _text(data, "text").rstrip().splitlines())


def _turn_started(data: Record) -> Iterator[str]:
    yield f"attempt {data.get('attempt', '?')} taken up"


def _task_started(data: Record) -> Iterator[str]:
    base = _text(data, "base_commit")
    yield f"turn started at {_short(base)}" if base else "turn started"
    conflicts = data.get("conflicts")
    if conflicts:
        names = conflicts if isinstance(conflicts, list) else [conflicts]
        yield f"conflicts in {', '.join(str(name) for name in names)}"


def _command_started(data: Record) -> Iterator[str]:
    source = _text(data, "source")
    if source != "merge":
        yield f"{'verify ' if source == 'verify' else ''}$ {_first_line(_text(data, 'command'))}"


def _first_line(text: str) -> str:
    first, _, rest = text.strip().partition("\n")
    return f"{first} ..." if rest else first


def _command_completed(data: Record) -> Iterator[str]:
    if data.get("source") == "merge":
        state = _text(data, "state") or ("merged" if data.get("exit_code") == 0 else "failed")
        commit = _text(data, "commit")
        yield f"merge {_text(data, 'task')}{f' ({_short(commit)})' if commit else ''}: {state}"
        return
    output = _text(data, "output").rstrip().splitlines()
    if len(output) > MAX_OUTPUT_LINES:
        yield f"  ... ({len(output) - MAX_OUTPUT_LINES} lines more)"
    yield from (f"  {line}" for line in output[-MAX_OUTPUT_LINES:])
    code, seconds = data.get("exit_code"), data.get("seconds")
    took = f", {seconds:.1f}s" if isinstance(seconds, int | float) else ""
    if data.get("source") == "verify":
        verdict = "passed" if code == 0 else f"FAILED (exit {code})"
        yield f"verify {verdict}{took}: {_first_line(_text(data, 'command'))}"
    elif code != 0:
        yield f"  exit {code}{took}"


def _file_changed(data: Record) -> Iterator[str]:
    sign = {"add": "+", "update": "~", "delete": "-"}.get(_text(data, "kind"), "~")
    status = _text(data, "status")
    failed = f" ({status})" if status not in ("", "completed", "ok", "done") else ""
    yield f"{sign} {_text(data, 'path')}{failed}"


def _approval_required(data: Record) -> Iterator[str]:
    reason, command = _text(data, "reason"), inner(_text(data, "command"))
    listed = data.get("paths")
    paths = [str(path) for path in listed] if isinstance(listed, list) else []
    if command:
        yield f"asks for approval: $ {_first_line(command)}"
    else:
        yield f"asks for approval: {', '.join(paths[:MAX_PATHS]) or _text(data, 'tool')}"
    if reason:
        yield f"  because: {reason}"


def _approval_resolved(data: Record) -> Iterator[str]:
    by = _text(data, "by")
    yield f"approval: {_text(data, 'decision')}{f' by {by}' if by else ''}"


def _task_complete(data: Record) -> Iterator[str]:
    head, count = _text(data, "head_commit"), data.get("files_changed_count")
    if count is None:
        count = len(data.get("files_changed") or ())
    branch = _text(data, "branch")
    where = f" on {branch}" if branch and data.get("pushed") else ""
    yield f"committed {_short(head)}{where}, {count} file{'' if count == 1 else 's'} changed"


def _turn_complete(data: Record) -> Iterator[str]:
    status = _text(data, "status")
    error = data.get("error")
    reason = _text(data, "reason")
    if reason in LIMITS or (isinstance(error, dict) and error.get("class") == "interrupted"):
        yield f"turn interrupted: {LIMITS.get(reason, reason or 'no reason given')}"
    elif isinstance(error, dict):
        yield f"turn {status}: {_text(error, 'class')}: {_text(error, 'message')}"
    else:
        yield f"turn {status}{f' ({reason})' if reason else ''}"


def _agent_error(data: Record) -> Iterator[str]:
    again = " (tries again)" if data.get("will_retry") else ""
    yield f"error: {_text(data, 'class')}: {_text(data, 'message')}{again}"


def _machine_log(data: Record) -> Iterator[str]:
    yield _text(data, "text")


_RENDERERS: dict[str, Callable[[Record], Iterator[str]]] = {
    records.ASSISTANT: _assistant,
    records.REASONING: _reasoning,
    records.TURN_STARTED: _turn_started,
    records.TASK_STARTED: _task_started,
    records.COMMAND_STARTED: _command_started,
    records.COMMAND_COMPLETED: _command_completed,
    records.FILECHANGE_COMPLETED: _file_changed,
    records.EXEC_APPROVAL_REQUIRED: _approval_required,
    records.EXEC_APPROVAL_RESOLVED: _approval_resolved,
    records.TASK_COMPLETE: _task_complete,
    records.TURN_COMPLETE: _turn_complete,
    records.AGENT_ERROR: _agent_error,
    machine_logs.EVENT: _machine_log,
}
