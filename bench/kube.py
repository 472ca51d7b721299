"""All measures on a cluster, by one command: ``python -m bench.kube [--quick] [--only NAME]``.

``CODESWARM_TEST_KUBECONFIG`` names a kubeconfig of a cluster that may be written to; without it
nothing is measured.  Requests are counted by the API server's own counters, everybody's: measure
on a cluster that nobody else uses.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import kube_idle, kube_restart, kube_throughput, kube_writes
from bench.machine import describe
from tests.kube import VARIABLE

NAMES = ("writes", "idle", "throughput", "restart")


def main() -> int:
    """Measure what is asked for, and say which aims were missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small figures, in a few minutes")
    parser.add_argument("--only", action="append", choices=NAMES, help="default: all of them")
    parser.add_argument("--seconds", type=float, help="of rest (300; quick: 30)")
    parser.add_argument("--tasks", type=int, help="of throughput and restart (1000; quick: 200)")
    parser.add_argument("--rounds", type=int, help="of throughput (3; quick: 1)")
    parser.add_argument("--workers", type=int, default=8, help="that work")
    parser.add_argument("--idle-workers", type=int, help="that rest (100; quick: 20)")
    parser.add_argument("--single", type=int, help="prompts timed one by one (100; quick: 20)")
    parser.add_argument(
        "--concurrency", type=int, action="append",
        help="of each of the bare client's two processes (8 and 16; the quicker one counts)",
    )  # fmt: skip
    options = parser.parse_args()
    if not os.environ.get(VARIABLE):
        print(f"skipped: {VARIABLE} is not set, so there is no cluster to measure on")
        return 0
    quick = options.quick
    tasks = options.tasks or (200 if quick else 1000)
    print(describe(), flush=True)
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        measures: dict[str, Callable[[], bool]] = {
            "writes": lambda: kube_writes.measure(options.single or (20 if quick else 100)),
            "idle": lambda: kube_idle.measure(
                options.idle_workers or (20 if quick else 100),
                options.seconds or (30 if quick else 300),
            ),
            "throughput": lambda: kube_throughput.measure(
                tasks,
                options.workers,
                options.rounds or (1 if quick else 3),
                options.concurrency or ([8] if quick else [8, 16]),
                Path(folder),
            ),
            "restart": lambda: kube_restart.measure(tasks, options.workers),
        }
        for name in options.only or NAMES:
            if not measures[name]():
                missed.append(name)
    print(f"aims missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
