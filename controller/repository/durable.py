"""Whether a finished attempt's work is safe: its head can be reached from a ref of the remote."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Durability(StrEnum):
    """What is known of a head commit."""

    DURABLE = "Durable"
    GONE = "Gone"
    """The remote was read, and nothing there leads to it."""
    UNKNOWN = "Unknown"
    """The remote could not be read, or history has not been looked at: decide nothing."""


@dataclass(frozen=True, slots=True)
class Places:
    """The refs (full names) that can hold a task's work; empty for one that does not exist."""

    attempt: str
    branch: str
    integration: str
    base: str

    def refs(self) -> tuple[str, ...]:
        """Those that are named, in the order in which they are looked at."""
        return tuple(r for r in (self.attempt, self.branch, self.integration, self.base) if r)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision for one head."""

    durability: Durability
    ref: str = ""
    """A ref that is at the head, or that it can be reached from, if one is known."""
    history_needed: bool = False
    """Unknown only because no ref is at the head itself: ask whether one builds on it."""


def durable(
    head: str,
    refs: Mapping[str, str] | None,
    places: Places,
    reachable: Collection[str] | None = None,
) -> Verdict:
    """Whether a head commit is safe at the remote.

    Args:
        refs: the remote's refs, full name to commit; None if it could not be read.
        reachable: the heads that were found to be reachable from these places
            (``ObjectStore.reachable``); None if that was not asked yet.
    """
    if refs is None:
        return Verdict(Durability.UNKNOWN)
    for ref in places.refs():
        if refs.get(ref) == head:
            return Verdict(Durability.DURABLE, ref)
    tips = tips_of(refs, [places])
    if not tips:
        return Verdict(Durability.GONE)
    if reachable is None:
        return Verdict(Durability.UNKNOWN, history_needed=True)
    return Verdict(Durability.DURABLE if head in reachable else Durability.GONE)


def tips_of(refs: Mapping[str, str], places: Iterable[Places]) -> dict[str, str]:
    """The refs to fetch, with their commits, before history can be asked about these places."""
    names = dict.fromkeys(ref for place in places for ref in place.refs())
    return {ref: refs[ref] for ref in names if ref in refs}
