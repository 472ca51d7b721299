"""Following outboxes where no hint comes: how often and for how long files are looked at."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from tests.providers.harness import run, until
from tests.worker.collected import Collected, append
from worker.follower import Follower


def test_without_a_hint_files_are_polled(tmp_path: Path) -> None:
    """As on a shared file system, whose other hosts no FIFO reaches."""

    async def scenario() -> None:
        sink = Collected()
        follower = Follower(None, poll_seconds=0.02)
        path = tmp_path / "outbox"
        follower.follow("job", path, 0)
        follower.start(sink)
        append(path, b"1\n2\n3")
        await sink.has(b"1", b"2")
        append(path, b"\n")
        await sink.has(b"1", b"2", b"3")
        follower.close()
        append(path, b"4\n")
        follower.start(sink)
        await sink.has(b"1", b"2", b"3", b"4")
        follower.close()
        assert [entry.name for entry in tmp_path.iterdir()] == ["outbox"]

    run(scenario)


def test_polling_leaves_time_for_other_things(tmp_path: Path) -> None:
    """Where a file system takes long to answer, it is asked less often."""
    looks: list[float] = []

    def slow(path: Path) -> os.stat_result:
        looks.append(time.monotonic())
        time.sleep(0.05)
        return path.lstat()

    async def scenario() -> None:
        path = tmp_path / "outbox"
        path.touch()
        follower = Follower(None, poll_seconds=0.001, stat_file=slow)
        follower.follow("job", path, 0)
        follower.start(Collected())
        await asyncio.sleep(1.0)
        follower.close()

    run(scenario)
    assert 2 <= len(looks) <= 1.0 / 0.2 + 1


def test_a_file_system_that_hangs_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    """Or pings would go unanswered, and a controller would start one attendant after another."""
    hangs, looked = threading.Event(), threading.Event()

    def look(path: Path) -> os.stat_result:
        looked.set()
        assert hangs.wait(10)
        return path.lstat()

    async def scenario() -> None:
        sink, path = Collected(), tmp_path / "outbox"
        follower = Follower(None, poll_seconds=0.01, stat_file=look)
        follower.start(sink)
        follower.follow("job", path, 0)
        await asyncio.to_thread(looked.wait, 10)
        append(path, b"1\n")
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert sink.lines() == []
        hangs.set()
        await sink.has(b"1")
        follower.close()

    run(scenario)


def test_a_quiet_file_is_looked_at_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.follower.LIVELY_SECONDS", 0.2)
    monkeypatch.setattr("worker.follower.QUIET_POLL_SECONDS", 3600.0)
    looks: list[float] = []

    def look(path: Path) -> os.stat_result:
        looks.append(time.monotonic())
        return path.lstat()

    async def quiet() -> bool:
        return bool(looks) and time.monotonic() - looks[-1] > 0.5

    async def scenario() -> None:
        sink, path = Collected(), tmp_path / "outbox"
        path.touch()
        follower = Follower(None, poll_seconds=0.01, stat_file=look)
        follower.start(sink)
        follower.follow("job", path, 0)
        await until(quiet, "no more looks")
        append(path, b"1\n")
        await asyncio.sleep(0.2)
        assert sink.lines() == []
        follower.stir("job")
        await sink.has(b"1")
        append(path, b"2\n")
        await sink.has(b"1", b"2")
        follower.close()

    run(scenario)
