"""The home cannot be written, is somebody else's, or of a newer version."""

from __future__ import annotations

import io
import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from controller.runtime import local
from controller.runtime.home import VARIABLE, Home
from controller.store.database import Database
from tests.faults.support import (
    USE,
    FaultLab,
    check_branches,
    check_turns,
    check_usage,
    check_workers,
    turns,
)
from tests.lab import project, prompt, script, swarm, work
from tests.store.helpers import NOBODY, in_child

UNLIMITED = resource.RLIM_INFINITY


def limit(processes: list[psutil.Process], size: int) -> None:
    """Let files of these processes grow to ``size`` bytes at most: what a full disk does."""
    for process in processes:
        try:
            process.rlimit(psutil.RLIMIT_FSIZE, (size, UNLIMITED))
        except psutil.NoSuchProcess:
            continue


def run(lab: FaultLab, size: int = UNLIMITED) -> tuple[int, str]:
    """Run a controller that must end by itself; its exit code and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "controller.runtime.local"],
        env={**os.environ, VARIABLE: str(lab.home.root)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, UNLIMITED)),  # noqa: PLW1509
    )
    try:
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said


def test_the_disk_is_full_for_a_while(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start_in_a_pipe()
    names = [f"t{number}" for number in range(8)]
    tasks = [work(name, USE, "sleep: 0.3", USE) for name in names]
    lab.apply(swarm(replicas=2), project(tasks=tasks, retry={"limit": 0}))
    lab.wait(lambda: len(turns(lab)) >= 3, "some turns")
    controller = psutil.Process(lab.controller.pid)
    limit([controller], 1)
    before = lab.log.stat().st_size
    lab.apply(prompt("p", script(USE)))
    lab.wait(lambda: b"free space" in lab.log.read_bytes()[before:], "a clear word")
    limit([controller], UNLIMITED)
    lab.wait_phase("Project", "demo", "Completed")
    lab.wait_phase("Task", "p", "Succeeded")
    for name in names:
        assert [a["state"] for a in lab.attempts(f"demo.{name}")] == ["Succeeded"]
    check_turns(lab)
    check_usage(lab, "demo")
    check_workers(lab)
    check_branches(lab, repository, "demo", names)
    lab.stop()
    assert lab.controller.returncode == 0
    said = lab.log.read_text()
    assert "Traceback" not in said
    assert len(said.splitlines()) < 200


def test_the_disk_is_full_for_everybody(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start_in_a_pipe()
    names = [f"t{number}" for number in range(6)]
    tasks = [work(name, USE, "sleep: 0.3", USE) for name in names]
    lab.apply(swarm(replicas=2), project(tasks=tasks, retry={"limit": 0}))
    lab.wait(lambda: len(turns(lab)) >= 2, "some turns")
    everybody = [psutil.Process(lab.controller.pid), *lab.processes()]
    before = lab.log.stat().st_size
    limit(everybody, 1)
    lab.wait(lambda: b"free space" in lab.log.read_bytes()[before:], "a clear word")
    limit([*everybody, *lab.processes()], UNLIMITED)
    lab.wait_phase("Project", "demo", "Completed", deadline=60)
    for name in names:
        *lost, last = lab.attempts(f"demo.{name}")
        assert {a["class"] for a in lost} <= {"Infrastructure"}
        assert last["state"] == "Succeeded"
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", names)


def test_it_stops_while_the_disk_is_full(lab: FaultLab) -> None:
    lab.start_in_a_pipe()
    lab.apply(swarm(replicas=1), prompt("p", script("sleep: 1", USE)))
    lab.wait(lambda: turns(lab), "the turn")
    limit([psutil.Process(lab.controller.pid)], 1)
    lab.wait(lambda: all(turn.complete for turn in turns(lab).values()), "the turn to end")
    lab.stop()
    assert lab.controller.returncode in (0, local.EXIT_UNAVAILABLE)
    assert "Traceback" not in lab.log.read_text()
    lab.start()
    lab.wait_phase("Task", "p", "Succeeded")
    assert len(lab.attempts("p")) == 1
    check_usage(lab)


def test_it_starts_on_a_full_disk(lab: FaultLab) -> None:
    lab.apply(swarm(replicas=1), prompt("p", script(USE)))
    for size in (1, lab.home.state.stat().st_size + 40_000):
        code, said = run(lab, size)
        assert code == local.EXIT_UNAVAILABLE
        assert str(lab.home.root) in said
        assert "Traceback" not in said
        if size == 1:
            assert "File too large" in said or "space" in said
    lab.start()
    lab.wait_phase("Task", "p", "Succeeded")


def test_a_second_controller(lab: FaultLab) -> None:
    first = lab.start()
    code, said = run(lab)
    assert code == local.EXIT_UNAVAILABLE
    assert f"a controller already runs on {lab.home.root} (pid {first.pid})" in said
    assert len(said.splitlines()) == 1
    lab.apply(swarm(replicas=1), prompt("p", script(USE)))
    lab.wait_phase("Task", "p", "Succeeded")
    assert first.poll() is None


def test_a_home_that_is_removed(lab: FaultLab) -> None:
    """Neither the controller nor its workers outlive it."""
    process = lab.start()
    lab.apply(swarm())
    lab.wait_phase("Swarm", "builders", "Running")
    shutil.rmtree(lab.home.root)
    lab.wait(lambda: process.poll() is not None, "the controller to end")
    assert process.returncode == 0
    assert f"{lab.home.root} was removed" in lab.log.read_text()
    lab.wait(lambda: not lab.processes(), "the workers to end")


def test_a_state_of_a_newer_version(lab: FaultLab) -> None:
    lab.apply(swarm())
    lab.db.close()
    connection = sqlite3.connect(lab.home.state, isolation_level=None)
    connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    before = lab.home.state.read_bytes()
    code, said = run(lab)
    assert code == local.EXIT_UNAVAILABLE
    assert "schema version 99" in said and "upgrade Codeswarm" in said
    assert "Traceback" not in said
    assert lab.home.state.read_bytes() == before
    assert lab.home.lock.read_text() == ""


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A home with a swarm in it, whose folder every user can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Home.at(Path(folder) / "home").ensure()
        Database(home.state).close()
        yield home.root
        for path in (home.root, *home.root.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o600)


def as_somebody_else(home: Path) -> Callable[[], str]:
    """Be the controller of a home, in a process of its own; the exit code and what it said."""

    def work() -> str:
        signal.alarm(20)
        os.environ[VARIABLE] = str(home)
        said = io.StringIO()
        sys.stderr = said
        logging.getLogger().handlers.clear()
        return f"{local.main()} {said.getvalue()}"

    return work


@pytest.mark.parametrize("mode", [0o555, 0o500])
def test_a_read_only_home(foreign: Path, mode: int) -> None:
    before = (foreign / "state.db").read_bytes()
    for path in foreign.iterdir():
        path.chmod(0o555 if path.is_dir() else 0o444)
    foreign.chmod(mode)
    said = in_child(as_somebody_else(foreign), uid=NOBODY)
    assert said.startswith(f"{local.EXIT_UNAVAILABLE} "), said
    assert str(foreign) in said
    assert "Permission denied" in said or "may write" in said
    assert "Traceback" not in said
    foreign.chmod(0o755)
    assert (foreign / "state.db").read_bytes() == before
