"""One turn's notifications of the app-server, told in the worker's own vocabulary."""

from __future__ import annotations

import json
import os.path
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worker import records
from worker.log import complain
from worker.runtimes.base import TurnContext
from worker.runtimes.codex_errors import turn_error
from worker.runtimes.codex_questions import shell_text
from worker.runtimes.codex_usage import Ledger
from worker.scope import OUTPUT_TAIL_BYTES

Params = Mapping[str, Any]

MAX_DELTA_CHARS = 16 << 10
"""Of pieces of one message that come close together, so many are told as one."""
MAX_TEXT_CHARS = 256 << 10
"""Of a longer message the end is told."""
MAX_COMMAND_CHARS = 64 << 10
MAX_CHANGES = 200

_DELTAS = {
    "item/agentMessage/delta": records.ASSISTANT_DELTA,
    "item/reasoning/summaryTextDelta": records.REASONING_DELTA,
    "item/reasoning/textDelta": records.REASONING_DELTA,
}


class Narrator:
    """Tells what happens in a turn.

    Args:
        context: the turn.
        thread: the conversation's id.
        model: its model.
        ledger: counts tokens.
    """

    def __init__(self, context: TurnContext, thread: str, model: str, ledger: Ledger) -> None:
        self._context = context
        self._thread = thread
        self._ledger = ledger
        self.model = model
        self.turn = ""
        """The turn's id in the protocol, once it is known."""
        self.limits: Mapping[str, Any] = {}
        """The last rate limits that the provider told."""
        self.answer = ""
        """The last message of the assistant."""
        self.changes: dict[str, Sequence[Params]] = {}
        """File changes under way, by the item's id."""
        self._ids: dict[str, str] = {}
        self._piece: tuple[str, str] = ("", "")
        self._pieces: list[str] = []
        self._begun: set[str] = set()
        self._on: Mapping[str, Callable[[Params], None]] = {
            "item/started": lambda params: self._item(params, done=False),
            "item/completed": lambda params: self._item(params, done=True),
            "item/reasoning/summaryPartAdded": self._part_added,
            "thread/tokenUsage/updated": self._usage,
            "account/rateLimits/updated": self._rate_limits,
            "model/rerouted": self._rerouted,
            "error": self._error,
        }
        self._items: Mapping[str, Callable[[str, Params, bool], None]] = {
            "agentMessage": self._message,
            "reasoning": self._reasoning,
            "commandExecution": self._command,
            "fileChange": self._files,
            "mcpToolCall": self._tool,
            "webSearch": self._search,
            "contextCompaction": self._compaction,
        }

    def take(self, method: str, params: Params) -> None:
        """Tell a notification; those that say nothing to people are passed over."""
        if method in _DELTAS:
            self._delta(_DELTAS[method], params)
        elif method in self._on:
            self._on[method](params)

    def finish_deltas(self) -> None:
        """Tell the pieces of a message that were kept back."""
        if self._pieces:
            event, item = self._piece
            self._context.emit(event, {"item": item, "text": "".join(self._pieces)})
            self._pieces = []

    def paths(self, changes: Sequence[Params]) -> list[str]:
        """How people know changed files: relative to the checkout where they are in it."""
        return [self._path(change.get("path")) for change in changes]

    # --- messages ---------------------------------------------------------------------------

    def _delta(self, event: str, params: Params) -> None:
        if self._mine(params):
            self._add(event, params.get("itemId"), params.get("delta"))

    def _part_added(self, params: Params) -> None:
        index = params.get("summaryIndex")
        if self._mine(params) and isinstance(index, int) and index > 0:
            self._add(records.REASONING_DELTA, params.get("itemId"), "\n\n")

    def _add(self, event: str, item: Any, text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        piece = (event, self._id(item))
        if piece != self._piece or sum(map(len, self._pieces)) > MAX_DELTA_CHARS:
            self.finish_deltas()
        self._piece = piece
        self._pieces.append(text)

    def _message(self, item: str, found: Params, done: bool) -> None:
        text = found.get("text")
        if done and isinstance(text, str):
            self.answer = text
            self._emit(records.ASSISTANT, {"item": item, "text": text[-MAX_TEXT_CHARS:]})

    def _reasoning(self, item: str, found: Params, done: bool) -> None:
        parts = found.get("summary") or found.get("content") or []
        text = "\n\n".join(part for part in parts if isinstance(part, str))
        if done and text:
            self._emit(records.REASONING, {"item": item, "text": text[-MAX_TEXT_CHARS:]})

    # --- actions ----------------------------------------------------------------------------

    def _command(self, item: str, found: Params, done: bool) -> None:
        self._ran(
            item,
            shell_text(found.get("command")),
            done,
            output=found.get("aggregatedOutput"),
            exit_code=found.get("exitCode"),
            milliseconds=found.get("durationMs"),
            status=found.get("status"),
        )

    def _tool(self, item: str, found: Params, done: bool) -> None:
        arguments = json.dumps(found.get("arguments"))[:1024]
        name = f"{found.get('server')}.{found.get('tool')} {arguments}"
        failed = found.get("error") or found.get("status") == "failed"
        self._ran(
            item,
            f"tool {name}",
            done,
            output=json.dumps(found.get("error") or found.get("result")),
            exit_code=1 if failed else 0,
            milliseconds=found.get("durationMs"),
            status=found.get("status"),
        )

    def _search(self, item: str, found: Params, done: bool) -> None:
        self._ran(item, f"web search: {found.get('query') or ''}", done, exit_code=0)

    def _ran(
        self,
        item: str,
        command: str,
        done: bool,
        *,
        output: Any = None,
        exit_code: Any = None,
        milliseconds: Any = None,
        status: Any = None,
    ) -> None:
        told = {"item": item, "command": command[:MAX_COMMAND_CHARS], "source": "agent"}
        if item not in self._begun:
            self._begun.add(item)
            self._emit(records.COMMAND_STARTED, told)
        if not done:
            return
        text = output if isinstance(output, str) else ""
        tail = text.encode("utf-8", "replace")[-OUTPUT_TAIL_BYTES:].decode("utf-8", "ignore")
        seconds = milliseconds / 1000 if isinstance(milliseconds, (int, float)) else 0.0
        more: dict[str, Any] = {"output": tail, "seconds": round(seconds, 3)}
        if isinstance(exit_code, int):
            more["exit_code"] = exit_code
        elif isinstance(status, str):
            more["status"] = status  # declined, or ended without an exit code
        self._emit(records.COMMAND_COMPLETED, {**told, **more})

    def _files(self, item: str, found: Params, done: bool) -> None:
        changes = [one for one in found.get("changes") or () if isinstance(one, Mapping)]
        named = found.get("id")
        if isinstance(named, str):
            self.changes[named] = changes
        for number, change in enumerate(changes[:MAX_CHANGES]):
            kind = change.get("kind")
            verb = kind.get("type") if isinstance(kind, Mapping) else kind
            part = f"{item}.{number}"
            told = {"item": part, "path": self._path(change.get("path")), "kind": verb}
            if part not in self._begun:
                self._begun.add(part)
                self._emit(records.FILECHANGE_STARTED, told)
            if done:
                status = found.get("status")
                self._emit(records.FILECHANGE_COMPLETED, {**told, "status": status})
        if done and isinstance(named, str):
            self.changes.pop(named, None)

    def _compaction(self, item: str, found: Params, done: bool) -> None:
        if done:
            told = {"status": "active", "reason": "ContextCompacted"}
            self._emit(records.THREAD_STATUS, told)

    def _item(self, params: Params, *, done: bool) -> None:
        found = params.get("item")
        if not isinstance(found, Mapping) or not self._mine(params):
            return
        tell = self._items.get(str(found.get("type")))
        if tell is not None:
            tell(self._id(found.get("id")), found, done)

    # --- the provider -----------------------------------------------------------------------

    def _usage(self, params: Params) -> None:
        thread, usage = params.get("threadId"), params.get("tokenUsage")
        if not isinstance(thread, str) or not isinstance(usage, Mapping):
            return
        if thread == self._thread and params.get("turnId") != self.turn:
            self._ledger.replayed(thread, usage)  # what a resumed thread used before
            return
        counted = self._ledger.told(thread, usage)
        if counted is None:
            return
        total, last = counted
        told: dict[str, Any] = {
            "session": thread,
            "model": self.model,
            "total": total,
            "last": last,
        }
        window = usage.get("modelContextWindow")
        if isinstance(window, int):
            told["context_window"] = window
        self._emit(records.USAGE, told)

    def _rate_limits(self, params: Params) -> None:
        limits = params.get("rateLimits")
        if isinstance(limits, Mapping):
            self.limits = limits

    def _rerouted(self, params: Params) -> None:
        model = params.get("toModel")
        if self._mine(params) and isinstance(model, str) and model:
            self.model = model

    def _error(self, params: Params) -> None:
        """Told here only if Codex tries again: else the turn's end says it."""
        if params.get("willRetry") and self._mine(params):
            error = turn_error(params.get("error"), self.limits, self.model)
            told = {"class": error.kind, "message": error.message, "will_retry": True}
            self._emit(records.AGENT_ERROR, told)

    # --- small things -----------------------------------------------------------------------

    def _mine(self, params: Params) -> bool:
        """Whether it is of this conversation, not of one that the agent began beside it."""
        return params.get("threadId") == self._thread

    def _id(self, theirs: Any) -> str:
        name = str(theirs)
        if name not in self._ids:
            self._ids[name] = self._context.item()
        return self._ids[name]

    def _path(self, path: Any) -> str:
        text = str(path)
        for root in (self._context.workdir, self._context.workdir.resolve()):
            relative = os.path.relpath(text, root) if text.startswith("/") else text
            if not relative.startswith(".."):
                return relative
        return text

    def _emit(self, event: str, data: dict[str, Any]) -> None:
        self.finish_deltas()
        try:
            self._context.emit(event, data)
        except ValueError as error:  # no JSON: a number that is none
            complain(f"codex: an event cannot be told: {error}")
