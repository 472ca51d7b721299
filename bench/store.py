"""Measures the file home's store: reads, single and concurrent writes, apply, idle cost.

    python bench/store.py [--objects 10000] [--prompt 1000] [--rounds 5] [--directory DIR]

Prints medians over the rounds, with the machine that they were taken on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from controller.store.apply import ApplyRequest
from controller.store.base import Key, Resource
from controller.store.database import Database
from controller.store.rows import status_draft_of
from controller.store.sqlite import SqliteStore

CONCURRENCY = 16
WRITES = 4000
STAMP = "2026-01-01T00:00:00.000000Z"


def main() -> None:
    """Run all measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=10_000, help="objects of the bulk measures")
    parser.add_argument("--prompt", type=int, default=1000, help="characters of each prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", help="where to put the state (default: the temporary one)")
    options = parser.parse_args()
    print(f"# {machine()}")
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        print(f"fsync of a growing file       {median(options, lambda: fsync(folder)):10.0f} us")
        with Database(Path(folder) / "home" / "state.db") as database:
            measure(database, options)


def measure(database: Database, options: argparse.Namespace) -> None:
    """All measures of one store."""
    requests = [
        ApplyRequest(task(f"t{number}", options.prompt), lambda merged, live: merged)
        for number in range(options.objects)
    ]
    print(f"apply, {options.objects} new objects    {once(database, requests):10.2f} s")
    print(f"apply, none of them changed   {once(database, requests):10.2f} s")
    key = Key("Task", "default", "t1")
    listing = median(options, lambda: seconds(lambda: database.list("Task")))
    print(f"list of all                   {listing * 1e3:10.0f} ms")
    print(f"get                           {median(options, lambda: get(database, key)):10.1f} us")
    print(f"update_status, without commit {median(options, lambda: status(database)):10.1f} us CPU")
    single, rate, loop, idle = asyncio.run(controller(database, options))
    print(f"awaited write, one at a time  {single:10.0f} us")
    print(f"awaited writes, {CONCURRENCY} at a time  {rate:10.0f} /s")
    print(f"CPU of each                   {loop:10.0f} us")
    print(f"idle                          {idle * 100:10.3f} % of a core")


def task(name: str, length: int) -> Resource:
    """A Task with a prompt of a length."""
    return {
        "apiVersion": "codeswarm.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": name, "labels": {"codeswarm.dev/project": "bench"}},
        "spec": {"project": "bench", "prompt": "x" * length},
    }


def running(number: int) -> dict[str, Any]:
    """A status as a running task has it."""
    conditions = ("Accepted", "Assignable", "Running", "BranchDurable", "Complete", "Failed")
    return {
        "phase": "Running",
        "observedGeneration": 1,
        "usage": {"totalTokens": number, "inputTokens": 1000, "outputTokens": 50},
        "attempts": [
            {"number": 1, "job": "swarm-0a1b2c3d-0-1", "state": "Running", "assignedAt": STAMP}
        ],
        "conditions": [
            {
                "type": kind,
                "status": "False",
                "reason": "NotYet",
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": STAMP,
            }
            for kind in conditions
        ],
    }


async def controller(
    database: Database, options: argparse.Namespace
) -> tuple[float, float, float, float]:
    """Single write in us; concurrent writes a second and CPU us of each; idle share of a core."""
    store = SqliteStore(database)
    await store.start()
    singles, rates, cpus = [], [], []
    for _ in range(options.rounds):
        obj = store.get(Key("Task", "default", "t0")) or {}
        laps = []
        for number in range(200):
            began = time.perf_counter()
            obj = await store.update_status({**obj, "status": running(number)})
            laps.append(time.perf_counter() - began)
        singles.append(statistics.median(laps) * 1e6)
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*[chain(store, f"t{index}") for index in range(CONCURRENCY)])
        rates.append(WRITES / (time.perf_counter() - began))
        cpus.append((time.process_time() - cpu) / WRITES * 1e6)
    cpu = time.process_time()
    await asyncio.sleep(5)
    idle = (time.process_time() - cpu) / 5
    await store.close()
    return statistics.median(singles), statistics.median(rates), statistics.median(cpus), idle


async def chain(store: SqliteStore, name: str) -> None:
    """One writer's share of the concurrent writes."""
    obj = store.get(Key("Task", "default", name)) or {}
    for number in range(WRITES // CONCURRENCY):
        obj = await store.update_status({**obj, "status": running(number)})


def once(database: Database, requests: list[ApplyRequest]) -> float:
    """Seconds of one apply."""
    return seconds(lambda: database.apply_many(requests))


def get(database: Database, key: Key) -> float:
    """Microseconds of one read."""
    return seconds(lambda: [database.get(key) for _ in range(2000)]) / 2000 * 1e6


def status(database: Database) -> float:
    """CPU microseconds of one change of status, the commit not counted."""
    obj = database.get(Key("Task", "default", "t2")) or {}
    with database._transaction() as transaction:
        began = time.thread_time()
        for number in range(2000):
            draft = status_draft_of({**obj, "status": running(number)})
            obj = transaction.update_status(draft)
        return (time.thread_time() - began) / 2000 * 1e6


def fsync(folder: str) -> float:
    """Microseconds of one write and fsync of 4 KiB at the end of a file."""
    path = Path(folder) / "probe"
    with path.open("wb", buffering=0) as file:

        def append() -> None:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())

        return statistics.median(seconds(append) for _ in range(200)) * 1e6


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(options: argparse.Namespace, work: Callable[[], float]) -> float:
    """The median over the rounds."""
    return statistics.median(work() for _ in range(options.rounds))


def machine() -> str:
    """What the figures were taken on."""
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(": ", 1)[-1] if lines else model
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


if __name__ == "__main__":
    main()
