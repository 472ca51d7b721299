"""A worker begins once, whoever asks how often, and outlives the login that started it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.machine.machine import COORDINATOR, JOB, NODE, SWARM, Machine, kill, runs
from tests.worker.harness import PATIENCE, block, until
from worker.machine.tree import find, of_job

MINE = f"{NODE} t1 {COORDINATOR}"


def test_a_worker_runs_and_its_end_is_told(machine: Machine) -> None:
    machine.env.update(AWS_SECRET_ACCESS_KEY="s", SSH_AUTH_SOCK="/a", AWS_REGION="r", KEPT="yes")
    machine.job()
    assert machine.start(path=["/opt/tools/bin"]) == "started"
    assert machine.note("claim") == MINE
    machine.idle()
    environ = dict(
        line.partition("=")[::2]
        for line in Path(f"/proc/{machine.worker()}/environ").read_text().split("\0")
    )
    assert environ["PATH"] == f"/opt/tools/bin:{machine.env['PATH']}"
    assert environ["CODESWARM_NODE_ID"] == NODE and environ["KEPT"] == "yes"
    assert not [name for name in environ if name.startswith(("AWS_", "SSH_", "CODESWARM_SUP"))]
    assert machine.note("ended") is None
    assert machine.stop() == "gone"
    assert machine.ended() == "exit 0"
    assert machine.statuses()[-1] == ("stopped", "Stopped")
    assert not machine.processes()


def test_the_same_order_again_starts_nothing(machine: Machine) -> None:
    machine.job()
    assert machine.start() == "started"
    machine.idle()
    worker, supervisor = machine.worker(), machine.supervisor()
    assert machine.start() == "started"
    assert (machine.worker(), machine.supervisor()) == (worker, supervisor)
    assert machine.start(token="t2") == {"claimed": MINE}
    assert machine.start(node="i-0cccccccccccccccc") == {"claimed": MINE}
    kill(supervisor)
    assert machine.start() == "started"
    kill(worker)
    until(lambda: not machine.processes(), "for its end")
    assert machine.start() == "started"
    assert not machine.processes()
    assert [s for s, _ in machine.statuses()].count("starting") == 1


def test_of_rivals_one_begins(machine: Machine) -> None:
    machine.job()
    orders = [machine.start_order(token=f"t{number % 2}") for number in range(6)]
    processes = [machine.begin("start", order) for order in orders]
    answers = []
    for process in processes:
        assert process.stdout is not None
        with process, process.stdout:
            answers.append(json.loads(process.stdout.read())["jobs"][JOB])
    machine.idle()
    winner = (machine.note("claim") or "").split()[1]
    for order, answer in zip(orders, answers, strict=True):
        assert (answer == "started") == (order["token"] == winner), answers
    assert machine.supervisor()
    assert [s for s, _ in machine.statuses()].count("starting") == 1


def test_a_start_that_died_after_its_claim_is_made_up_for(machine: Machine) -> None:
    """By the same order only; and a half-started worker of a killed supervisor is no second one."""
    machine.job()
    (machine.folder() / "claim").write_text(f"{MINE}\n")
    (machine.folder() / "supervisor.lock").touch()
    assert machine.start(token="t2") == {"claimed": MINE}
    assert machine.note("worker.log") is None
    assert machine.start() == "started"
    machine.idle()
    assert machine.stop() == "gone"
    assert machine.start() == "started"
    assert not machine.processes() and machine.ended() == "exit 0"


def test_a_supervisor_that_is_killed_early_is_started_again(
    machine: Machine, tmp_path: Path
) -> None:
    """What it had started, and what had not begun, is no second worker."""
    slow = tmp_path / "python"
    wait = f"until test -e {tmp_path}/go; do sleep 0.01; done"
    slow.write_text(f'#!/bin/sh\n{wait}\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    machine.job()
    assert machine.start(python=str(slow)) == "started"
    until(lambda: len(machine.processes()) > 1, "for the worker's process")
    old = set(machine.processes())
    kill(machine.supervisor())
    assert machine.start(python=str(slow)) == "started"
    until(lambda: not old & set(machine.processes()), "for the end of what was begun")
    (tmp_path / "go").touch()
    machine.idle()
    assert not set(machine.processes()) & old
    assert machine.stop() == "gone" and machine.ended() == "exit 0"


def test_a_worker_goes_on_without_its_supervisor(machine: Machine) -> None:
    machine.job()
    machine.start()
    machine.idle()
    kill(machine.supervisor())
    assert machine.start() == "started"
    assert set(machine.processes()) == {machine.worker()}
    assert machine.stop() == "gone" and machine.ended() == "gone"
    assert machine.statuses()[-1] == ("stopped", "Stopped")


def test_it_outlives_the_login(machine: Machine) -> None:
    machine.job()
    process = machine.begin("start", machine.start_order())
    process.wait(PATIENCE)
    session = process.pid
    for pid in machine.processes():
        assert os.getsid(pid) != session
        os.kill(pid, signal.SIGHUP)
    machine.idle()
    with pytest.raises(ProcessLookupError):
        os.killpg(session, signal.SIGHUP)
    assert process.stdout is not None and process.stdout.read().endswith(b"\n")
    process.stdout.close()


def test_what_the_worker_left_is_ended_before_its_end_is_told(machine: Machine) -> None:
    """Daemons of its agent too, with and without the environment."""
    folder = machine.job()
    machine.start()
    machine.idle()
    script = (
        "setsid sh -c 'echo $$ > a; exec sleep 1000' & "
        "env -i PATH=$PATH setsid sh -c 'echo $$ > b; exec sleep 1000' & "
        "until test -s a && test -s b; do sleep 0.01; done; touch ready; sleep 1000"
    )
    machine.prompt(block({"run": script}), "u.1")
    until((folder / "repo" / "ready").exists, f"for the daemons: {machine.log()}")
    daemons = [int((folder / "repo" / name).read_text()) for name in "ab"]
    kill(machine.worker())
    assert machine.ended() == "signal 9"
    for pid in daemons:
        assert not runs(pid)


@pytest.mark.parametrize("what", ["nothing", "unfinished"])
def test_a_folder_that_is_not_there(machine: Machine, what: str) -> None:
    if what == "unfinished":
        (machine.job() / "worker.json").unlink()
    told = machine.start()
    assert told["reason"] == "NotPrepared" and str(machine.root) in told["message"]
    assert machine.note("claim") is None


def test_a_shut_folder_is_nobodys(machine: Machine) -> None:
    (machine.job() / "claim").write_text("cancelled\n")
    assert machine.start() == {"claimed": "cancelled"}
    assert machine.stop() == "gone" and machine.note("ended") is None


def test_a_python_that_is_none(machine: Machine) -> None:
    machine.job()
    assert machine.start(python="/nowhere/python3") == "started"
    assert machine.ended() == "exit 127"
    told = json.loads(machine.note("failure") or "")
    assert told["reason"] == "PythonNotFound" and "/nowhere/python3" in told["message"]


def test_a_lock_that_somebody_else_holds(machine: Machine) -> None:
    folder = machine.job()
    with (folder / "supervisor.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert machine.start()["reason"] == "LockHeld"
    assert machine.start() == "started"


@pytest.mark.parametrize(
    "wrong",
    [
        {"jobs": [{"folder": "default/../x", "job": "x"}]},
        {"jobs": [{"folder": "default/a/b", "job": "c"}]},
        {"jobs": [{"folder": "default/a/.b", "job": ".b"}]},
        {"jobs": "x"},
        {"token": "a b"},
        {"spot": 1},
        {"path": [1]},
    ],
)
def test_an_order_that_makes_no_sense(machine: Machine, wrong: dict[str, object]) -> None:
    told = machine.order("start", {**machine.start_order(), **wrong})
    assert told["reason"] in ("BadRequest", "InvalidName") and told["message"]


def test_links_are_not_followed(machine: Machine, tmp_path: Path) -> None:
    folder = machine.job()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    for name in ("worker.log", "supervisor.lock"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(elsewhere)
        assert machine.start()["reason"] == "StartFailed", name
        (folder / name).unlink()
    assert elsewhere.read_text() == "kept"
    folder.rename(folder.with_name("moved"))
    folder.symlink_to("moved")
    assert machine.start()["reason"] == "UnsafePath"


def test_anybody_may_repeat_an_order_without_a_token(machine: Machine) -> None:
    machine.job()
    assert machine.start(token="") == "started"
    assert machine.note("claim") == f"{NODE} {JOB} {COORDINATOR}"


def test_several_at_once(machine: Machine) -> None:
    jobs = [f"cloud-0f1e2d3c-{number}-1" for number in range(3)]
    for job in jobs:
        machine.job(job)
    assert machine.start(*jobs) == dict.fromkeys(jobs, "started")
    for job in jobs:
        machine.idle(job)
    assert machine.stop(*jobs[:2]) == dict.fromkeys(jobs[:2], "gone")
    assert find(of_job(jobs[2], machine.root.joinpath(*SWARM, jobs[2])))
