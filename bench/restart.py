"""The controller is killed in a project of 1,000 tasks: when does work go on after its start?"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench.machine import describe
from tests.lab import Lab, project, swarm, work


def main() -> None:
    """Kill and start again, several times in one project."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        lab.repository()
        lab.start()
        lab.apply(swarm(replicas=options.workers))
        lab.apply(project(tasks=[work(f"t{n}") for n in range(options.tasks)]))

        def done() -> int:
            tasks = lab.db.list("Task")
            return sum((t.get("status") or {}).get("phase") == "Succeeded" for t in tasks)

        found = []
        for number in range(options.kills):
            goal = options.tasks // 10 + number * options.tasks // 20
            lab.wait(lambda goal=goal: done() >= goal, f"{goal} tasks", 300)
            lab.kill()
            time.sleep(1.0)
            before = done()
            begin = time.monotonic()
            lab.start()
            lab.wait(lambda before=before: done() > before, "another task")
            found.append(time.monotonic() - begin)
        print(
            f"{options.tasks} tasks: from start to the next finished task "
            f"{statistics.median(found):.2f} s (worst of {len(found)}: {max(found):.2f} s)"
        )


if __name__ == "__main__":
    main()
