"""100 idle workers: what the controller and each worker cost while nothing happens."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from bench.machine import describe, spread
from tests.lab import Lab, swarm


def main() -> None:
    """Launch, wait, and count CPU, memory and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        controller = psutil.Process(lab.start().pid)
        begin = time.monotonic()
        lab.apply(swarm(replicas=options.workers))
        lab.wait(lambda: lab.swarm("builders").get("readyReplicas") == options.workers, "all", 300)
        print(f"{options.workers} workers ready after {time.monotonic() - begin:.1f} s")
        time.sleep(5)
        workers = [p for p in lab.processes() if "worker" in " ".join(p.cmdline())]
        revision, used = lab.db.revision(), sum(controller.cpu_times()[:2])
        theirs = sum(sum(p.cpu_times()[:2]) for p in workers)
        begin = time.monotonic()
        time.sleep(options.seconds)
        seconds = time.monotonic() - begin
        memory = controller.memory_info().rss / 1e6
        share = (sum(controller.cpu_times()[:2]) - used) / seconds
        spent = sum(sum(p.cpu_times()[:2]) for p in workers) - theirs
        worker_share = 100 * spent / seconds / len(workers)
        print(f"controller: {100 * share:.2f} % of a core, {memory:.0f} MB")
        print(f"writes to the store in {seconds:.0f} s: {lab.db.revision() - revision}")
        sizes = [p.memory_info().rss / 1e6 for p in workers]
        print(f"a worker: {spread(sizes, ' MB')}, {worker_share:.3f} % of a core")


if __name__ == "__main__":
    main()
