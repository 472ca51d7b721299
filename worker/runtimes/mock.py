"""The mock runtime: an agent that does what a script in its prompt says, without a model.

The script is a fenced ``mock`` block (see script.py for its grammar). Without one it writes a
small marker file and reports success in a project's task, and answers a bare prompt in a sentence.
"""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worker import records
from worker.errors import Interrupted, TurnError
from worker.report import task_result
from worker.runtimes.base import Question, Runtime, TurnContext
from worker.runtimes.files import write_file
from worker.runtimes.script import TOKEN_NAMES, Step, steps_of

MARKER_FOLDER = "codeswarm-mock"
"""Where a project's task without a script leaves its marker file."""

DELTA_CHARS = 80
_DELTAS = {
    records.ASSISTANT: records.ASSISTANT_DELTA,
    records.REASONING: records.REASONING_DELTA,
}

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass
class _Turn:
    """What one script has come to so far."""

    context: TurnContext
    session: str
    model: str
    said: str = ""
    files: list[str] = field(default_factory=list)
    verification: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = None
    malformed: bool = False
    used: dict[str, int] = field(default_factory=dict)


class MockRuntime(Runtime):
    """Plays scripts.

    Args:
        delay: seconds to wait before every turn.
        model: the name that usage is reported under.
    """

    def __init__(self, delay: float = 0.0, model: str = "mock") -> None:
        self._delay = delay
        self._model = model or "mock"
        self._session = _new_session()
        self._steered: deque[str] = deque()
        self._playing = False
        self._lock = threading.Lock()

    def turn(self, prompt: str, context: TurnContext) -> str:
        """See Runtime."""
        if context.fresh:
            self._session = _new_session()
        with self._lock:
            self._steered.clear()
            self._playing = True
        try:
            return self._play(prompt, _Turn(context, self._session, self._model))
        finally:
            self._playing = False

    def steer(self, content: str) -> bool:
        """See Runtime: the steps of the new text follow those of the running turn."""
        with self._lock:
            if self._playing:
                self._steered.append(content)
            return self._playing

    def _play(self, prompt: str, turn: _Turn) -> str:
        if self._delay:
            turn.context.flush()
            turn.context.scope.sleep(self._delay)
        steps = steps_of(prompt)
        scripted = steps is not None
        while True:
            self._perform(steps or [], turn)
            content = self._next_steered()
            if content is None:
                break
            steps = steps_of(content)
            if steps is None:
                _say(turn, f"Noted: {_first_line(content)}")
            scripted = True
        answer = _scripted_answer(turn) if scripted else _unscripted_answer(prompt, turn)
        if answer != turn.said:
            _tell(turn.context, answer)
        return answer

    def _next_steered(self) -> str | None:
        """The next steered text; without one the turn takes no more."""
        with self._lock:
            if self._steered:
                return self._steered.popleft()
            self._playing = False
            return None

    def _perform(self, steps: list[Step], turn: _Turn) -> None:
        for step in steps:
            turn.context.scope.check()
            if step.attempt in (None, turn.context.attempt):
                _VERBS[step.verb](turn, step.value)


def _new_session() -> str:
    return f"mock-{os.urandom(4).hex()}"


def _tell(context: TurnContext, text: str, event: str = records.ASSISTANT) -> None:
    """A message of the assistant or its reasoning, streamed first."""
    item = context.item()
    for start in range(0, max(len(text), 1), DELTA_CHARS):
        piece = text[start : start + DELTA_CHARS]
        context.emit(_DELTAS[event], {"item": item, "text": piece})
    context.emit(event, {"item": item, "text": text})


def _say(turn: _Turn, text: str) -> None:
    turn.said = text
    _tell(turn.context, text)


def _write(turn: _Turn, value: Mapping[str, str]) -> None:
    path = value["path"]
    turn.context.accept()
    kind = write_file(turn.context.workdir, path, value["content"])
    told = {"item": turn.context.item(), "path": path, "kind": kind}
    turn.context.emit(records.FILECHANGE_STARTED, told)
    turn.context.emit(records.FILECHANGE_COMPLETED, {**told, "status": "completed"})
    turn.files.append(path)


