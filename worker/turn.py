"""One turn from its record to ``turn_complete``, whatever happens in between."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from worker import oom, records
from worker.config import Config
from worker.environ import agent_environ
from worker.errors import Interrupted, TurnError
from worker.log import complain
from worker.masking import Masker
from worker.outbox import Outbox
from worker.records import UserRecord
from worker.runtimes.base import Runtime, TurnContext
from worker.scope import TurnScope
from worker.signals import REASONS
from worker.skills import Skills

if TYPE_CHECKING:  # slow to load, and not needed for prompts without a repository
    from worker.agentgit import Identity
    from worker.project import ProjectTurn

MAX_ANSWER_BYTES = 64 << 10
MAX_TRACE_CHARS = 64 << 10
ORDER_SECONDS = 0.3
"""So long after a failure an order to leave is taken for its cause."""
OUT_OF_MEMORY = (
    "the job's memory was used up, and a process of it was killed: ask for more (such as --mem)"
)
_BLAMED = frozenset({"task", "infrastructure"})
"""Classes of failures that may come of processes that somebody has ended."""
CAPTURE_VARIABLE = "CODESWARM_CAPTURE_ALL_SESSION"


class Turns:
    """Carries out turns, one at a time, in one thread.

    Args:
        config: the worker's.
        outbox: where events go.
        runtime: the agent.
        environ: the process environment.
        masker: the outbox's.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        runtime: Runtime,
        environ: Mapping[str, str],
        masker: Masker | None = None,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._runtime = runtime
        self._environ = environ
        self._agent_env = agent_environ(config, environ)
        self._masker = masker or Masker(config.secrets)
        self._skills = Skills(config.persona.skills)
        self._identity: Identity | None = None
        self._keep: Callable[[], str] | None = None

    def run(self, record: UserRecord, scope: TurnScope) -> bool:
        """Carry out a user record; whether the turn completed.

        ``turn_started`` is its first record and ``turn_complete`` its last, and no process that
        it started lives on.
        """
        injection = record["injection_id"]
        self._outbox.emit(records.TURN_STARTED, {"attempt": record["task"]["attempt"]}, injection)
        end = self._end(scope, lambda: self._work(record, scope))
        self._outbox.emit(records.TURN_COMPLETE, end, injection)
        self._flush_quietly()
        return bool(end["status"] == "completed")

    def run_system_prompt(self, scope: TurnScope) -> bool:
        """Carry out the swarm's system prompt as a turn of its own; whether it completed."""
        record: UserRecord = {
            "type": "user",
            "epoch": 0,
            "injection_id": f"{self._config.job}.system",
            "content": self._config.system_prompt,
            "task": {"name": "system", "uid": "", "kind": "system", "attempt": 1},
        }
        return self.run(record, scope)

    def refuse(self, record: UserRecord, reason: str) -> None:
        """End a turn that was interrupted before it began."""
        injection = record["injection_id"]
        self._outbox.emit(records.TURN_STARTED, {"attempt": record["task"]["attempt"]}, injection)
        self._outbox.emit(records.TURN_COMPLETE, interrupted(reason), injection)
        self._flush_quietly()

    def _flush_quietly(self) -> None:
        try:
            self._outbox.flush()
        except OSError as error:
            complain(f"outbox: {error}")  # the loop tries again

    def _end(self, scope: TurnScope, work: Callable[[], str]) -> dict[str, Any]:
        """Do the work and clean up after it: the data of ``turn_complete``."""
        self._keep = None
        killed = self._killed()
        try:
            end: dict[str, Any] = {"status": "completed", "answer": tail(work())}
        except Interrupted as stop:
            end = interrupted(stop.reason)
        except TurnError as error:
            end = _failed(error.kind, error.message)
            if error.retry_after is not None and math.isfinite(error.retry_after):
                end["error"]["retry_after_seconds"] = error.retry_after
        except OSError as error:
            end = _failed("infrastructure", f"the worker's node: {error}")
        except Exception as error:
            complain(traceback.format_exc())
            end = _failed("infrastructure", f"the worker failed: {type(error).__name__}: {error}")
        if end["status"] == "failed" and end["error"]["class"] in _BLAMED:
            reason = scope.order(ORDER_SECONDS)
            if reason:  # what it failed by was most likely ended beside us
                message = end["error"]["message"]
                end = interrupted(reason)
                end["error"]["message"] += f" ({message})"
            elif self._killed() > killed:
                end["error"]["class"] = "out_of_memory"
                end["error"]["message"] = f"{OUT_OF_MEMORY}; {end['error']['message']}"
        swept = scope.sweep()
        if not swept:
            complain("processes of the turn did not end in time")
        if swept and end.get("reason") in REASONS:
            end["error"]["message"] += self._save(scope)
        return end

    def _killed(self) -> int:
        """How many processes of our job, if we are one, were killed for lack of memory."""
        return oom.kills() if self._config.shared else 0

    def _save(self, scope: TurnScope) -> str:
        """Put what an interrupted turn has done so far where it is durable; what to say of it."""
        if self._keep is None or not scope.save():
            return ""
        try:
            return self._keep()
        except Interrupted:
            return "; there was no time to keep its work"
        except (TurnError, OSError) as error:
            complain(f"the work of an interrupted turn is not kept: {error}")
            return f"; its work could not be kept: {error}"
        finally:
            scope.sweep()

    # --- the work ---------------------------------------------------------------------------

    def _work(self, record: UserRecord, scope: TurnScope) -> str:
        self._masker.add(self._runtime.secrets())
        context = self._context(record, scope)
        if "repository" not in record:
            self._prepare_folder()
            context.emit(records.TASK_STARTED, {})
            return self._prompt(record["content"], context)
        context.accept()
        return self._project(record, context)

    def _context(self, record: UserRecord, scope: TurnScope) -> TurnContext:
        injection, task = record["injection_id"], record["task"]
        accepted = False

        def accept() -> None:
            nonlocal accepted
            if not accepted:
                self._outbox.flush()
                accepted = True

        repository = record.get("repository")
        return TurnContext(
            injection_id=injection,
            kind=task["kind"],
            workdir=self._config.workspace,
            scope=scope,
            emit=lambda event, data: self._outbox.emit(event, data, injection),
            flush=self._outbox.flush,
            accept=accept,
            env=self._agent_env,
            approval_policy=self._config.agent.approval_policy,
            attempt=task["attempt"],
            task=task.get("task_id") or task["name"],
            title=task.get("title", ""),
            branch=repository.get("branch", "") if repository else "",
            base_commit=repository["base_commit"] if repository else "",
            tracer=self._tracer(injection),
        )

    def _tracer(self, injection: str) -> Callable[[str, str], None] | None:
        """Takes raw traffic of a turn, if it was asked for."""
        if self._agent_env.get(CAPTURE_VARIABLE) != "1":
            return None

        def trace(direction: str, text: str) -> None:
            masked = self._masker.mask_traffic(text)
            told: dict[str, Any] = {"direction": direction, "text": masked[:MAX_TRACE_CHARS]}
            if len(masked) > MAX_TRACE_CHARS:
                told["cut"] = len(masked) - MAX_TRACE_CHARS
            self._outbox.emit(records.SESSION_TRACE, told, injection)

        return trace

    def _prepare_folder(self) -> None:
        """A folder for prompts without a repository: theirs, and empty after a project's task."""
        private = self._config.base / "git"
        if private.exists():
            from worker.trees import remove_tree

            remove_tree(self._config.workspace)
            remove_tree(private)
        self._config.workspace.mkdir(parents=True, exist_ok=True)

    def _prompt(self, text: str, context: TurnContext) -> str:
        """Have the agent carry out a text."""
        agent = self._config.agent
        fresh = agent.fresh_thread_per_prompt
        with self._skills.in_place(context.workdir) as taken:
            if taken:
                self._tell_taken(taken, context)
            if fresh and self._config.system_prompt:
                first = dataclasses.replace(context, kind="system", task="", branch="", fresh=True)
                self._runtime.turn(self._config.system_prompt, first)
                fresh = False
            answer = self._runtime.turn(text, dataclasses.replace(context, fresh=fresh))
        context.scope.check()
        return answer

    def _tell_taken(self, paths: list[str], context: TurnContext) -> None:
        message = (
            "these files of the persona are not written, since the repository or the folder has "
            f"something of its own there: {', '.join(paths[:10])}"
        )
        told = {"class": "persona", "message": message, "will_retry": False}
        context.emit(records.AGENT_ERROR, told)

    def _project(self, record: UserRecord, context: TurnContext) -> str:
        from worker.project import ProjectTurn

        turn = ProjectTurn(
            self._config,
            record=record,
            scope=context.scope,
            emit=context.emit,
            environ=self._environ,
            identity=self._who(context),
        )
        work = record.get("integration")
        if work is None:
            return self._task(record, turn, context)
        from worker.integration import Integration

        def ask(instructions: str) -> str:
            answer = self._prompt(f"{record['content']}\n\n{instructions}", context)
            context.scope.sweep()
            return answer

        self._keep = turn.keep
        return Integration(turn, work, context, ask).run()

    def _task(self, record: UserRecord, turn: ProjectTurn, context: TurnContext) -> str:
        base = turn.repository["base_commit"]
        conflicts = turn.check_out_with_dependencies()
        names = [path.decode("utf-8", "backslashreplace") for path in conflicts]
        told = {"base_commit": base, **({"conflicts": names} if names else {})}
        context.emit(records.TASK_STARTED, told)
        self._keep = turn.keep
        prompt = _conflict_note(names) + record["content"]
        answer = self._prompt(prompt, context)
        context.scope.sweep()
        context.scope.agent_done()
        if context.kind != "plan":
            turn.deliver(conflicts)
        return answer

    def _who(self, context: TurnContext) -> Identity:
        if self._identity is None:
            from worker.project import find_identity

            self._identity = find_identity(context.scope, self._config, self._environ)
        return self._identity


