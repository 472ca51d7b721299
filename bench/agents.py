"""Real agents against scripted models: start of a worker to its first token, memory, how many fit.

The model answers at once, so what is measured is everything but the model.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bench.machine import describe, spread
from tests.agents.drivers import DRIVERS, Driver
from tests.agents.no_network import NoNetwork
from tests.worker.harness import Worker, until

GIB = 1 << 30
MIB = 1 << 20
RESERVED = 2 * GIB
"""Left for the controller, the system and what the agents run."""


def main() -> None:
    """Measure each runtime."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="starts of a worker")
    parser.add_argument("--turns", type=int, default=40, help="turns before memory is looked at")
    parser.add_argument("--workers", type=int, default=6, help="workers at the same time")
    options = parser.parse_args()
    print(describe())
    for kind in DRIVERS:
        with tempfile.TemporaryDirectory() as folder, NoNetwork() as network:
            with kind(Path(folder), network) as driver:
                starts(driver, options.rounds)
                with_turns(driver, options.turns)
            with kind(Path(folder) / "many", network) as driver:
                together(driver, options.workers)


def starts(driver: Driver, rounds: int) -> None:
    """From the start of the process to ready, and to the first token of a waiting prompt."""
    ready, first, later = [], [], []
    for number in range(rounds):
        worker = driver.make(f"start{number}", approvalPolicy="never")
        injection = worker.prompt(driver.prompt({"say": "Here I am."}))
        begin = time.time()
        worker.spawn()
        worker.outcome(injection)
        ready.append(1000 * (idle_at(worker) - begin))
        first.append(1000 * (token_at(worker, injection) - begin))
        begin = time.time()
        injection = worker.prompt(driver.prompt({"say": "Again."}))
        worker.outcome(injection)
        later.append(1000 * (token_at(worker, injection) - begin))
        worker.close()
    print(f"{driver.name}: start to ready {spread(ready, ' ms', 0)}")
    print(f"{driver.name}: start to the first token {spread(first, ' ms', 0)}")
    print(f"{driver.name}: prompt to the first token, later {spread(later, ' ms', 0)}")


def with_turns(driver: Driver, turns: int) -> None:
    """Memory of one worker: ready, after a turn, after many with a command each."""
    worker = driver.make("turns", approvalPolicy="never").start()
    told = [f"ready {memory_of(worker)}"]
    worker.ask(driver.prompt({"say": "One."}))
    told.append(f"after 1 turn {memory_of(worker)}")
    for _ in range(turns):
        worker.ask(driver.prompt({"run": "echo x"}, {"say": "Ran."}))
    told.append(f"after {turns} more {memory_of(worker)}")
    worker.close()
    print(f"{driver.name}: memory of a worker and its agent: {', '.join(told)}")


def together(driver: Driver, count: int) -> None:
    """What each of several workers adds, and so how many fit."""
    driver.folder.mkdir()
    before = psutil.virtual_memory().available
    workers = [driver.make(f"w{n}", approvalPolicy="never") for n in range(count)]
    begin = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.ask(driver.prompt({"run": "echo x"}, {"say": "Ran."}))
    seconds = time.monotonic() - begin
    each = sum(pss(worker) for worker in workers) / count
    lost = (before - psutil.virtual_memory().available) / count
    room = psutil.virtual_memory().total - RESERVED
    print(
        f"{driver.name}: {count} at once: {each / MIB:.0f} MiB PSS each ({lost / MIB:.0f} MiB less "
        f"available), {seconds:.1f} s to start all and a turn each: "
        f"{room // int(each)} fit into {psutil.virtual_memory().total / GIB:.0f} GiB"
    )
    for worker in workers:
        worker.close()


def idle_at(worker: Worker) -> float:
    """When the worker was ready, by its own clock, which is ours."""
    (record, *_) = [e for e in worker.events("thread_status") if e["data"]["status"] == "idle"]
    return float(record["ts"])


def token_at(worker: Worker, injection: str) -> float:
    """When the first piece of an answer was told."""
    return float(worker.events("assistant_delta", injection)[0]["ts"])


def tree(worker: Worker) -> list[psutil.Process]:
    """The worker's processes."""
    assert worker.process is not None
    own = psutil.Process(worker.process.pid)
    return [own, *own.children(recursive=True)]


def added(worker: Worker, what: Callable[[psutil.Process], int]) -> int:
    """A figure summed up over the worker's processes, once it stands still."""

    def total() -> int:
        found = 0
        for process in tree(worker):
            try:
                found += what(process)
            except psutil.NoSuchProcess:
                continue
        return found

    seen: list[int] = []

    def settled() -> bool:
        seen.append(total())
        time.sleep(0.1)
        last = seen[-3:]
        return len(last) == 3 and max(last) - min(last) < MIB

    until(settled, "for memory to settle", patience=60)
    return int(statistics.median(seen[-3:]))


def pss(worker: Worker) -> int:
    """Proportional set size in bytes: pages that several use count in parts (proc(5))."""
    return added(worker, lambda process: process.memory_full_info().pss)


def memory_of(worker: Worker) -> str:
    """Memory in words."""
    rss = added(worker, lambda process: process.memory_info().rss)
    return (
        f"{pss(worker) / MIB:.0f} MiB PSS, {rss / MIB:.0f} MiB RSS ({len(tree(worker))} processes)"
    )


if __name__ == "__main__":
    main()
