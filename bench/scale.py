"""10,000 tasks of one project against 1,000: cost per task, and the controller's memory.

The tasks are applied as Task objects; they write nothing, so that git is out of the picture as
far as it can be: what is measured is the controller.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from bench.machine import describe
from tests.lab import API, Lab, project, script, swarm


def run(count: int, workers: int) -> tuple[float, float, float]:
    """Seconds, the controller's CPU seconds, and its largest memory in MB."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        lab.repository()
        controller = psutil.Process(lab.start().pid)
        lab.apply(swarm(replicas=workers))
        lab.wait_phase("Swarm", "builders", "Running")
        text = script("result: {status: done}")
        tasks = [
            {
                "apiVersion": API,
                "kind": "Task",
                "metadata": {"name": f"demo.t{n}"},
                "spec": {"project": "demo", "prompt": text},
            }
            for n in range(count)
        ]
        lab.apply(*tasks)
        begin, used = time.monotonic(), sum(controller.cpu_times()[:2])
        lab.apply(project())
        memory = 0.0

        def done() -> bool:
            nonlocal memory
            memory = max(memory, controller.memory_info().rss / 1e6)
            time.sleep(0.2)
            tasks = lab.project("demo").get("tasks") or {}
            return bool(tasks.get("total") == count and tasks.get("succeeded") == count)

        lab.wait(done, f"{count} tasks", 3600)
        seconds = time.monotonic() - begin
        return seconds, sum(controller.cpu_times()[:2]) - used, memory


def main() -> None:
    """Run the small and the large project, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    print(describe())
    costs = []
    for count in (options.small, options.large):
        seconds, cpu, memory = run(count, options.workers)
        costs.append((seconds / count, cpu / count))
        print(
            f"{count} tasks: {seconds:.1f} s, {1000 * seconds / count:.2f} ms a task, "
            f"controller {1000 * cpu / count:.2f} ms CPU a task, {memory:.0f} MB"
        )
    print(
        f"ratio large to small: {costs[1][0] / costs[0][0]:.2f} in time, "
        f"{costs[1][1] / costs[0][1]:.2f} in the controller's CPU"
    )


if __name__ == "__main__":
    main()