def interrupted(reason: str) -> dict[str, Any]:
    """``turn_complete`` of an interrupted turn."""
    error = {"class": "interrupted", "message": f"the turn was interrupted: {reason}"}
    return {"status": "interrupted", "answer": "", "error": error, "reason": reason}


def lost() -> dict[str, Any]:
    """``turn_complete`` of a turn whose worker process died."""
    return _failed("infrastructure", "the worker process died during the turn")


def tail(answer: str) -> str:
    """The end of an answer, where agents report, as far as a record may carry it."""
    data = answer.encode("utf-8", "replace")
    if len(data) <= MAX_ANSWER_BYTES:
        return data.decode()
    return data[-MAX_ANSWER_BYTES:].decode("utf-8", "ignore")


def _failed(kind: str, message: str) -> dict[str, Any]:
    return {"status": "failed", "answer": "", "error": {"class": kind, "message": message}}


def _conflict_note(paths: list[str]) -> str:
    if not paths:
        return ""
    listed = "\n".join(f"- {path}" for path in paths)
    return (
        "Before anything else: the finished tasks that this one builds on conflict with each "
        f"other in these files of your checkout:\n\n{listed}\n\n"
        "Resolve them so that the intent of both sides is kept, and remove all conflict "
        "markers. Then go on with the task:\n\n"
    )
