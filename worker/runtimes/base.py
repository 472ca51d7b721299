"""The port to an agent runtime: one prompt in, events and an answer out."""

from __future__ import annotations

import hashlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker import records
from worker.children import Spared
from worker.scope import OUTPUT_TAIL_BYTES, Answer, Finished, TurnScope

Emit = Callable[[str, "dict[str, Any]"], None]
"""Adds one event with its data to the turn's records."""


MAX_COMMAND_CHARS = 16_384
MAX_DIFF_CHARS = 131_072
MAX_PATHS = 200
MAX_AMENDMENTS = 20
MAX_SHORT_CHARS = 4_096
"""Limits of an Approval's fields (crds/approvals.yaml)."""


@dataclass(frozen=True)
class Question:
    """What an agent wants to do and must not do by itself."""

    kind: str
    """command, file-change or tool."""
    cwd: str
    command: str = ""
    tool: str = ""
    arguments: Any = None
    """As the runtime gave them; only their digest is told."""
    reason: str = ""
    diff: str = ""
    paths: Sequence[str] = ()
    decisions: Sequence[str] = ("approve", "deny")
    amendments: Sequence[str] = ()

    def told(self, request_id: str) -> dict[str, Any]:
        """The data of ``exec_approval_required``, cut to what an Approval can hold."""
        arguments = self.arguments
        if arguments is None:
            arguments = {"command": self.command, "paths": list(self.paths), "diff": self.diff}
        text = json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=str)
        data = {
            "request_id": request_id,
            "kind": self.kind,
            "decisions": list(self.decisions),
            "cwd": self.cwd[:MAX_SHORT_CHARS],
            "arguments_digest": hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(),
            "command": self.command[:MAX_COMMAND_CHARS],
            "tool": self.tool[:256],
            "reason": self.reason[:MAX_SHORT_CHARS],
            "diff": self.diff[:MAX_DIFF_CHARS],
            "paths": [path[:MAX_SHORT_CHARS] for path in self.paths[:MAX_PATHS]],
            "amendments": [text[:MAX_SHORT_CHARS] for text in self.amendments[:MAX_AMENDMENTS]],
        }
        return {name: value for name, value in data.items() if value or name == "cwd"}


@dataclass(frozen=True)
class TurnContext:
    """Where and for what a turn runs, and its ways to the outside."""

    injection_id: str
    kind: str
    """work, plan, integration, prompt, or system (the swarm's system prompt)."""
    workdir: Path
    """The checkout; its git folder, outside it, is ``<base>/git``."""
    scope: TurnScope
    emit: Emit
    flush: Callable[[], None]
    """Makes what was emitted visible; call it before anything that may take long."""
    accept: Callable[[], None]
    """Makes sure that the turn's acceptance is written; call it before the first effect.

    Raises OSError if it cannot be written: then nothing may happen."""
    env: Mapping[str, str]
    """Environment of the agent's processes."""
    approval_policy: str = "never"
    attempt: int = 1
    fresh: bool = False
    """Begin a new thread with the model."""
    task: str = ""
    """The task's id as its project knows it; empty for a bare prompt."""
    title: str = ""
    branch: str = ""
    base_commit: str = ""
    tracer: Callable[[str, str], None] | None = None
    """Takes raw traffic with the model or the agent's process; None: nobody wants it."""
    _items: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def item(self) -> str:
        """A new id for a message, command or file change within this turn."""
        return f"{self.injection_id}/{next(self._items)}"

    def trace(self, direction: str, text: str) -> None:
        """Tell raw traffic with the agent, if it is to be captured; from any thread.

        Args:
            direction: ``->`` to the agent, ``<-`` from it.
            text: one message, as it went over the wire; secrets in it are masked.
        """
        if self.tracer is not None:
            self.tracer(direction, text)

    def run_command(self, command: str, source: str = "agent", **extra: Any) -> Finished:
        """Run a shell command in the checkout and report it.

        Args:
            command: for ``/bin/sh``.
            source: agent or verify.
            extra: further fields of both events.

        Raises: Interrupted; OSError if it cannot be started.
        """
        self.accept()
        told = {"item": self.item(), "command": command, "source": source, **extra}
        self.emit(records.COMMAND_STARTED, told)
        self.flush()
        done = self.scope.run(
            ["/bin/sh", "-c", command],
            cwd=self.workdir,
            env=self.env,
            merge_errors=True,
            limit=OUTPUT_TAIL_BYTES,
        )
        result = {
            "exit_code": done.exit_code,
            "output": done.output.decode("utf-8", "replace"),
            "seconds": round(done.seconds, 3),
        }
        self.emit(records.COMMAND_COMPLETED, {**told, **result})
        return done

    def ask(self, question: Question) -> Answer:
        """Ask for approval and wait for the answer.

        Under the approval policy ``never`` nothing is asked: the answer is no.

        Raises: Interrupted.
        """
        if self.approval_policy == "never":
            return Answer("deny", by="policy")
        request_id = self.put(question)
        answer = self.scope.wait_answer(request_id)
        self.resolved(request_id, answer)
        return answer

    def put(self, question: Question) -> str:
        """Ask for approval and do not wait; the question's id, for ``scope.answer_to``."""
        self.accept()
        request_id = self.item()
        self.emit(records.EXEC_APPROVAL_REQUIRED, question.told(request_id))
        self.emit(records.THREAD_STATUS, {"status": "waiting_approval"})
        self.flush()
        return request_id

    def resolved(self, request_id: str, answer: Answer) -> None:
        """The agent has the answer: confirm it. Call it once the agent was told."""
        told = {"request_id": request_id, "decision": answer.decision}
        self.emit(
            records.EXEC_APPROVAL_RESOLVED, {**told, **({"by": answer.by} if answer.by else {})}
        )
        self.emit(records.THREAD_STATUS, {"status": "active"})
        self.flush()


class Runtime(ABC):
    """One agent; used by one turn at a time, from the turn's thread unless said otherwise."""

    def start(self) -> None:  # noqa: B027 - a runtime without a process has nothing to do
        """Get ready, before the first turn.

        Raises: RuntimeUnusable.
        """

    @abstractmethod
    def turn(self, prompt: str, context: TurnContext) -> str:
        """Carry out a prompt; the final assistant text.

        Raises: TurnError; Interrupted (after ``interrupt``).
        """

    def interrupt(self) -> None:  # noqa: B027 - the scope's interruption may be enough
        """The running turn was interrupted (the loop's thread); its scope knows already."""

    def steer(self, content: str) -> bool:
        """Add to the running turn (the loop's thread); whether this runtime can."""
        return False

    def processes(self) -> Sequence[Spared]:
        """The agent's own processes, which outlive turns (any thread)."""
        return ()

    def secrets(self) -> Sequence[str]:
        """Values beside those of the environment that no record may hold, such as a login's
        tokens; asked before each turn (the turn's thread)."""
        return ()

    def close(self) -> None:  # noqa: B027 - a runtime without a process has nothing to do
        """End what ``start`` began."""
