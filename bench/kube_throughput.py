"""Many one-turn tasks, and a bare client that writes as much, in pairs.

The tasks are created by one process and worked on by the controller, the other one.  Its
counterpart is two processes that share the same number of objects: each object is created, then
its status is patched as often, and with as much, as the controller does on average.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from bench.kube_lab import Bench, Clients, Memory, Requests, bench, cpu, load, served
from bench.kube_writes import Versions
from bench.machine import spread
from tests.lab import prompt, script

DEADLINE = 900.0
CREATORS = 16
"""Requests at a time of the process that creates the controller's tasks."""


def statuses(bench: Bench) -> list[dict[str, Any]]:
    """What a task's status is in turn: waiting, assigned, done."""
    versions = Versions(bench)
    bench.lab.create(
        prompt("busy", script("sleep: 4"), target={"swarm": "builders", "workers": "0"})
    )
    bench.lab.wait_phase("Task", "busy", "Running")
    bench.lab.create(prompt("sample", target={"swarm": "builders", "workers": "0"}))
    bench.lab.wait_phase("Task", "sample", "Succeeded")
    bench.lab.wait(lambda: ("sample", "Succeeded") in versions.at, "the watch to tell")
    found = [obj["status"] for _, obj in versions.seen["sample"] if "status" in obj]
    for name in ("busy", "sample"):
        bench.lab.delete("Task", name)
        bench.lab.wait_gone("Task", name)
    return found


def ours(count: int, workers: int) -> tuple[float, Requests, list[dict[str, Any]]]:
    """Seconds from the first creation to the last success; what was written; example statuses."""
    with bench() as room:
        controller = room.start()
        room.swarm(workers)
        found = statuses(room)
        time.sleep(2.0)
        memory = Memory(controller)
        with Clients(room.lab, count, 1, "--concurrency", str(CREATORS)) as creators:
            before, used, theirs = room.requests(), cpu([controller]), served(room)
            begin = time.monotonic()
            creators.go()
            room.wait_tasks(count, DEADLINE, memory.look)
            seconds = time.monotonic() - begin
            spent, server = cpu([controller]) - used, served(room) - theirs
            created = creators.wait()
        requests = room.requests().since(before)
        room.check(count)
        print(
            f"  controller: {count / seconds:.1f} tasks/s ({seconds:.1f} s, the last created after "
            f"{created:.1f} s), {1000 * spent / count:.1f} ms of CPU a task, API server "
            f"{1000 * server / count:.1f} ms, at most {memory.most:.0f} MB ({load()})"
        )
        print(f"  its writes, creation included: {requests.text()}")
        room.lab.stop()
    return seconds, requests, found


def bare(
    count: int, found: list[dict[str, Any]], patches: float, concurrency: int, folder: Path
) -> float:
    """Seconds of the bare client for as many writes to as many objects."""
    file = folder / "statuses.json"
    with bench() as room:
        file.write_text(json.dumps(found))
        with Clients(
            room.lab, count, 2,
            "--concurrency", str(concurrency), "--patches", str(patches), "--statuses", str(file),
        ) as clients:  # fmt: skip
            theirs = served(room)
            clients.go()
            seconds = clients.wait()
            server = served(room) - theirs
    print(
        f"  bare client: {count / seconds:.1f} objects/s, {patches:.2f} patches each, "
        f"2 x {concurrency} at a time, API server {1000 * server / count:.1f} ms ({load()})"
    )
    return seconds


def measure(count: int, workers: int, rounds: int, concurrencies: list[int], folder: Path) -> bool:
    """Pairs; whether the controller reaches half of what the bare client does."""
    print(f"{count} one-turn tasks, {workers} workers")
    ratios, rates = [], []
    best: dict[int, list[float]] = {concurrency: [] for concurrency in concurrencies}
    for number in range(rounds):
        seconds, requests, found = ours(count, workers)
        patches = requests["PATCH", "tasks/status"] / count
        for concurrency in concurrencies:
            best[concurrency].append(bare(count, found, patches, concurrency, folder))
        quickest = min(times[number] for times in best.values())
        ratios.append(quickest / seconds)
        rates.append(count / seconds)
        print(f"  ratio {ratios[-1]:.2f}")
    print(
        f"  tasks a second: {spread(rates)}; of the bare client's: median "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; aim 0.5)"
    )
    return statistics.median(ratios) >= 0.5
