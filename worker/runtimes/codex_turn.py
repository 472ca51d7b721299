"""One turn of Codex: from ``turn/start`` to ``turn/completed``, with its questions and its end.

Messages come from the client's thread into a queue; the turn's own thread takes them out, so that
a slow disk or a long wait for a person never keeps the process's output from being read.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.errors import Interrupted, TurnError
from worker.log import complain
from worker.runtimes import codex_questions as questions
from worker.runtimes.base import TurnContext
from worker.runtimes.codex_client import AppServer, Message, RequestRefused
from worker.runtimes.codex_errors import turn_error
from worker.runtimes.codex_events import Narrator
from worker.scope import Answer

START_SECONDS = 60.0
"""How long the process may take to begin a turn."""
INTERRUPT_SECONDS = 3.0
"""How long it may take to end one that was interrupted; then it is killed."""
DELTA_SECONDS = 0.1
"""Pieces of messages are told at most so often."""
FULL_BYTES = 16 << 20
"""With so much waiting, pieces of messages are left out."""
FLOODED_BYTES = 128 << 20
"""With so much waiting, the process is ended."""


@dataclass
class _Pending:
    """A question that Codex waits with."""

    number: Any
    request: questions.Request
    answer: Answer | None = None


class CodexTurn:
    """Carries out one prompt.

    Args:
        server: the process.
        context: the turn.
        thread: the conversation's id.
        narrator: tells what happens.
    """

    def __init__(
        self, server: AppServer, context: TurnContext, thread: str, narrator: Narrator
    ) -> None:
        self._server = server
        self._context = context
        self._thread = thread
        self._narrator = narrator
        self._changed = threading.Condition()
        self._queue: deque[tuple[Message, int]] = deque()
        self._waiting = 0
        self._poked = False
        self._pending: dict[str, _Pending] = {}
        self._started: concurrent.futures.Future[Any] | None = None
        self._end: Mapping[str, Any] | None = None
        self._ending = False
        self._interrupt_by = 0.0
        self._flush_at = 0.0

    # --- any thread -------------------------------------------------------------------------

    def put(self, message: Message, size: int) -> None:
        """Take a message in (the client's thread)."""
        with self._changed:
            if self._waiting > FULL_BYTES and _is_delta(message["method"]):
                return
            self._queue.append((message, size))
            self._waiting += size
            flooded = self._waiting > FLOODED_BYTES
            self._changed.notify()
        if flooded:
            self._server.kill()

    def poke(self) -> None:
        """Something outside has changed: an answer, an interruption, the process's end."""
        with self._changed:
            self._poked = True
            self._changed.notify()

    def steer(self, content: str, timeout: float) -> bool:
        """Add to the turn; whether Codex took it."""
        turn = self._narrator.turn
        if not turn or self._over:
            return False
        params = {"threadId": self._thread, "expectedTurnId": turn, "input": text_input(content)}
        try:
            self._server.request("turn/steer", params, timeout)
        except Exception as error:  # refused, gone, silent
            complain(f"codex: {error}")
            return False
        return True

    # --- the turn's thread ------------------------------------------------------------------

    def run(self, params: Mapping[str, Any]) -> str:
        """Carry it out; the final text.

        Args:
            params: of ``turn/start``.

        Raises: TurnError, Interrupted, OSError; ServerGone if the process ended before it began.
        """
        scope = self._context.scope
        scope.watch(self.poke)
        try:
            self._started = self._server.send("turn/start", params)
            self._started.add_done_callback(lambda _: self.poke())
            self._follow(time.monotonic() + START_SECONDS)
        finally:
            scope.watch(lambda: None)
            if not self._over:
                self._server.kill()  # it must not go on with what nobody follows any more
        self._narrator.finish_deltas()
        self._confirm_all()
        return self._outcome()

    def _follow(self, start_by: float) -> None:
        while not self._over:
            self._look_outside(start_by)
            for message in self._take(self._pause(start_by)):
                self._handle(message)
                self._plan_flush(message["method"])
            self._flush()

    @property
    def _over(self) -> bool:
        return self._end is not None

    def _pause(self, start_by: float) -> float | None:
        """Seconds until the next deadline; None: there is none."""
        deadlines = [self._flush_at, self._interrupt_by, 0.0 if self._narrator.turn else start_by]
        due = [deadline for deadline in deadlines if deadline]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take(self, timeout: float | None) -> list[Message]:
        with self._changed:
            # What comes before the turn's id is known waits for it.
            self._changed.wait_for(
                lambda: self._poked or bool(self._queue and self._narrator.turn), timeout
            )
            self._poked = False
            if not self._begun():
                return []
            found = [message for message, _ in self._queue]
            self._queue.clear()
            self._waiting = 0
            return found

    def _begun(self) -> bool:
        """Whether ``turn/start`` was answered; then the turn's id is known.

        Raises: TurnError, ServerGone.
        """
        started = self._started
        if self._narrator.turn or started is None or not started.done():
            return bool(self._narrator.turn)
        try:
            turn = started.result()["turn"]["id"]
        except RequestRefused as error:
            raise turn_error({"message": error.message}, model=self._narrator.model) from None
        except (KeyError, TypeError):
            raise TurnError("infrastructure", "Codex began a turn without an id") from None
        self._narrator.turn = str(turn)
        return True

    # --- what happens -----------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        method, params = message["method"], message.get("params")
        params = params if isinstance(params, dict) else {}
        try:
            if "id" in message:
                self._asked(method, message["id"], params)
            elif method == "turn/completed":
                self._completed(params)
            elif method == "serverRequest/resolved":
                self._settled(params.get("requestId"))
            else:
                self._narrator.take(method, params)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            complain(f"codex: {str(method)[:80]} cannot be understood: {error}")

    def _completed(self, params: Mapping[str, Any]) -> None:
        turn = params.get("turn")
        if isinstance(turn, dict) and turn.get("id") == self._narrator.turn:
            self._end = turn

    def _asked(self, method: str, number: Any, params: Mapping[str, Any]) -> None:
        if method == questions.COMMAND:
            request = questions.command_request(params)
        elif method == questions.FILE_CHANGE:
            changes = self._narrator.changes.get(str(params.get("itemId")), ())
            paths = self._narrator.paths(changes)
            cwd = str(self._context.workdir)
            request = questions.file_request(params, changes, paths, cwd)
        else:
            answer = questions.without_person(method)
            if answer is None:
                self._server.refuse(number, f"{method}: not supported")
            else:
                self._server.reply(number, answer)
            return
        if self._context.approval_policy == "never":
            self._server.reply(number, {"decision": request.choices["deny"]})
            return
        self._narrator.finish_deltas()
        self._pending[self._context.put(request.question)] = _Pending(number, request)

    def _look_outside(self, start_by: float) -> None:
        """Answers, interruptions, the process's end.

        Raises: TurnError, Interrupted, ServerGone.
        """
        scope = self._context.scope
        now = time.monotonic()
        if scope.interrupted:
            self._interrupt(now)
        else:
            self._give_answers()
        if self._server.gone and not self._queue:
            scope.check()
            self._begun()
            raise self._gone(self._server.gone)
        if not self._narrator.turn and now >= start_by:
            raise TurnError("infrastructure", f"Codex did not begin within {START_SECONDS:g} s")

    def _interrupt(self, now: float) -> None:
        if not self._interrupt_by:
            self._interrupt_by = now + INTERRUPT_SECONDS
        if now >= self._interrupt_by:
            self._server.kill()
            self._context.scope.check()
        turn = self._narrator.turn
        if turn and not self._ending:
            self._ending = True
            self._server.send("turn/interrupt", {"threadId": self._thread, "turnId": turn})

    def _give_answers(self) -> None:
        for name, pending in self._pending.items():
            answer = self._context.scope.answer_to(name)
            if answer is None or pending.answer is not None:
                continue
            pending.answer = answer
            choices = pending.request.choices
            decision = choices.get(answer.decision, choices["deny"])
            self._ending = self._ending or decision == "cancel"
            self._server.reply(pending.number, {"decision": decision})
            if decision == "decline" and answer.reason:
                self._explain(answer.reason)

    def _explain(self, reason: str) -> None:
        """Let the agent know why it may not; Codex's own answer has no place for it."""
        content = f"That was not approved, for this reason: {reason}"
        turn = self._narrator.turn
        params = {"threadId": self._thread, "expectedTurnId": turn, "input": text_input(content)}
        self._server.send("turn/steer", params)

    def _settled(self, number: Any) -> None:
        """Codex has the answer, or does not need it any more."""
        for name, pending in list(self._pending.items()):
            if pending.number == number:
                del self._pending[name]
                self._confirm(name, pending)

    def _confirm_all(self) -> None:
        for name, pending in self._pending.items():
            self._confirm(name, pending)
        self._pending = {}

    def _confirm(self, name: str, pending: _Pending) -> None:
        if pending.answer is not None:
            self._context.resolved(name, pending.answer)

    # --- the end ----------------------------------------------------------------------------

    def _outcome(self) -> str:
        end = self._end or {}
        status = end.get("status")
        self._context.scope.check()
        if status == "completed":
            return self._narrator.answer
        if status == "failed":
            raise turn_error(end.get("error"), self._narrator.limits, self._narrator.model)
        if self._ending:
            raise Interrupted("Refused")
        raise TurnError("infrastructure", f"Codex ended the turn by itself ({status})")

    def _gone(self, how: str) -> TurnError:
        errors = self._server.errors
        tail = f": {errors[-500:]}" if errors else ""
        return TurnError("infrastructure", f"{how} during the turn{tail}")

    def _plan_flush(self, method: str) -> None:
        """What was told is to be seen: pieces of messages not more often than need be."""
        now = time.monotonic()
        if not _is_delta(method):
            self._flush_at = now
        elif not self._flush_at:
            self._flush_at = now + DELTA_SECONDS

    def _flush(self) -> None:
        if self._flush_at and time.monotonic() >= self._flush_at:
            self._narrator.finish_deltas()
            self._context.flush()
            self._flush_at = 0.0


def text_input(content: str) -> list[dict[str, str]]:
    """A text as the protocol's ``input``."""
    return [{"type": "text", "text": content}]


def _is_delta(method: str) -> bool:
    return method.endswith(("Delta", "/delta"))
