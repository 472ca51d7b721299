"""Token usage that counts once: cumulative totals, merged by maximum, then summed.

A worker reports totals that only grow within one (attempt, job, session).  Keeping the maximum
for each of these, field by field, makes replaying any part of an outbox change nothing, and a
new session (whose totals start again at zero) adds to the old one's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

MAX_COUNT = 2**53
"""More tokens than this is no count (and JSON numbers above it lose digits elsewhere)."""
MAX_LABEL = 128


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts by class; a sum, or a cumulative total."""

    input: int = 0
    """Cached input included."""
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    """Reasoning included."""
    reasoning_output: int = 0
    total: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) + getattr(other, f) for f in _FIELDS))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f) - getattr(other, f) for f in _FIELDS))

    def __bool__(self) -> bool:
        return any(getattr(self, f) for f in _FIELDS)

    def merge(self, other: Usage) -> Usage:
        """The larger of each count: two looks at the same growing total."""
        return Usage(*(max(getattr(self, f), getattr(other, f)) for f in _FIELDS))


_FIELDS = tuple(field.name for field in fields(Usage))
_STATUS_NAMES = {
    "input": "inputTokens",
    "cached_input": "cachedInputTokens",
    "cache_write": "cacheWriteTokens",
    "output": "outputTokens",
    "reasoning_output": "reasoningOutputTokens",
    "total": "totalTokens",
}

ZERO = Usage()


@dataclass(frozen=True, slots=True)
class Source:
    """Whose total it is; totals of different sources are summed."""

    attempt: int
    job: str
    session: str


@dataclass(frozen=True, slots=True)
class Entry:
    """The largest total that one source has reported."""

    source: Source
    model: str
    usage: Usage


def from_tokens(tokens: Any) -> Usage:
    """A worker's ``Tokens`` (see worker/records.py); what is no count in it is zero.

    A total that is missing or less than its parts is input plus output.
    """
    if not isinstance(tokens, Mapping):
        return ZERO
    counts = {name: _count(tokens.get(name)) for name in _FIELDS}
    counts["total"] = max(counts["total"], counts["input"] + counts["output"])
    return Usage(**counts)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value <= MAX_COUNT else 0


def entry(attempt: int, job: str, data: Mapping[str, Any]) -> Entry:
    """The entry of one ``usage`` record: ``{session, model, total, ...}``."""
    source = Source(attempt, job, _label(data.get("session")))
    return Entry(source, _label(data.get("model")), from_tokens(data.get("total")))


def _label(value: Any) -> str:
    """A short text as it is; of a longer one its digest, so that two never become one."""
    text = value if isinstance(value, str) else ""
    if len(text) <= MAX_LABEL:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def merge(*ledgers: Iterable[Entry]) -> tuple[Entry, ...]:
    """All entries, one for each source, with the maximum of its totals; sorted by source.

    Idempotent, commutative and associative.
    """
    found: dict[Source, Entry] = {}
    for ledger in ledgers:
        for new in ledger:
            old = found.get(new.source)
            if old is not None:
                # Of two names the one that sorts last, so that the order of arrival is no matter.
                new = Entry(new.source, max(old.model, new.model), old.usage.merge(new.usage))
            found[new.source] = new
    return tuple(sorted(found.values(), key=_by_source))


def _by_source(found: Entry) -> tuple[int, str, str]:
    return (found.source.attempt, found.source.job, found.source.session)


def total(ledger: Iterable[Entry]) -> Usage:
    """The sum over the entries of a merged ledger."""
    return add(found.usage for found in ledger)


def by_model(ledger: Iterable[Entry]) -> dict[str, Usage]:
    """The sums of a merged ledger by model, in the models' order."""
    sums: dict[str, Usage] = {}
    for found in ledger:
        sums[found.model] = sums.get(found.model, ZERO) + found.usage
    return dict(sorted(sums.items()))


def add(usages: Iterable[Usage]) -> Usage:
    """The sum, class by class."""
    result = ZERO
    for usage in usages:
        result += usage
    return result


def fold(
    ledger: Sequence[Entry], folded: Usage, keep_from_attempt: int
) -> tuple[tuple[Entry, ...], Usage]:
    """Move the entries of older attempts into a plain sum.

    Returns the entries of attempts from ``keep_from_attempt`` on, and ``folded`` with the rest
    added.  Records of a folded attempt that arrive again must not be merged any more: drop
    those whose attempt is below ``keep_from_attempt`` (``merge_since``).
    """
    kept = tuple(found for found in ledger if found.source.attempt >= keep_from_attempt)
    older = (found for found in ledger if found.source.attempt < keep_from_attempt)
    return kept, folded + total(older)


def merge_since(
    keep_from_attempt: int, ledger: Iterable[Entry], new: Iterable[Entry]
) -> tuple[Entry, ...]:
    """``merge``, without what arrives for attempts that have been folded."""
    return merge(ledger, (e for e in new if e.source.attempt >= keep_from_attempt))


def to_status(usage: Usage) -> dict[str, int]:
    """As ``status.usage`` spells it: ``{"inputTokens": ...}``, every class named."""
    return {_STATUS_NAMES[name]: getattr(usage, name) for name in _FIELDS}


def from_status(status: Mapping[str, Any] | None) -> Usage:
    """The inverse of ``to_status``; what is absent is zero."""
    status = status or {}
    return Usage(**{name: _count(status.get(_STATUS_NAMES[name])) for name in _FIELDS})


def entries_to_status(ledger: Iterable[Entry]) -> list[dict[str, Any]]:
    """One attempt's entries as ``attempts[].usage``: session, model and counts."""
    return [
        {"session": found.source.session, "model": found.model, **to_status(found.usage)}
        for found in ledger
    ]


def entries_from_status(
    attempt: int, job: str, status: Iterable[Mapping[str, Any]] | None
) -> tuple[Entry, ...]:
    """The inverse of ``entries_to_status``."""
    return tuple(
        Entry(
            Source(attempt, job, str(item.get("session", ""))),
            str(item.get("model", "")),
            from_status(item),
        )
        for item in status or ()
    )
