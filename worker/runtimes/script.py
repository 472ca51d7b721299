"""Mock blocks: the fenced YAML in a prompt that scripts the mock runtime, parsed and checked."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.errors import TurnError
from worker.report import STATUSES

if TYPE_CHECKING:
    import yaml  # imported where a block needs it: it is slow to load

MAX_BLOCK_CHARS = 1 << 20

DECISIONS = ("approve", "approve-session", "approve-always", "deny", "cancel")
ERROR_CLASSES = ("quota", "overloaded", "auth")
TOKEN_NAMES = {
    "inputTokens": "input",
    "cachedInputTokens": "cached_input",
    "cacheWriteTokens": "cache_write",
    "outputTokens": "output",
    "reasoningOutputTokens": "reasoning_output",
}

_OPENING = re.compile(r"^```mock[ \t]*\r?$", re.MULTILINE)
_CLOSING = re.compile(r"^```[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One step, checked."""

    verb: str
    value: Any
    attempt: int | None = None
    """Only in this attempt."""


def steps_of(prompt: str) -> list[Step] | None:
    """The steps of all mock blocks of a prompt, in order; None if it has no block.

    Raises: TurnError (task): what is wrong, and in which step.
    """
    texts = _blocks(prompt)
    if not texts:
        return None
    items = [item for text in texts for item in _load(text)]
    return [_step(item, number) for number, item in enumerate(items, 1)]


def _wrong(message: str) -> TurnError:
    return TurnError("task", f"mock block: {message}")


def _blocks(prompt: str) -> list[str]:
    texts = []
    opening = _OPENING.search(prompt)
    while opening is not None:
        closing = _CLOSING.search(prompt, opening.end())
        if closing is None:
            raise _wrong("its fence is not closed (a line that begins with ```)")
        texts.append(prompt[opening.end() : closing.start()])
        opening = _OPENING.search(prompt, closing.end())
    return texts


def _load(text: str) -> list[Any]:
    if len(text) > MAX_BLOCK_CHARS:
        raise _wrong(f"it has more than {MAX_BLOCK_CHARS} characters")
    try:
        value = json.loads(text) if text.lstrip().startswith("[") else _yaml(text)
    except ValueError:
        value = _yaml(text)
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong("it must be a list of steps, each beginning with '- '")
    return value


@functools.lru_cache(maxsize=1)
def _loader() -> type[yaml.SafeLoader]:
    """YAML's plain values without aliases, so that a short text cannot become a huge value."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(
                    problem="aliases are not supported", problem_mark=mark
                )
            return super().compose_node(parent, index)

    return Loader


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.YAMLError as error:
        raise _wrong(f"invalid YAML: {_yaml_problem(error)}") from None
    except RecursionError:
        raise _wrong("it is nested too deeply") from None
    except ValueError as error:  # a date or number that is none
        raise _wrong(f"invalid YAML: {error}") from None


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"{problem} (line {mark.line} of the block)" if mark is not None else str(problem)


def _step(item: Any, number: int) -> Step:
    if not isinstance(item, dict):
        raise _wrong(f"step {number} is not a mapping such as `say: hello`")
    fields = dict(item)
    attempt = fields.pop("attempt", None)
    if attempt is not None and not _whole(attempt):
        raise _wrong(f"step {number}: attempt must be a whole number, 1 or more")
    unknown = [str(name) for name in fields if name not in _CHECKS]
    if unknown:
        known = ", ".join(sorted(_CHECKS))
        raise _wrong(f"step {number}: unknown step {unknown[0]!r} (there are: {known})")
    if len(fields) != 1:
        raise _wrong(f"step {number} must have exactly one of: {', '.join(sorted(_CHECKS))}")
    ((verb, value),) = fields.items()
    problem = _CHECKS[verb](value)
    if problem:
        raise _wrong(f"step {number} ({verb}): {problem}")
    return Step(verb, value, attempt)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _seconds(value: Any) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= 1e6
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return "must be a text (quote it)"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "has a character that is none (a lone surrogate)"
    return ""


def _command(value: Any) -> str:
    return _text(value) or ("has a NUL character" if "\0" in value else "")


def _true(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _sleep(value: Any) -> str:
    return "" if _seconds(value) else "must be a number of seconds, 0 or more"


def _fields(value: Any, required: set[str], optional: set[str]) -> str:
    """What is wrong with a mapping's field names, if anything."""
    if not isinstance(value, dict):
        return f"must be a mapping of {', '.join(sorted(required | optional))}"
    missing = sorted(required - value.keys())
    if missing:
        return f"{missing[0]} is missing"
    unknown = sorted(str(name) for name in value.keys() - required - optional)
    return f"unknown field {unknown[0]!r}" if unknown else ""


def _texts(value: Mapping[str, Any], names: set[str]) -> str:
    """What is wrong with those of a mapping's fields that are texts, if anything."""
    for name in sorted(names & value.keys()):
        problem = _text(value[name]) if name == "content" else _command(value[name])
        if problem:
            return f"{name} {problem}"
    return ""


def _write(value: Any) -> str:
    names = {"path", "content"}
    return _fields(value, names, set()) or _texts(value, names)


def _ask(value: Any) -> str:
    problem = _fields(value, {"command"}, {"reason", "decisions"})
    problem = problem or _texts(value, {"command", "reason"})
    if not problem and "decisions" in value:
        offered = value["decisions"]
        if not isinstance(offered, list) or not offered or set(map(str, offered)) - set(DECISIONS):
            problem = f"decisions must be a list of {', '.join(DECISIONS)}"
    return problem


def _usage(value: Any) -> str:
    problem = _fields(value, set(), set(TOKEN_NAMES))
    if problem:
        return problem
    for name, count in value.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 1 << 53:
            return f"{name} must be a whole number, 0 or more"
    if value.get("cachedInputTokens", 0) > value.get("inputTokens", 0):
        return "cachedInputTokens is a part of inputTokens, so it cannot be more"
    return ""


def _result(value: Any) -> str:
    problem = _fields(value, {"status"}, {"notes"}) or _texts(value, {"status", "notes"})
    if not problem and value["status"] not in STATUSES:
        problem = f"status must be one of {', '.join(STATUSES)}"
    return problem


def _plan(value: Any) -> str:
    if not isinstance(value, (dict, list)):
        return "must be a mapping with tasks"
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"cannot be written as JSON: {error}"
    return ""


def _error(value: Any) -> str:
    problem = _fields(value, {"class"}, {"message", "retryAfterSeconds"})
    problem = problem or _texts(value, {"message"})
    if not problem and value["class"] not in ERROR_CLASSES:
        problem = f"class must be one of {', '.join(ERROR_CLASSES)}"
    if not problem and not _seconds(value.get("retryAfterSeconds", 0)):
        problem = "retryAfterSeconds must be a number, 0 or more"
    return problem


_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "write": _write,
    "run": _command,
    "say": _text,
    "think": _text,
    "sleep": _sleep,
    "usage": _usage,
    "ask": _ask,
    "result": _result,
    "malformed": _true,
    "crash": _true,
    "hang": _true,
    "route": _text,
    "plan": _plan,
    "error": _error,
}
