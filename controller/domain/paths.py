"""Owned paths: which claims of running tasks overlap, and what was written outside of them.

A claim is a path relative to the repository's root: a whole directory if it ends in ``/``,
else exactly one file.  ``./`` is the whole repository.  A task without claims claims nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

ROOT = "./"
H = TypeVar("H", bound=Hashable)


class PathProblem(ValueError):
    """A claim that cannot be one; the text is fit for people."""


def normalise(path: str) -> str:
    """One claim in its only spelling: ``src//a/./b/`` becomes ``src/a/b/``.

    Raises: PathProblem for an empty or absolute path, one with ``..`` or with a NUL byte.
    """
    if not path:
        raise PathProblem("an owned path must not be empty")
    if "\0" in path:
        raise PathProblem(f"owned path {path!r} contains a NUL character")
    if path.startswith("/"):
        raise PathProblem(f"owned path {path!r} is absolute; give it relative to the repository")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathProblem(f"owned path {path!r} leaves the repository ('..')")
    if not parts:
        return ROOT
    directory = path.endswith(("/", "/."))
    return "/".join(parts) + ("/" if directory else "")


def normalise_all(paths: Iterable[str]) -> tuple[str, ...]:
    """Claims in their only spelling, sorted, each once, what cannot be a claim left out.

    Admission refuses such paths before; a scheduler that meets one all the same must not fail.
    """
    found = set()
    for path in paths:
        try:
            found.add(normalise(path))
        except PathProblem:
            continue
    return tuple(sorted(found))


def overlap(a: Iterable[str], b: Iterable[str]) -> bool:
    """Whether two tasks' claims meet; absent claims meet nothing."""
    claims: Claims[str] = Claims()
    claims.add("a", a)
    return claims.conflict(b) is not None


def outside(files: Iterable[str], owned: Iterable[str]) -> list[str]:
    """The changed files that no claim covers, in their order; none if nothing is claimed."""
    claims = normalise_all(owned)
    if not claims:
        return []
    covering = frozenset(claims)
    return [file for file in files if not _covered(file, covering)]


def _covered(file: str, claims: frozenset[str]) -> bool:
    return file in claims or any(parent in claims for parent in _parents(file))


def _parents(claim: str) -> Iterator[str]:
    """The directories above a normalised claim (itself left out), outermost first."""
    if claim == ROOT:
        return
    yield ROOT
    end = claim.find("/")
    while end != -1 and end != len(claim) - 1:
        yield claim[: end + 1]
        end = claim.find("/", end + 1)


class Claims(Generic[H]):
    """What running tasks hold, by holder; asked for a conflict in time linear in path depth."""

    __slots__ = ("_at", "_held", "_under")

    def __init__(self) -> None:
        self._held: dict[H, tuple[str, ...]] = {}
        self._at: dict[str, dict[H, None]] = {}
        """Who claims exactly this file or directory."""
        self._under: dict[str, dict[H, None]] = {}
        """Who claims this directory or something below it."""

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, holder: H) -> bool:
        return holder in self._held

    def add(self, holder: H, paths: Iterable[str]) -> None:
        """Let ``holder`` hold these claims, instead of what it held before."""
        self.remove(holder)
        claims = normalise_all(paths)
        if not claims:
            return
        self._held[holder] = claims
        for index, place in self._places(claims):
            index.setdefault(place, {})[holder] = None

    def remove(self, holder: H) -> None:
        """Give back what ``holder`` holds, if anything."""
        for index, place in self._places(self._held.pop(holder, ())):
            holders = index.get(place)
            if holders is not None:
                holders.pop(holder, None)
                if not holders:
                    del index[place]

    def conflict(self, paths: Iterable[str], *, ignore: H | None = None) -> H | None:
        """The holder that has claimed some of these paths (the earliest), or None.

        ``ignore`` is a holder that does not count: the one that asks.
        """
        return self.meets(normalise_all(paths), ignore=ignore)

    def meets(self, claims: Iterable[str], *, ignore: H | None = None) -> H | None:
        """As ``conflict``, for claims that ``normalise_all`` gave."""
        for claim in claims:
            holders = (self._under if claim.endswith("/") else self._at).get(claim, {})
            for holder in holders:
                if holder != ignore:
                    return holder
            for parent in _parents(claim):
                for holder in self._at.get(parent, {}):
                    if holder != ignore:
                        return holder
        return None

    def _places(self, claims: Iterable[str]) -> Iterator[tuple[dict[str, dict[H, None]], str]]:
        for claim in claims:
            yield self._at, claim
            if claim.endswith("/"):
                yield self._under, claim
            for parent in _parents(claim):
                yield self._under, parent
