"""What machine a figure was measured on, and how figures are summed up."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence


def describe() -> str:
    """Processor, cores, Python and git, in one line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next(
                (li.split(":", 1)[1].strip() for li in info if li.startswith("model name")), model
            )
    except OSError:
        pass  # not Linux: the platform's own word stays
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {git.strip()}"


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def spread(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """Median with minimum and maximum."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f}{unit} (from {min(values):.{digits}f} to {max(values):.{digits}f})"
