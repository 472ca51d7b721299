"""Clocks jump: the controller's, the workers', while it runs and between two lives of it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from controller.reconcile.clock import SystemClock, newest_stamp, seconds_of, stamp
from controller.reconcile.health import Heartbeats
from tests.faults.support import USE, FaultLab, check_branches, check_turns, check_usage
from tests.lab import project, prompt, script, swarm, work

YEARS = 10 * 365.25 * 86400.0


class FakeClock:
    """Time as a test sets it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def not_before(self, seconds: float) -> None:
        self.seconds = max(self.seconds, seconds)


# --- the clock of the reconcilers ----------------------------------------------------------------


@pytest.mark.parametrize("jump", [YEARS, -YEARS, 3600.0, -1.0])
def test_a_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    wall, ticks = 1e9, 50.0
    monkeypatch.setattr(time, "time", lambda: wall)
    monkeypatch.setattr(time, "monotonic", lambda: ticks)
    clock = SystemClock()
    assert clock.now() == 1e9
    wall += jump
    assert clock.now() == 1e9
    ticks += 7
    assert clock.now() == 1e9 + 7


def test_a_clock_does_not_begin_before_what_is_written() -> None:
    clock = SystemClock()
    later = clock.now() + 500
    clock.not_before(later)
    assert later <= clock.now() < later + 5
    clock.not_before(later - 1000)
    assert clock.now() >= later


def test_the_newest_stamp_of_an_object() -> None:
    status = {
        "conditions": [{"lastTransitionTime": stamp(5)}, {"lastTransitionTime": stamp(40)}],
        "attempts": [
            {"assignedAt": stamp(50), "finishedAt": stamp(60)},
            {"assignedAt": stamp(61), "interrupt": {"at": stamp(70), "reason": "Timeout"}},
        ],
        "workers": [{"launchedAt": stamp(30)}],
        "nextAttemptAt": stamp(900),
    }
    assert newest_stamp({"status": status}) == 70
    assert newest_stamp({"status": {**status, "terminatingSince": stamp(71)}}) == 71
    assert newest_stamp({"status": {"workers": [{"launchedAt": stamp(30)}]}}) == 30
    assert newest_stamp({}) == newest_stamp({"status": {"conditions": []}}) == 0.0


# --- heartbeats ----------------------------------------------------------------------------------


def test_only_a_heartbeat_that_stands_still_is_stale() -> None:
    clock = FakeClock()
    beats = Heartbeats(clock)
    for beat in (5.0, 4.0, 1e12, -1e12, 0.0, 5.0):
        for _ in range(5):
            clock.seconds += 2.0
            assert not beats.stale("job", beat, 10, 5)
    clock.seconds += 1.9
    assert not beats.stale("job", 5.0, 10, 5)
    clock.seconds += 2.0
    assert beats.stale("job", 5.0, 10, 5)
    assert not beats.stale("job", 6.0, 10, 5)


def test_before_its_first_heartbeat_a_worker_has_more_time() -> None:
    clock = FakeClock()
    beats = Heartbeats(clock)
    for _ in range(8):
        assert not beats.stale("job", None, 10, 5)
        clock.seconds += 2.0
    assert beats.stale("job", None, 10, 5)
    beats.forget("job")
    assert not beats.stale("job", None, 10, 5)


def test_time_in_which_nobody_looked_does_not_count() -> None:
    clock = FakeClock()
    beats = Heartbeats(clock)
    assert not beats.stale("job", 1.0, 10, 5)
    clock.seconds += 3600
    assert not beats.stale("job", 1.0, 10, 5)
    for _ in range(3):
        clock.seconds += 2.0
        assert not beats.stale("job", 1.0, 10, 5)
    clock.seconds += 2.0
    assert beats.stale("job", 1.0, 10, 5)


def touch_heartbeats(lab: FaultLab, seconds: float) -> None:
    """Give every worker's heartbeat file another time."""
    for path in lab.home.workspaces.glob("*/*/*/heartbeat"):
        os.utime(path, (seconds, seconds))


def test_heartbeats_from_the_past_and_the_future(lab: FaultLab) -> None:
    lab.start()
    lab.apply(swarm(heartbeatTimeoutSeconds=2))
    lab.apply(prompt("p", script("sleep: 4", USE), retry={"limit": 0}))
    lab.wait_phase("Swarm", "builders", "Running")
    before = set(lab.jobs("builders"))
    offsets = [-YEARS, YEARS, -1.0, 3600.0]

    def done() -> bool:
        offsets.append(offsets.pop(0))
        touch_heartbeats(lab, time.time() + offsets[0])
        return lab.phase_of("Task", "p") == "Succeeded"

    lab.wait(done, "the prompt")
    assert set(lab.jobs("builders")) == before
    assert len(lab.attempts("p")) == 1


