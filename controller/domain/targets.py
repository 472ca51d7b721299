"""Which workers a prompt to several of them goes to, given the workers that there are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from controller.resources.names import TargetMode, parse_workers


@dataclass(frozen=True, slots=True)
class Expansion:
    """The workers of a target, looked up once."""

    indices: tuple[int, ...]
    """Ascending, each once."""
    missing: tuple[int, ...] = ()
    """Asked for by number, and not there."""


def expand(workers: str | int | None, existing: Collection[int]) -> Expansion | None:
    """The workers that ``target.workers`` names, or None for ``idle``.

    ``idle`` (also the default) is not expanded: such a prompt waits in the queue for the first
    worker that is free.

    Raises: controller.resources.names.TargetError for what cannot be read.
    """
    target = parse_workers("idle" if workers is None else workers)
    if target.mode is TargetMode.IDLE:
        return None
    if target.mode is TargetMode.ALL:
        return Expansion(tuple(sorted(set(existing))))
    present = set(existing)
    return Expansion(
        tuple(index for index in target.indices if index in present),
        tuple(index for index in target.indices if index not in present),
    )
