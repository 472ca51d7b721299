"""A turn while it runs: what Claude Code asks, who answers, and how the turn ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from claude_agent_sdk import (
    Message,
    PermissionResultAllow,
    PermissionResultDeny,
    PermissionUpdate,
    ResultMessage,
    ToolPermissionContext,
)

from worker.log import complain
from worker.runtimes.base import TurnContext
from worker.runtimes.claude_events import TurnEvents
from worker.runtimes.claude_policy import ALLOW, COMMAND_TOOLS, DENY, Policy, Verdict
from worker.runtimes.claude_questions import Remembered, question
from worker.scope import Answer

DELTA_SECONDS = 0.1
"""How long pieces of a text are collected before they are told together."""

REFUSED = "Refused"
"""Reason of a turn that a person ended by answering a question with ``cancel``."""


class RunningTurn:
    """One turn; every method belongs to the event loop's thread.

    Args:
        context: the turn's.
        events: its translator.
        policy: what is allowed.
        remembered: what was allowed for the rest of the conversation.
    """

    def __init__(
        self, context: TurnContext, events: TurnEvents, policy: Policy, remembered: Remembered
    ) -> None:
        self._context = context
        self._events = events
        self._policy = policy
        self._remembered = remembered
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._decided: dict[str, tuple[str, Answer]] = {}
        self._streaming: asyncio.TimerHandle | None = None
        self.stopped = asyncio.Event()
        """Set once the turn is to end early."""
        self.finished: asyncio.Future[ResultMessage] = self._loop.create_future()
        """The result, or how the process ended."""
        self._unanswered: set[str] = set()
        self.cancelled = False
        """Whether a person ended the turn by an answer."""

    def wake(self) -> None:
        """Look at the scope: answers may have come, or an interruption."""
        scope = self._context.scope
        if scope.interrupted:
            self.stopped.set()
        for request_id, future in self._waiting.items():
            answer = scope.answer_to(request_id)
            if answer is not None and not future.done():
                future.set_result(answer)

    def take(self, message: Message) -> None:
        """A message of the process came."""
        try:
            self._events.take(message)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # A shape that this version does not know must not end a turn that is paid for.
            complain(f"claude: {type(message).__name__}: {type(error).__name__}: {error}")
        if self._events.give_up is not None:
            self.stopped.set()
        if not self._events.streaming:
            self._flush()
        elif self._streaming is None:
            self._streaming = self._loop.call_later(DELTA_SECONDS, self._flush_deltas)

    def result(self, result: ResultMessage, used: Mapping[str, Any]) -> None:
        """The process has ended an answer.

        What was steered in too late for it gets one of its own, which belongs to this turn.

        Args:
            used: tokens since the last result, by model.
        """
        self._events.settle(used)
        self._flush()
        self._unanswered.difference_update(result.user_message_uuids or self._unanswered)
        over = result.is_error or self.stopped.is_set() or not self._unanswered
        if over and not self.finished.done():
            self.finished.set_result(result)

    def said(self, message: str) -> None:
        """The prompt, or a text that is steered in, goes to the process under this id."""
        self._unanswered.add(message)

    def lost(self, error: Exception) -> None:
        """The process ended."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def close(self) -> None:
        """The turn is over."""
        if self._streaming is not None:
            self._streaming.cancel()
        for future in self._waiting.values():
            future.cancel()

    # --- permissions ------------------------------------------------------------------------

    def judge(self, tool: str, arguments: Mapping[str, Any], call: str) -> Verdict | None:
        """Decide on a call before Claude Code does; None where it shall, and ask.

        Which commands only read it knows better; so a command is never refused here.
        """
        verdict = self._policy.verdict(tool, arguments)
        if verdict.action == DENY and tool not in COMMAND_TOOLS:
            self._events.declined(call)
            return verdict
        return verdict if verdict.action == ALLOW else None

    async def permit(
        self, tool: str, arguments: dict[str, Any], about: ToolPermissionContext
    ) -> PermissionResultAllow | PermissionResultDeny:
        """Decide on a call that Claude Code asks about."""
        call = about.tool_use_id or ""
        verdict = self._policy.verdict(tool, arguments)
        if verdict.action == ALLOW or self._remembered.covers(tool, arguments):
            return PermissionResultAllow()
        if verdict.action == DENY:
            return self._deny(call, f"Not allowed: {verdict.reason}.")
        reason = "; ".join(part for part in (verdict.reason, about.decision_reason or "") if part)
        asked = question(tool, arguments, self._context.workdir, reason, _rules(about.suggestions))
        try:
            request_id = self._context.put(asked)
        except OSError as error:
            return self._deny(call, f"Nobody could be asked: {error}.")
        answer = await self._answer(request_id)
        self._decided[call] = (request_id, answer)
        if answer.approved:
            if answer.decision == "approve-session":
                self._remembered.keep(tool, arguments)
            return PermissionResultAllow()
        self.cancelled = self.cancelled or answer.decision == "cancel"
        return self._deny(call, _refused(answer), interrupt=answer.decision == "cancel")

    def answered(self, call: str) -> None:
        """The process has got the decision on a call."""
        request_id, answer = self._decided.pop(call, ("", None))
        if answer is not None:
            try:
                self._context.resolved(request_id, answer)
            except OSError as error:
                complain(f"outbox: {error}")

    async def _answer(self, request_id: str) -> Answer:
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[request_id] = future
        self.wake()
        try:
            return await future
        finally:
            del self._waiting[request_id]

    def _deny(self, call: str, message: str, *, interrupt: bool = False) -> PermissionResultDeny:
        self._events.declined(call)
        return PermissionResultDeny(message=message, interrupt=interrupt)

    # --- records ----------------------------------------------------------------------------

    def _flush_deltas(self) -> None:
        self._streaming = None
        self._events.flush()
        self._flush()

    def _flush(self) -> None:
        try:
            self._context.flush()
        except OSError as error:
            complain(f"outbox: {error}")  # it waits, and the loop tries again


def _refused(answer: Answer) -> str:
    by = f" by {answer.by}" if answer.by else ""
    why = f": {answer.reason}" if answer.reason else ""
    return f"Refused{by}{why}. Do not try to reach the same by other means."


def _rules(suggestions: list[PermissionUpdate]) -> list[str]:
    """What Claude Code proposes to remember, as its own settings spell it."""
    rules = []
    for suggestion in suggestions:
        for rule in suggestion.rules or ():
            content = f"({rule.rule_content})" if rule.rule_content else ""
            rules.append(f"{rule.tool_name}{content}")
    return rules
