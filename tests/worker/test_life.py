"""A worker's life: start, heartbeat, orders, signals, crashes; it leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.worker.harness import PATIENCE, Worker, block, until, user
from worker.identity import boot_id, start_ticks

Make = Callable[..., Worker]


def statuses(worker: Worker) -> list[str]:
    return [e["data"]["status"] for e in worker.events("thread_status")]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pid_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip(), f"for {path}"))


def running_turn(worker: Worker, *steps: object) -> str:
    injection = worker.prompt(block(*steps))
    worker.wait("task_started", injection)
    return injection


def test_the_start_is_told_with_the_proof_of_identity(worker: Worker) -> None:
    assert statuses(worker) == ["starting", "idle"]
    assert worker.process is not None
    pid = worker.process.pid
    assert worker.events("thread_status")[0]["data"]["pid"] == pid
    found = json.loads((worker.base / "worker.pid").read_text())
    assert found == {"pid": pid, "start": start_ticks(pid), "boot": boot_id()}
    assert found["start"] > 0 and found["boot"]


def test_the_heartbeat_goes_on_through_a_turn_that_hangs(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=0.05).start()
    running_turn(worker, {"hang": True})
    beat = worker.base / "heartbeat"
    first = beat.stat().st_mtime_ns
    until(lambda: beat.stat().st_mtime_ns > first, "for a beat")
    beat.unlink()
    until(beat.exists, "for the heartbeat file to come back")


def test_mail_is_found_without_the_hint(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=0.05).start()
    worker.inbox.write_text(json.dumps(user("hello", "u.1")) + "\n")
    assert worker.outcome("u.1")["status"] == "completed"


def test_an_inbox_that_nobody_can_poke_is_polled(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=60, pollSeconds=0.05).start()
    assert not (worker.inbox.parent / "wake").exists()
    for number in range(3):
        with worker.inbox.open("ab") as file:
            file.write(json.dumps(user("hello", f"u.{number}")).encode() + b"\n")
        assert worker.outcome(f"u.{number}")["status"] == "completed"


def test_without_a_fifo_the_inbox_is_polled(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=60)
    worker.inbox.parent.mkdir(parents=True)
    (worker.inbox.parent / "wake" / "taken").mkdir(parents=True)
    worker.start()
    assert worker.ask("hello")["status"] == "completed"
    assert "no FIFO" in worker.log()


def test_a_second_process_for_the_folder_leaves_at_once(worker: Worker) -> None:
    assert worker.process is not None
    first = worker.process
    second = worker.spawn()
    worker.process = first
    assert second.wait(PATIENCE) == 0
    assert "already runs" in worker.log()
    assert json.loads((worker.base / "worker.pid").read_text())["pid"] == first.pid


@pytest.mark.parametrize(
    ("change", "message"),
    [({"runtime": "hal"}, "runtime 'hal'"), ({"workspaceSubdir": "../x"}, "workspaceSubdir")],
)
def test_settings_that_cannot_be_used_are_said(
    make_worker: Make, change: dict[str, str], message: str
) -> None:
    worker = make_worker(**change)
    assert worker.spawn().wait(PATIENCE) == 2
    assert message in worker.log() and "Traceback" not in worker.log()


def test_bad_mail_is_reported_once_even_across_a_restart(worker: Worker) -> None:
    worker.inbox.parent.mkdir(parents=True, exist_ok=True)
    worker.inbox.write_bytes(b"garbage\n\xff\n")
    worker.ask("hello")
    worker.end()
    worker.start()
    worker.ask("again")
    told = [e["data"] for e in worker.events("agent_error")]
    assert [d["offset"] for d in told] == [0, 8]
    assert all(d["class"] == "mailbox" and not d["will_retry"] for d in told)


def test_a_trouble_with_the_inbox_passes_and_is_logged_once(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=0.02)
    worker.inbox.parent.mkdir(parents=True)
    worker.inbox.mkdir()
    worker.start()
    until(lambda: "inbox: " in worker.log(), "for the complaint")
    first = (worker.base / "heartbeat").stat().st_mtime_ns
    until(lambda: (worker.base / "heartbeat").stat().st_mtime_ns > first, "for a beat")
    worker.inbox.rmdir()
    assert worker.ask("hello")["status"] == "completed"
    assert worker.log().count("inbox: ") == 1


# --- orders -----------------------------------------------------------------------------------


def test_draining_finishes_what_was_accepted_and_leaves(worker: Worker) -> None:
    first = running_turn(worker, {"run": "until test -e go; do sleep 0.01; done"})
    second = worker.prompt("waits")
    worker.control("drain")
    until(lambda: "draining" in statuses(worker), "for draining")
    late = worker.prompt("too late")
    (worker.repo / "go").touch()
    assert worker.process is not None and worker.process.wait(PATIENCE) == 0
    assert [worker.outcome(i)["status"] for i in (first, second)] == ["completed"] * 2
    assert not worker.events(injection=late)
    assert statuses(worker)[-1] == "stopped"


def test_draining_an_idle_worker_ends_it(worker: Worker) -> None:
    worker.control("drain")
    assert worker.process is not None and worker.process.wait(PATIENCE) == 0
    assert statuses(worker)[-2:] == ["draining", "stopped"]


@pytest.mark.parametrize("how", ["shutdown", "SIGTERM"])
def test_a_worker_that_must_leave_interrupts_its_turn(worker: Worker, how: str) -> None:
    injection = running_turn(worker, {"run": "sleep 1000"})
    waiting = worker.prompt("waits")
    worker.wait("command_started", injection)
    if how == "shutdown":
        worker.control("shutdown", reason="Stopped")
        assert worker.process is not None and worker.process.wait(PATIENCE) == 0
    else:
        assert worker.end() == 0
    done = worker.outcome(injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Stopped")
    assert done["error"]["class"] == "interrupted"
    assert not worker.events(injection=waiting)
    assert worker.events()[-1]["data"]["status"] == "stopped"


@pytest.mark.parametrize(
    "step",
    [
        {"hang": True},
        {"sleep": 1000},
        {"run": "sleep 1000"},
        {"run": "trap '' TERM INT; while :; do sleep 0.1; done"},
        {"run": "yes"},
        {"ask": {"command": "ls"}},
    ],
)
def test_a_turn_is_interrupted_wherever_it_is(make_worker: Make, step: dict[str, object]) -> None:
    worker = make_worker(agent={"approvalPolicy": "untrusted"}).start()
    injection = running_turn(worker, step, {"say": "never"})
    worker.control("interrupt", injection_id=injection, reason="Timeout")
    done = worker.outcome(injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Timeout")
    assert worker.count("assistant") == 0
    assert worker.ask("next")["status"] == "completed"


def test_an_interruption_is_only_for_its_own_turn(worker: Worker) -> None:
    first = running_turn(worker, {"run": "until test -e go; do sleep 0.01; done"})
    second = worker.prompt(block({"say": "never"}))
    worker.control("interrupt", injection_id=second, reason="Cancelled")
    worker.control("interrupt", injection_id="uid.3", reason="Cancelled")
    third = worker.prompt("interrupted before it came")
    fourth = worker.prompt("goes on")
    (worker.repo / "go").touch()
    worker.outcome(fourth)
    ends = {i: worker.outcome(i)["status"] for i in (first, second, third, fourth)}
    assert list(ends.values()) == ["completed", "interrupted", "interrupted", "completed"]
    assert worker.events("turn_started", second)


# --- processes --------------------------------------------------------------------------------

DAEMON = (
    'python3 -c "import os,time; os.setsid(); os.environ.clear(); '
    "open('pid','w').write(str(os.getpid())); time.sleep(1000)\" >/dev/null 2>&1 &"
)


def test_no_process_of_a_turn_outlives_it(worker: Worker) -> None:
    script = f"({DAEMON}) ; sleep 1000 & until test -s pid; do sleep 0.01; done; echo ready"
    done = worker.ask(block({"run": script}))
    assert done["status"] == "completed"
    assert worker.wait("command_completed")["data"]["output"] == "ready\n"
    assert not alive(pid_in(worker.repo / "pid"))
    assert worker.process is not None
    assert psutil.Process(worker.process.pid).children(recursive=True) == []


def test_none_outlives_an_interrupted_turn(worker: Worker) -> None:
    injection = running_turn(worker, {"run": f"{DAEMON} setsid sleep 1000"})
    pid = pid_in(worker.repo / "pid")
    worker.control("interrupt", reason="Timeout")
    worker.outcome(injection)
    assert not alive(pid)
    assert worker.process is not None
    assert psutil.Process(worker.process.pid).children(recursive=True) == []


def test_the_background_does_not_hold_up_a_command(worker: Worker) -> None:
    done = worker.ask(block({"run": "sleep 1000 & echo started"}))
    assert done["status"] == "completed"
    assert worker.wait("command_completed")["data"]["seconds"] < 5


def test_what_a_killed_worker_left_running_is_ended_by_its_successor(worker: Worker) -> None:
    worker.env = {
        **worker.env,
        "CODESWARM_JOB_ID": worker.job,
        "CODESWARM_BASE_DIR": str(worker.base),
    }
    running_turn(worker, {"run": "echo $$ > pid; exec sleep 1000"})
    pid = pid_in(worker.repo / "pid")
    worker.end(signal.SIGKILL)
    assert alive(pid)
    worker.start()
    until(lambda: not alive(pid), "for the orphan's end")


# --- crashes ----------------------------------------------------------------------------------


def test_a_crash_step_kills_the_worker_after_its_acceptance_is_written(worker: Worker) -> None:
    injection = worker.prompt(block({"crash": True}))
    assert worker.process is not None
    assert worker.process.wait(PATIENCE) == -signal.SIGKILL
    assert worker.events("turn_started", injection)
    assert not worker.events("turn_complete", injection)


def test_after_a_kill_nothing_runs_twice_and_nothing_is_lost(worker: Worker) -> None:
    done = worker.prompt(block({"run": "echo x >> done"}))
    worker.outcome(done)
    dead = running_turn(worker, {"run": "echo x >> dead; sleep 1000"})
    until((worker.repo / "dead").exists, "for the command")
    waiting = worker.prompt(block({"run": "echo x >> waiting"}))
    worker.end(signal.SIGKILL)
    with worker.outbox.open("ab") as file:
        file.write(b'{"seq":5')
    worker.start()
    worker.outcome(waiting)
    lost = worker.outcome(dead)
    assert lost["status"] == "failed" and lost["error"]["class"] == "infrastructure"
    again = worker.prompt("redelivered", injection_id=done)
    assert again == done
    worker.ask("something else")
    for name in ("done", "dead", "waiting"):
        assert (worker.repo / name).read_text() == "x\n"
    for injection in (done, dead, waiting):
        assert len(worker.events("turn_started", injection)) == 1
        assert len(worker.events("turn_complete", injection)) == 1
    numbers = [e["seq"] for e in worker.events()]
    assert numbers == sorted(set(numbers))


def test_a_repeated_delivery_starts_nothing(worker: Worker) -> None:
    injection = worker.prompt(block({"run": "echo x >> count"}))
    worker.prompt(block({"run": "echo x >> count"}), injection_id=injection)
    worker.ask("something else")
    assert (worker.repo / "count").read_text() == "x\n"


def test_the_worker_leaves_when_its_folder_is_gone(make_worker: Make) -> None:
    worker = make_worker(heartbeatSeconds=0.05).start()
    running_turn(worker, {"run": "sleep 1000"})
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    children = until(process.children, "for the command")
    while worker.base.exists():
        shutil.rmtree(worker.base, ignore_errors=True)
    assert worker.process.wait(PATIENCE) == 1
    assert not any(alive(child.pid) for child in children)


def test_an_idle_worker_is_small_and_still(worker: Worker) -> None:
    assert worker.process is not None
    worker.ask(block({"say": "loads YAML"}, before="x"))
    process = psutil.Process(worker.process.pid)
    assert process.memory_info().rss < 25 << 20
    assert process.num_threads() == 2


def test_a_worker_ignores_a_hangup(worker: Worker) -> None:
    assert worker.process is not None
    os.kill(worker.process.pid, signal.SIGHUP)
    assert worker.ask("hello")["status"] == "completed"


def test_without_a_folder_the_usage_is_told() -> None:
    done = subprocess.run(
        ["python3", "-m", "worker"],
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2 and b"usage: worker BASE_DIR" in done.stderr
