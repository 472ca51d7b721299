"""Slurm's time limits, and how long before one a worker is told to finish."""

from __future__ import annotations

import re

_LIMIT = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?\Z", re.ASCII)
_NONE = frozenset({"UNLIMITED", "INFINITE", "NONE", "N/A", "NOT_SET", "PARTITION_LIMIT", ""})


def seconds_of_limit(text: str) -> int | None:
    """A time limit in seconds, in any of sbatch's forms; None: there is none, or it is unclear.

    ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes``, ``days-hours:minutes:seconds`` (sbatch(1), ``--time``).
    """
    found = _LIMIT.match(text.strip())
    if text.strip().upper() in _NONE or found is None:
        return None
    days, first, second, third = (int(part) if part else None for part in found.groups())
    if days is not None:
        return days * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return (first or 0) * 3600 + (second or 0) * 60 + third
    return (first or 0) * 60 + (second or 0)


def lead_seconds(limit: int | None) -> int:
    """How long before its time limit a worker gets the signal (``sbatch --signal``).

    A tenth of the limit, between one minute and five; of a short limit a third, so that
    something can be done before.  Slurm looks every 30 s and may signal up to 60 s early.
    """
    if limit is None:
        return 120
    return max(1, min(max(60, min(300, limit // 10)), limit // 3))
