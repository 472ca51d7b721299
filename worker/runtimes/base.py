"""The port to an agent runtime: one prompt in, events and an answer out."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker import records
from worker.scope import OUTPUT_TAIL_BYTES, Finished, TurnScope

Emit = Callable[[str, "dict[str, Any]"], None]
"""Adds one event with its data to the turn's records."""


@dataclass(frozen=True)
class TurnContext:
    """Where and for what a turn runs, and its ways to the outside."""

    injection_id: str
    kind: str
    """work, plan, integration, prompt, or system (the swarm's system prompt)."""
    workdir: Path
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
    _items: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def item(self) -> str:
        """A new id for a message, command or file change within this turn."""
        return f"{self.injection_id}/{next(self._items)}"

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

    def ask(self, command: str, reason: str = "") -> bool:
        """Ask for approval of a command and wait; whether it was approved.

        Under the approval policy ``never`` nothing is asked: the answer is no.

        Raises: Interrupted.
        """
        if self.approval_policy == "never":
            return False
        self.accept()
        request_id = self.item()
        request = {"request_id": request_id, "command": command, "cwd": str(self.workdir)}
        self.emit(
            records.EXEC_APPROVAL_REQUIRED, {**request, **({"reason": reason} if reason else {})}
        )
        self.emit(records.THREAD_STATUS, {"status": "waiting_approval"})
        self.flush()
        decision, by = self.scope.wait_answer(request_id)
        resolved = {"request_id": request_id, "decision": decision}
        self.emit(records.EXEC_APPROVAL_RESOLVED, {**resolved, **({"by": by} if by else {})})
        self.emit(records.THREAD_STATUS, {"status": "active"})
        return decision == "approve"


class Runtime(ABC):
    """One agent; used by one turn at a time, from the turn's thread unless said otherwise."""

    def start(self) -> None:  # noqa: B027 - a runtime without a process has nothing to do
        """Get ready, before the first turn.

        Raises: TurnError.
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

    def close(self) -> None:  # noqa: B027 - a runtime without a process has nothing to do
        """End what ``start`` began."""
