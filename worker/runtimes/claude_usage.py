"""Tokens of Claude Code, counted from an attempt's beginning.

Claude Code's own totals belong to its conversation: a process that resumes one takes up the old
totals, or some of them.  So they are not used, only what a result says came since the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Counts = dict[str, int]
"""Token classes as in ``worker.records.Tokens``."""

CLASSES = ("input", "cached_input", "cache_write", "output", "reasoning_output", "total")


def from_api(usage: Mapping[str, Any]) -> Counts:
    """The Messages API's ``usage`` of one call; there, cached input is beside the input."""
    details = usage.get("output_tokens_details")
    thinking = details.get("thinking_tokens") if isinstance(details, Mapping) else 0
    return _counts(
        usage.get("input_tokens"),
        usage.get("cache_read_input_tokens"),
        usage.get("cache_creation_input_tokens"),
        usage.get("output_tokens"),
        thinking,
    )


def from_process(usage: Mapping[str, Any]) -> Counts:
    """One model's part of what a result says was used."""
    return _counts(
        usage.get("inputTokens"),
        usage.get("cacheReadInputTokens"),
        usage.get("cacheCreationInputTokens"),
        usage.get("outputTokens"),
        usage.get("thinkingTokens"),
    )


def _counts(plain: Any, read: Any, written: Any, output: Any, thinking: Any) -> Counts:
    cached, cache_write, out = _count(read), _count(written), _count(output)
    into = _count(plain) + cached + cache_write
    return {
        "input": into,
        "cached_input": cached,
        "cache_write": cache_write,
        "output": out,
        "reasoning_output": min(_count(thinking), out),
        "total": into + out,
    }


def _count(value: Any) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return max(0, value) if whole else 0


class AttemptUsage:
    """Totals of one attempt within one conversation; they only grow.

    The calls of the main conversation are counted as they end.  A turn's result then says what
    all of it came to, subagents included: that is the truth, of which the calls are a part.

    Args:
        session: the conversation's id.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._totals: dict[str, Counts] = {}
        self._base: Counts = {}
        self._counted: Counts = {}
        self._caller = ""
        self._model = ""
        self._last: Counts = {}

    def begin(self) -> None:
        """An answer begins, of which there may be several in one attempt."""
        self._base = dict(self._totals.get(self._session, {}))
        self._counted, self._caller = {}, ""

    def named(self, model: str) -> None:
        """The name that the process runs under; it knows the model by it."""
        self._model = model or self._model

    def call(self, model: str, usage: Mapping[str, Any]) -> dict[str, Any] | None:
        """A call of the main conversation ended; the data of a ``usage`` record.

        A second model in one turn is left to the turn's result, which knows its proper name.
        """
        self._caller = self._caller or model
        if model != self._caller:
            return None
        self._last = from_api(usage)
        self._counted = _sum(self._counted, self._last)
        return self._tell(self._session, self._model or model, _sum(self._base, self._counted))

    def settle(self, used: Mapping[str, Any]) -> list[dict[str, Any]]:
        """An answer's result came: data of the ``usage`` records that tell it.

        Args:
            used: what came since the last result, by model, as Claude Code gives it.
        """
        parts = {name: part for name, part in used.items() if isinstance(part, Mapping)}
        grown = {name: from_process(part) for name, part in parts.items()}
        main = self._main(grown)
        told = []
        for model, counts in grown.items():
            if model == main:
                whole = _sum(self._base, _larger(self._counted, counts))
                self._model = model
                data = self._tell(self._session, model, whole)
            elif any(counts.values()):
                name = f"{self._session}/{model}"
                data = self._tell(name, model, _sum(self._totals.get(name, {}), counts))
            else:
                continue
            window = _count(parts[model].get("contextWindow"))
            told.append({**data, **({"context_window": window} if window else {})})
        self.begin()
        return told

    def _main(self, grown: Mapping[str, Counts]) -> str:
        """Which of the models the main conversation's calls belong to."""
        if self._model in grown:
            return self._model
        alike = [name for name in grown if self._caller and self._caller.startswith(name)]
        candidates = alike or list(grown)
        return max(candidates, key=lambda name: grown[name]["total"], default="")

    def _tell(self, session: str, model: str, total: Counts) -> dict[str, Any]:
        total = _larger(self._totals.get(session, {}), total)
        self._totals[session] = total
        last = self._last if session == self._session and self._last else total
        return {"session": session, "model": model, "total": dict(total), "last": dict(last)}


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in CLASSES}


def _larger(one: Mapping[str, int], other: Mapping[str, int]) -> Counts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in CLASSES}
