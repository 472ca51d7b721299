"""Counters and histograms of passes, waits, tasks and mail: plain numbers, cheap to add to.

They count from the controller's start, long before anybody asks for them; only ``metrics`` knows
of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from controller.reconcile.clock import seconds_of
from controller.reconcile.infos import TaskInfo

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds for passes and waits, seconds."""
LONG = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0,
        28800.0, 86400.0)  # fmt: skip
"""Bounds for attempts and tasks, seconds."""

Labels = tuple[str, ...]


class Histogram:
    """How many values were at most each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        found, total = [], 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Histograms:
    """One histogram for each set of label values."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.by_labels: dict[Labels, Histogram] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Count one value."""
        found = self.by_labels.get(labels)
        if found is None:
            found = self.by_labels[labels] = Histogram(self._bounds)
        found.add(value)


class Counts:
    """Everything that is counted as it happens, but for tokens. All labels are of closed sets."""

    def __init__(self) -> None:
        self.passes: Counter[Labels] = Counter()
        """By kind and result."""
        self.durations = Histograms(SHORT)
        """Of passes, by kind."""
        self.waits = Histograms(SHORT)
        """Of ready keys, by kind."""
        self.attempts = Histograms(LONG)
        """By the task's type and the attempt's outcome."""
        self.tasks = Histograms(LONG)
        """From the first start to the end, by type and phase."""
        self.records: Counter[Labels] = Counter()
        """Out of mailboxes, by event."""

    def task(self, before: TaskInfo | None, info: TaskInfo, obj: Mapping[str, Any]) -> None:
        """A Task has changed while this controller ran."""
        if before is None or before.uid != info.uid:
            return
        status = obj.get("status") or {}
        if before.open_injection and not info.open_job:
            attempts: Sequence[Mapping[str, Any]] = status.get("attempts") or ()
            found = (a for a in attempts if a["number"] == before.attempt)
            attempt: Mapping[str, Any] = next(found, {})
            seconds = _between(attempt.get("assignedAt"), attempt.get("finishedAt"))
            if seconds is not None:
                outcome = attempt.get("class") or attempt["state"]
                self.attempts.add((info.kind, outcome), seconds)
        if info.finished and not before.finished:
            seconds = _between(status.get("startedAt"), status.get("finishedAt"))
            if seconds is not None:
                self.tasks.add((info.kind, info.phase), seconds)


def _between(begin: str | None, end: str | None) -> float | None:
    first, last = seconds_of(begin), seconds_of(end)
    return max(0.0, last - first) if first is not None and last is not None else None
