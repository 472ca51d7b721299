"""One turn of Claude Code in the mailbox's vocabulary: its messages in, records out."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    Message,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from worker import records
from worker.errors import TurnError
from worker.runtimes.base import TurnContext
from worker.runtimes.claude_failures import Ending, failure, kind_of
from worker.runtimes.claude_policy import COMMAND_TOOLS, EDIT_TOOLS, edited_path
from worker.runtimes.claude_questions import shown_path, summary, text_of
from worker.runtimes.claude_usage import AttemptUsage
from worker.scope import OUTPUT_TAIL_BYTES

PATIENT_SECONDS = 20.0
"""A longer pause that the provider asks for ends the turn: the controller waits better."""
DECLINED = -1
"""Exit code of a command that was not allowed."""

_DELTAS = {"text_delta": ("text", "text"), "thinking_delta": ("thinking", "thinking")}
_EVENTS = {"text": records.ASSISTANT_DELTA, "thinking": records.REASONING_DELTA}
_QUIET_TOOLS = frozenset({"Read", "Glob", "Grep", "NotebookRead"})
"""Their output is the repository's own text."""


@dataclass
class _Call:
    """A call of a tool that has not ended."""

    tool: str
    told: dict[str, Any]
    began: float


class TurnEvents:
    """Translates; every method belongs to the event loop's thread.

    Args:
        context: the turn's.
        usage: of the attempt within this conversation.
        retries: how often a call to the provider is repeated.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        context: TurnContext,
        usage: AttemptUsage,
        retries: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._context = context
        self._usage = usage
        self._retries = retries
        self._clock = clock
        self._root: Path = context.workdir
        self._open: dict[str, deque[str]] = {"text": deque(), "thinking": deque()}
        self._pieces: dict[str, tuple[str, list[str]]] = {}
        self._calls: dict[str, _Call] = {}
        self._declined: set[str] = set()
        self._call_model = ""
        self._call_usage: dict[str, Any] = {}
        self._error = ""
        self._retry_after: float | None = None
        self._said = ""
        self.model = ""
        """The name that the process runs under, once it said so."""
        self.give_up: TurnError | None = None
        """Why the turn is to end at once, if it is."""

    @property
    def streaming(self) -> bool:
        """Whether pieces of text wait to be told."""
        return bool(self._pieces)

    def declined(self, call: str) -> None:
        """A call was not allowed."""
        self._declined.add(call)

    def take(self, message: Message) -> None:
        """Tell what a message of the process says; a result is left to ``end``."""
        if isinstance(message, StreamEvent):
            if message.parent_tool_use_id is None:
                self._stream(message.event)
        elif isinstance(message, AssistantMessage):
            self.flush()
            self._assistant(message)
        elif isinstance(message, UserMessage):
            self._results(message)
        elif isinstance(message, RateLimitEvent):
            self._limits(message)
        elif isinstance(message, SystemMessage):
            self._system(message)

    def flush(self) -> None:
        """Tell the pieces of text that came since the last time."""
        for item, (kind, pieces) in self._pieces.items():
            self._context.emit(_EVENTS[kind], {"item": item, "text": "".join(pieces)})
        self._pieces.clear()

    def settle(self, used: Mapping[str, Any]) -> None:
        """The turn's result came: tell what it used.

        Args:
            used: tokens since the last result, by model.
        """
        self.abandon()
        for told in self._usage.settle(used):
            self._context.emit(records.USAGE, told)

    def answer(self, result: ResultMessage) -> str:
        """The final answer.

        Raises: TurnError.
        """
        text = result.result if isinstance(result.result, str) else ""
        if not result.is_error:
            return text or self._said
        raise failure(
            Ending(
                text=text,
                subtype=result.subtype,
                status=result.api_error_status,
                error=self._error,
                errors=[str(error) for error in result.errors or ()],
                retry_after=self._retry_after,
                model=self.model,
            )
        )

    def abandon(self) -> None:
        """Tell the end of what was begun and did not end by itself."""
        self.flush()
        for call in list(self._calls):
            self._completed(call, "", failed=True, result=None)

    # --- one kind of message each -----------------------------------------------------------

    def _stream(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "message_start":
            message = event.get("message") or {}
            self._call_model = str(message.get("model") or "")
            self._call_usage = dict(message.get("usage") or {})
            for waiting in self._open.values():
                waiting.clear()
        elif kind == "content_block_start":
            block = (event.get("content_block") or {}).get("type")
            if block in self._open:
                self._open[block].append(self._context.item())
        elif kind == "content_block_delta":
            self._delta(event.get("delta") or {})
        elif kind == "message_delta":
            told = event.get("usage") or {}
            self._call_usage.update({k: v for k, v in told.items() if v is not None})
            used = self._usage.call(self._call_model, self._call_usage)
            if used is not None:
                self._context.emit(records.USAGE, used)

    def _delta(self, delta: Mapping[str, Any]) -> None:
        kind, field = _DELTAS.get(str(delta.get("type")), ("", ""))
        text = delta.get(field)
        if not kind or not isinstance(text, str) or not text or not self._open[kind]:
            return
        item = self._open[kind][-1]
        self._pieces.setdefault(item, (kind, []))[1].append(text)

    def _assistant(self, message: AssistantMessage) -> None:
        own = message.parent_tool_use_id is None
        if message.error:
            self._error = message.error
            return
        for block in message.content:
            if isinstance(block, TextBlock) and own:
                self._said = block.text
                self._tell(records.ASSISTANT, "text", block.text)
            elif isinstance(block, ThinkingBlock) and own:
                self._tell(records.REASONING, "thinking", block.thinking)
            elif isinstance(block, ToolUseBlock):
                self._started(block)

    def _tell(self, event: str, kind: str, text: str) -> None:
        item = self._open[kind].popleft() if self._open[kind] else self._context.item()
        if text:
            self._context.emit(event, {"item": item, "text": text})

    def _started(self, block: ToolUseBlock) -> None:
        arguments = block.input if isinstance(block.input, dict) else {}
        told: dict[str, Any] = {"item": self._context.item()}
        if block.name in EDIT_TOOLS:
            path = edited_path(arguments)
            there = bool(path) and os.path.lexists(self._root / path)
            told["path"] = shown_path(self._root, path)
            told["kind"] = "update" if there else "add"
            self._context.emit(records.FILECHANGE_STARTED, dict(told))
        else:
            told["command"] = summary(block.name, arguments, self._root)
            told["source"] = "agent"
            if block.name not in COMMAND_TOOLS:
                told["tool"] = block.name
            self._context.emit(records.COMMAND_STARTED, dict(told))
        self._calls[block.id] = _Call(block.name, told, time.monotonic())

    def _results(self, message: UserMessage) -> None:
        if isinstance(message.content, str):
            return
        for block in message.content:
            if isinstance(block, ToolResultBlock):
                text, result = _text(block.content), message.tool_use_result
                self._completed(block.tool_use_id, text, bool(block.is_error), result)

    def _completed(
        self, call: str, text: str, failed: bool, result: Mapping[str, Any] | None
    ) -> None:
        begun = self._calls.pop(call, None)
        if begun is None:
            return
        declined = call in self._declined
        if begun.tool in EDIT_TOOLS:
            status = "declined" if declined else "failed" if failed else "completed"
            self._context.emit(records.FILECHANGE_COMPLETED, {**begun.told, "status": status})
            return
        code = DECLINED if declined else _exit_code(text, result) if failed else 0
        quiet = begun.tool in _QUIET_TOOLS and not failed
        ended = {
            "exit_code": code,
            "output": "" if quiet else _tail(_output(text, result)),
            "seconds": round(time.monotonic() - begun.began, 3),
        }
        self._context.emit(records.COMMAND_COMPLETED, {**begun.told, **ended})

    def _system(self, message: SystemMessage) -> None:
        data = message.data
        if message.subtype == "init":
            self.model = str(data.get("model") or "")
            self._usage.named(self.model)
        elif message.subtype == "api_retry":
            self._retry(data)
        elif message.subtype == "permission_denied":
            self._declined.add(str(data.get("tool_use_id")))

    def _retry(self, data: Mapping[str, Any]) -> None:
        status, delay = data.get("error_status"), data.get("retry_delay_ms")
        seconds = delay / 1000 if isinstance(delay, (int, float)) else 0.0
        ending = Ending(
            text=f"{data.get('error') or 'a call failed'}"
            + (f" (HTTP {status})" if isinstance(status, int) else ""),
            status=status if isinstance(status, int) else None,
            error=str(data.get("error") or ""),
            retry_after=seconds,
        )
        kind = kind_of(ending)
        if kind == "task":
            kind = "overloaded"  # what Claude Code repeats is no fault of the task
        attempt = data.get("attempt")
        long, often = (
            seconds > PATIENT_SECONDS,
            isinstance(attempt, int) and attempt > self._retries,
        )
        if long or often:
            after = seconds if long else None  # a short one is no wait that the provider named
            self.give_up = TurnError(kind, f"the model's provider: {ending.text}", after)
            return
        told = {"class": kind, "message": ending.text, "will_retry": True}
        self._context.emit(records.AGENT_ERROR, told)

    def _limits(self, message: RateLimitEvent) -> None:
        info = message.rate_limit_info
        if info.status == "rejected" and info.resets_at:
            self._retry_after = max(0.0, info.resets_at - self._clock())


def _text(content: Any) -> str:
    """A tool's result as text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [block.get("text") for block in content if isinstance(block, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


def _exit_code(text: str, result: Any) -> int:
    """Of a command that failed; Claude Code begins with it."""
    words = text.split(None, 3)
    if len(words) > 2 and words[:2] == ["Exit", "code"] and words[2].lstrip("-").isdigit():
        return int(words[2])
    return 1


def _output(text: str, result: Any) -> str:
    if isinstance(result, Mapping):
        streams = [text_of(result, name) for name in ("stdout", "stderr")]
        if any(streams):
            return "\n".join(stream for stream in streams if stream)
    return text


def _tail(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return data[-OUTPUT_TAIL_BYTES:].decode("utf-8", "ignore")
