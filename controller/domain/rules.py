"""A swarm's rules about what its agents ask: the first one that matches answers.

A rule that approves must be sure, so it takes the narrow reading of what is asked; a rule that
denies, or leaves the question to a person, takes the wide one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.domain import shell
from controller.resources import patterns

BUDGET_SECONDS = 0.5
"""Rules that take longer leave a question to a person."""
EXPRESSIONS = ("command", "path", "tool")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say."""

    decision: str
    """approve, deny or ask."""
    by: str
    """The rule's name, else its place."""


class _Late(Exception):
    """The rules have had their time."""


def problem(rules: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the first rule that cannot be used; empty if all can."""
    for number, rule in enumerate(rules):
        for field in EXPRESSIONS:
            pattern = rule["match"].get(field)
            wrong = patterns.problem(pattern) if pattern else ""
            if wrong:
                place = f"approvals.rules[{number}].match.{field}"
                return f'{place}: "{pattern}" is no regular expression that can be used: {wrong}'
    return ""


def judge(
    rules: Sequence[Mapping[str, Any]],
    asked: Mapping[str, Any],
    clock: Callable[[], float] = time.monotonic,
) -> Verdict | None:
    """The answer of the first rule that matches; None if none does.

    Args:
        rules: ``approvals.rules`` of a swarm.
        asked: ``request`` of an Approval.
        clock: seconds.
    """
    question = _Question(asked, clock() + BUDGET_SECONDS, clock)
    try:
        for number, rule in enumerate(rules):
            if question.matches(rule["match"], narrow=rule["decision"] == "approve"):
                return Verdict(rule["decision"], rule.get("name") or f"rules[{number}]")
    except _Late:
        return Verdict("ask", "rules that took too long")
    return None


class _Question:
    def __init__(self, asked: Mapping[str, Any], until: float, clock: Callable[[], float]) -> None:
        self._asked = asked
        self._until = until
        self._clock = clock
        self._line = str(asked.get("command", ""))
        self._inner = shell.inner(self._line).strip(" \t")

    def matches(self, match: Mapping[str, Any], *, narrow: bool) -> bool:
        if narrow and self._asked.get("truncated"):
            return False
        if "kind" in match and match["kind"] != self._asked.get("kind"):
            return False
        if "tool" in match and not self._found(match["tool"], str(self._asked.get("tool", ""))):
            return False
        if "command" in match and not self._command(match["command"], narrow):
            return False
        return "path" not in match or self._paths(match["path"], narrow)

    def _command(self, pattern: str, narrow: bool) -> bool:
        if not self._line:
            return False
        if narrow:
            if self._asked.get("kind") != "command" or len(self._inner) > patterns.MAX_TEXT:
                return False
            found = shell.commands(self._inner)
            texts = [command.text for command in found or ()]
            return bool(texts) and all(self._found(pattern, text) for text in texts)
        seen = self._inner[: patterns.MAX_TEXT]
        texts = [self._line, self._inner, *shell.pieces(seen)]
        return any(self._found(pattern, text) for text in dict.fromkeys(texts))

    def _paths(self, pattern: str, narrow: bool) -> bool:
        paths = [str(path) for path in self._asked.get("paths") or ()]
        if not narrow:
            return any(self._found(pattern, path) for path in paths)
        return bool(paths) and all(
            len(path) <= patterns.MAX_TEXT
            and ".." not in path.split("/")
            and path.isprintable()
            and self._found(pattern, path)
            for path in paths
        )

    def _found(self, pattern: str, text: str) -> bool:
        if not text or patterns.problem(pattern):
            return False
        if self._clock() > self._until:
            raise _Late
        return patterns.found(pattern, text)