def _run(turn: _Turn, command: str) -> None:
    done = turn.context.run_command(command)
    turn.verification.append(f"{command}: exit code {done.exit_code}")
    if done.exit_code != 0:
        output = done.output.decode("utf-8", "replace").strip()
        tail = f": {output[-500:]}" if output else ""
        raise TurnError("task", f"`{command}` failed with exit code {done.exit_code}{tail}")


def _ask(turn: _Turn, value: Mapping[str, Any]) -> None:
    question = Question(
        kind="command",
        cwd=str(turn.context.workdir),
        command=value["command"],
        reason=value.get("reason", ""),
        decisions=value.get("decisions", ("approve", "deny")),
    )
    answer = turn.context.ask(question)
    if answer.approved:
        turn.context.run_command(value["command"])
    elif answer.decision == "cancel":
        raise Interrupted("Refused")
    else:
        why = f" ({answer.reason})" if answer.reason else ""
        _say(turn, f"Not approved{why}, so not run: {value['command']}")


def _sleep(turn: _Turn, seconds: float) -> None:
    turn.context.flush()
    turn.context.scope.sleep(seconds)


def _usage(turn: _Turn, value: Mapping[str, int]) -> None:
    last = {TOKEN_NAMES[name]: count for name, count in value.items()}
    last["total"] = last.get("input", 0) + last.get("output", 0)
    for name, count in last.items():
        turn.used[name] = turn.used.get(name, 0) + count
    told = {"session": turn.session, "model": turn.model, "total": dict(turn.used), "last": last}
    turn.context.emit(records.USAGE, told)


def _crash(turn: _Turn, wanted: bool) -> None:
    if wanted:
        turn.context.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def _hang(turn: _Turn, wanted: bool) -> None:
    if wanted:
        turn.context.flush()
        turn.context.scope.sleep(None)


def _error(turn: _Turn, value: Mapping[str, Any]) -> None:
    kind = value["class"]
    message = value.get("message") or f"the mock provider answered: {kind}"
    raise TurnError(kind, message, value.get("retryAfterSeconds"))


def _keep(name: str) -> Callable[[_Turn, Any], None]:
    """A step that only sets a field of the turn."""
    return lambda turn, value: setattr(turn, name, value)


_VERBS: Mapping[str, Callable[[_Turn, Any], None]] = {
    "write": _write,
    "run": _run,
    "say": _say,
    "think": lambda turn, value: _tell(turn.context, value, records.REASONING),
    "sleep": _sleep,
    "usage": _usage,
    "ask": _ask,
    "crash": _crash,
    "hang": _hang,
    "error": _error,
    "route": lambda turn, value: turn.routes.append(value),
    "result": _keep("result"),
    "plan": _keep("plan"),
    "malformed": _keep("malformed"),
}


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return textwrap.shorten(lines[0], 80, placeholder=" ...") if lines else "(nothing)"


def _scripted_answer(turn: _Turn) -> str:
    parts = list(turn.routes)
    if turn.plan is not None:
        parts.append("TASK_GRAPH_JSON\n" + json.dumps(turn.plan, indent=2))
    if turn.malformed:
        parts.append("All done.")
    elif turn.context.kind in ("work", "integration") or turn.result:
        parts.append(_task_result(turn))
    if turn.said and not parts:
        return turn.said
    return "\n\n".join([turn.said or "Done.", *parts])


def _unscripted_answer(prompt: str, turn: _Turn) -> str:
    context = turn.context
    if context.kind == "work":
        name = _UNSAFE.sub("-", context.task).strip("-.") or "task"
        path = f"{MARKER_FOLDER}/{name}.txt"
        title = context.title or context.task
        _write(turn, {"path": path, "content": f"{title}\n\nDone by the mock runtime.\n"})
        return f"Wrote {path}.\n\n{_task_result(turn)}"
    if context.kind == "integration":
        return f"Nothing to do.\n\n{_task_result(turn)}"
    return f"The mock runtime got a prompt of {len(prompt)} characters: {_first_line(prompt)}"


def _task_result(turn: _Turn) -> str:
    return task_result(
        task_id=turn.context.task,
        status=turn.result.get("status", "done"),
        branch=turn.context.branch,
        base_commit=turn.context.base_commit,
        files_changed=turn.files,
        verification=turn.verification,
        notes=turn.result.get("notes", ""),
    )
