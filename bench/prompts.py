"""Prompts without git: latency of one, throughput of many.

Latency is from the commit of the Task to the store until its status says Succeeded there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench.machine import describe, percentile
from controller.store.base import Key
from tests.lab import Lab, prompt, swarm


def latencies(lab: Lab, count: int) -> list[float]:
    """Seconds from commit to completion of ``count`` prompts, one after another."""
    found = []
    for number in range(count):
        key = Key("Task", "default", f"one-{number}")
        begin = time.monotonic()
        lab.apply(prompt(key.name))
        begin = time.monotonic() if number < 0 else begin
        while lab.status(key).get("phase") != "Succeeded":
            time.sleep(0.0005)
        found.append(time.monotonic() - begin)
    return found


def throughput(lab: Lab, count: int) -> float:
    """Prompts a second, all applied at once."""
    objects = [prompt(f"many-{n}") for n in range(count)]
    begin = time.monotonic()
    lab.apply(*objects)
    last = Key("Task", "default", f"many-{count - 1}")
    lab.wait(lambda: lab.status(last).get("phase") == "Succeeded", "the last prompt", 300)
    lab.wait(
        lambda: all(
            (t.get("status") or {}).get("phase") == "Succeeded" for t in lab.db.list("Task")
        ),
        "all prompts",
        300,
    )
    return count / (time.monotonic() - begin)


def main() -> None:
    """Measure both with the same swarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--single", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        lab.start()
        lab.apply(swarm(replicas=options.workers))
        lab.wait_phase("Swarm", "builders", "Running")
        latencies(lab, 10)
        for task in lab.db.list("Task"):
            lab.db.delete(Key("Task", "default", task["metadata"]["name"]))
        single = [1000 * seconds for seconds in latencies(lab, options.single)]
        print(
            f"one prompt: median {statistics.median(single):.1f} ms, "
            f"p99 {percentile(single, 0.99):.1f} ms"
        )
        rate = throughput(lab, options.prompts)
        print(f"{options.prompts} prompts, {options.workers} workers: {rate:.0f} a second")


if __name__ == "__main__":
    main()