def test_everything_stands_still_for_a_while(lab: FaultLab) -> None:
    """A machine that slept: nobody is lost only because the clock went on."""
    lab.start()
    lab.apply(swarm(replicas=1, heartbeatTimeoutSeconds=2))
    lab.apply(prompt("p", script("sleep: 4", USE), retry={"limit": 0}))
    lab.wait(lambda: lab.phase_of("Task", "p") == "Running", "the turn")
    before = set(lab.jobs("builders"))
    worker = lab.worker_pid("builders", 0)
    os.kill(worker, signal.SIGSTOP)
    lab.controller.send_signal(signal.SIGSTOP)
    time.sleep(3.5)
    lab.controller.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    os.kill(worker, signal.SIGCONT)
    lab.wait_phase("Task", "p", "Succeeded")
    assert set(lab.jobs("builders")) == before
    assert len(lab.attempts("p")) == 1


# --- the controller's wall clock -----------------------------------------------------------------


def test_it_jumps_while_the_controller_runs(lab: FaultLab) -> None:
    repository = lab.repository()
    skew = lab.start_skewed(0)
    tasks = [
        work("a", USE, '{run: "exit 1", attempt: 1}'),
        work("b", USE, "sleep: 1", depends_on=["a"]),
        work("c", USE),
    ]
    lab.apply(swarm(heartbeatTimeoutSeconds=2), project(tasks=tasks, taskTimeoutSeconds=60))
    jumps = [YEARS, -YEARS, 0.0, 3600.0, -30.0]

    def done() -> bool:
        jumps.append(jumps.pop(0))
        replace(skew, jumps[0])
        return lab.phase_of("Project", "demo") == "Completed"

    lab.wait(done, "the project")
    states = {n: [a["state"] for a in lab.attempts(f"demo.{n}")] for n in "abc"}
    assert states == {"a": ["Failed", "Succeeded"], "b": ["Succeeded"], "c": ["Succeeded"]}
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", "abc")


def replace(file: Path, seconds: float) -> None:
    """Write a skew, whole at any moment."""
    new = file.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(file)


@pytest.mark.parametrize("jump", [YEARS, pytest.param(3600.0, marks=pytest.mark.soak)])
def test_it_is_set_back_between_two_controllers(lab: FaultLab, jump: float) -> None:
    """What was to be done soon by a clock that was ahead is done soon all the same."""
    repository = lab.repository()
    lab.start_skewed(jump)
    tasks = [
        work("a", USE, '{run: "exit 1", attempt: 1}', "{hang: true, attempt: 2}"),
        work("b", USE, "sleep: 1.5"),
    ]
    retry = {"limit": 2, "backoffSeconds": 1, "maxBackoffSeconds": 2}
    lab.apply(swarm(), project(tasks=tasks, retry=retry, taskTimeoutSeconds=2.5))
    lab.wait(lambda: lab.task("demo.a").get("nextAttemptAt"), "a to wait for its next attempt")
    assert (seconds_of(lab.task("demo.a")["nextAttemptAt"]) or 0) > time.time() + jump - 60
    lab.kill()
    lab.start()
    lab.wait_phase("Project", "demo", "Completed")
    assert [a["state"] for a in lab.attempts("demo.b")] == ["Succeeded"]
    assert [a.get("class") for a in lab.attempts("demo.a")] == ["Task", "Timeout", None]
    stamps = [a[name] for a in lab.attempts("demo.a") for name in ("assignedAt", "finishedAt")]
    assert stamps == sorted(stamps)
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", "ab")
    lab.delete("Swarm", "builders")
    lab.wait(lambda: lab.is_gone("Swarm", "builders"), "the swarm to go")


def test_it_is_set_ahead_between_two_controllers(lab: FaultLab) -> None:
    repository = lab.repository()
    lab.start_skewed(-YEARS)
    tasks = [work("a", USE, '{run: "exit 1", attempt: 1}'), work("b", USE, "sleep: 2")]
    lab.apply(swarm(), project(tasks=tasks))
    lab.wait(lambda: lab.phase_of("Task", "demo.b") == "Running", "b to run")
    before = set(lab.jobs("builders"))
    lab.kill()
    lab.start_skewed(YEARS)
    lab.wait_phase("Project", "demo", "Completed")
    assert set(lab.jobs("builders")) == before
    assert [a["state"] for a in lab.attempts("demo.b")] == ["Succeeded"]
    check_turns(lab)
    check_usage(lab, "demo")
    check_branches(lab, repository, "demo", "ab")
