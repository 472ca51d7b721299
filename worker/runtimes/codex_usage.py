"""Codex's token counts, which are cumulative for a thread, as counts of one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from worker.records import Tokens

_NAMES = {
    "input": "inputTokens",
    "cached_input": "cachedInputTokens",
    "cache_write": "cacheWriteInputTokens",
    "output": "outputTokens",
    "reasoning_output": "reasoningOutputTokens",
}

Counts = dict[str, int]


@dataclass
class _Thread:
    """What is known of one thread."""

    seen: Counts | None = None
    """Its last cumulative counts; None: not told yet."""
    used: Counts = field(default_factory=dict)
    """Used in the attempt so far."""


class Ledger:
    """Counts what one attempt after the other uses in each thread.

    Only growth is counted, field by field, so that a thread resumed with its earlier counts and
    one whose counts begin anew are both right.
    """

    def __init__(self) -> None:
        self._threads: dict[str, _Thread] = {}
        self._attempt = ""

    def begin(self, attempt: str) -> None:
        """From now on count for this attempt; nothing happens if it is the same."""
        if attempt != self._attempt:
            self._attempt = attempt
            for thread in self._threads.values():
                thread.used = {}

    def started(self, thread: str) -> None:
        """The thread is new: it has used nothing."""
        self._threads[thread] = _Thread(dict.fromkeys(_NAMES, 0))

    def told(self, thread: str, usage: Any) -> tuple[Tokens, Tokens] | None:
        """Take in a ``tokenUsage``; the attempt's total and the last step's, None if nothing grew.

        Args:
            thread: its id.
            usage: ``{total, last}`` of the protocol.
        """
        if not isinstance(usage, Mapping):
            return None
        total, last = _counts(usage.get("total")), _counts(usage.get("last"))
        known = self._threads.setdefault(thread, _Thread())
        # A thread that was begun by an earlier process: before this step there were the others.
        seen = known.seen or {name: max(0, total[name] - last[name]) for name in _NAMES}
        grown = {name: max(0, total[name] - seen[name]) for name in _NAMES}
        known.seen = total
        if not any(grown.values()):
            return None
        known.used = {name: known.used.get(name, 0) + count for name, count in grown.items()}
        return _tokens(known.used), _tokens(grown)

    def resumed(self, thread: str) -> None:
        """Another process goes on with the thread: what it counts from is yet to be seen."""
        self._threads.setdefault(thread, _Thread()).seen = None

    def replayed(self, thread: str, usage: Any) -> None:
        """Take in what a resumed thread had used before, which counts for no attempt."""
        if isinstance(usage, Mapping):
            self._threads.setdefault(thread, _Thread()).seen = _counts(usage.get("total"))


def _counts(value: Any) -> Counts:
    found = value if isinstance(value, Mapping) else {}
    return {
        name: count if isinstance(count, int) and count > 0 else 0
        for name, count in ((name, found.get(theirs)) for name, theirs in _NAMES.items())
    }


def _tokens(counts: Counts) -> Tokens:
    tokens: dict[str, int] = {"total": counts["input"] + counts["output"], **counts}
    return cast("Tokens", tokens)
