"""Many one-turn tasks, and a bare client that writes as much, in pairs.

The tasks are created by one process and worked on by the controller, the other one.  Its
counterpart is two processes that share the same number of objects: each object is created, then
its status is patched as often, and with as much, as the controller does on average.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kube_lab import Bench, Busy, Clients, Memory, Requests, bench, cpu, servers
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


@dataclass(frozen=True, slots=True)
class Run:
    """What one side took for all tasks."""

    seconds: float
    server: float
    """CPU seconds of the API server and its etcd."""
    clients: float
    """CPU seconds of everybody else: controller and workers, or bare clients."""

    @property
    def cpu(self) -> float:
        """CPU seconds of all together."""
        return self.server + self.clients


def ours(count: int, workers: int) -> tuple[Run, Requests, list[dict[str, Any]]]:
    """From the first creation to the last success; what was written; example statuses."""
    with bench() as room:
        controller = room.start()
        room.swarm(workers)
        found = statuses(room)
        time.sleep(2.0)
        memory, server, crew = Memory(controller), servers(room), room.lab.processes()
        with Clients(room.lab, count, 1, "--concurrency", str(CREATORS)) as creators:
            before, used = room.requests(), (cpu(server), cpu([controller]), cpu(crew))
            begin, busy = time.monotonic(), Busy()
            creators.go()
            room.wait_tasks(count, DEADLINE, memory.look)
            seconds, machine = time.monotonic() - begin, busy.text()
            spent = [cpu(p) - u for p, u in zip((server, [controller], crew), used, strict=True)]
            created, theirs = creators.wait()
        requests = room.requests().since(before)
        room.check(count)
        each = [1000 * part / count for part in (*spent, theirs)]
        print(
            f"  controller: {count / seconds:.1f} tasks/s ({seconds:.1f} s, the last created after "
            f"{created:.1f} s); CPU a task: API server {each[0]:.1f} ms, controller "
            f"{each[1]:.1f} ms, workers {each[2]:.1f} ms, creator {each[3]:.1f} ms; at most "
            f"{memory.most:.0f} MB ({machine})"
        )
        print(f"  its writes, creation included: {requests.text()}")
        room.lab.stop()
    return Run(seconds, spent[0], sum(spent[1:]) + theirs), requests, found


def bare(
    count: int, found: list[dict[str, Any]], patches: float, concurrency: int, folder: Path
) -> Run:
    """The bare client: as many writes to as many objects."""
    file = folder / "statuses.json"
    with bench() as room:
        file.write_text(json.dumps(found))
        server = servers(room)
        with Clients(
            room.lab, count, 2,
            "--concurrency", str(concurrency), "--patches", str(patches), "--statuses", str(file),
        ) as clients:  # fmt: skip
            used, busy = cpu(server), Busy()
            clients.go()
            seconds, theirs = clients.wait()
            machine = busy.text()
            spent = cpu(server) - used
    print(
        f"  bare client: {count / seconds:.1f} objects/s, {patches:.2f} patches each, 2 x "
        f"{concurrency} at a time; CPU an object: API server {1000 * spent / count:.1f} ms, "
        f"clients {1000 * theirs / count:.1f} ms ({machine})"
    )
    return Run(seconds, spent, theirs)


def measure(count: int, workers: int, rounds: int, concurrencies: list[int], folder: Path) -> bool:
    """Pairs; whether the controller reaches half of what the bare client does.

    The quicker of the bare client's runs counts.  The ratio of CPU time is told as well: it says
    what to expect where nothing else runs, and depends less on what else does.
    """
    print(f"{count} one-turn tasks, {workers} workers")
    rates, ratios, costs = [], [], []
    for _ in range(rounds):
        run, requests, found = ours(count, workers)
        patches = requests["PATCH", "tasks/status"] / count
        others = [bare(count, found, patches, concurrency, folder) for concurrency in concurrencies]
        rates.append(count / run.seconds)
        ratios.append(min(other.seconds for other in others) / run.seconds)
        costs.append(min(other.cpu for other in others) / run.cpu)
        print(f"  ratio of speed {ratios[-1]:.2f}, of CPU {costs[-1]:.2f}")
    print(
        f"  tasks a second: {spread(rates)}; of the bare client's: {spread(ratios, digits=2)} "
        f"(aim 0.5); by CPU {spread(costs, digits=2)}"
    )
    return statistics.median(ratios) >= 0.5
