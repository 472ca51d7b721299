"""Nothing of a worker that was ended is left, and that it ended stands in its folder."""

from __future__ import annotations

import os
import signal

from tests.machine.machine import JOB, SWARM, Machine, kill, runs
from tests.worker.harness import block, until
from worker.attendant.files import jobs

DAEMONS = (
    "setsid sh -c 'echo $$ > a; exec sleep 1000' & "
    "env -i PATH=$PATH setsid sh -c 'echo $$ > b; exec sleep 1000' & "
    "until test -s a && test -s b; do sleep 0.01; done; touch ready; trap '' TERM; "
    "while :; do sleep 1000; done"
)


def busy(machine: Machine) -> list[int]:
    """A worker in a turn whose command has left daemons; their pids."""
    folder = machine.job()
    machine.start()
    machine.idle()
    machine.prompt(block({"run": DAEMONS}), "u.1")
    until((folder / "repo" / "ready").exists, f"for the daemons: {machine.log()}")
    return [int((folder / "repo" / name).read_text()) for name in "ab"]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if runs(pid)]


def test_by_force_all_goes_at_once(machine: Machine) -> None:
    daemons = busy(machine)
    assert len(alive(daemons)) == 2
    assert machine.stop(force=True, seconds=10) == "gone"
    assert not alive(daemons) and not machine.processes()
    assert machine.note("ended") == "signal 9"
    (told,) = jobs(machine.root, SWARM)
    assert told["ended"] == "signal 9" and told["begun"]


def test_softly_the_turn_ends_first(machine: Machine) -> None:
    daemons = busy(machine)
    told = machine.stop(seconds=0)
    assert told == "running" or machine.note("ended")
    assert machine.stop() == "gone"
    assert machine.ended() == "exit 0" and not alive(daemons)
    ends = [e["data"] for e in machine.events() if e["event"] == "turn_complete"]
    assert [(d["status"], d["reason"]) for d in ends] == [("interrupted", "Stopped")]


def test_what_a_dead_worker_and_its_supervisor_left_is_killed(machine: Machine) -> None:
    daemons = busy(machine)
    supervisor, worker = machine.supervisor(), machine.worker()
    kill(supervisor)
    kill(worker)
    until(lambda: not {supervisor, worker} & set(machine.processes()), "for their end")
    assert daemons[0] in machine.processes()
    assert machine.note("ended") is None
    assert machine.stop() == "gone"
    assert not machine.processes() and machine.note("ended") == "signal 9"
    kill(daemons[1])  # it cleared its environment, and its ancestors are gone: beyond reach


def test_a_machine_that_was_restarted_says_so(machine: Machine) -> None:
    """Of what ran there is nothing, and nobody has told its end."""
    folder = machine.job()
    machine.start()
    machine.idle()
    kill(machine.supervisor())
    kill(machine.worker())
    until(lambda: not machine.processes(), "for their end")
    assert machine.note("ended") is None
    assert machine.stop() == "gone" and machine.note("ended") == "gone"
    (folder / "ended").unlink()
    (folder / "claim").write_text("i-0cccccccccccccccc t1 i-0cccccccccccccccc\n")
    assert machine.stop() == "gone" and machine.note("ended") is None  # another machine's


def test_one_that_was_never_started(machine: Machine) -> None:
    assert machine.stop() == "gone"
    machine.job()
    assert machine.stop() == "gone"
    assert machine.note("ended") is None and machine.start() == "started"


def test_a_stopped_start_never_begins(machine: Machine) -> None:
    """The order to end comes before the worker has begun."""
    machine.job()
    machine.start()
    assert machine.stop() == "gone"
    assert machine.ended() in ("exit 0", "signal 15", "gone")
    assert not machine.processes()
    assert machine.start() == "started" and not machine.processes()


def test_a_frozen_tree_goes_too(machine: Machine) -> None:
    machine.job()
    machine.start()
    machine.idle()
    for pid in machine.processes():
        os.kill(pid, signal.SIGSTOP)
    assert machine.stop(seconds=0.3) == "running"
    assert machine.stop(force=True) == "gone"


def test_clear_takes_every_job_below_a_root_and_looks_at_no_file(machine: Machine) -> None:
    other = Machine(machine.root.with_name("shared-too"), machine.program)
    try:
        daemons = busy(machine)
        machine.job("cloud-0f1e2d3c-1-1")
        machine.start("cloud-0f1e2d3c-1-1")
        other.job()
        other.start()
        other.idle()
        machine.root.rename(machine.root.with_name("away"))
        machine.root.symlink_to("/proc/self/nowhere")
        assert machine.clear() == {"left": 0}
        machine.root.unlink()
        machine.root.with_name("away").rename(machine.root)
        assert not alive(daemons)
        assert not machine.processes() and not machine.processes("cloud-0f1e2d3c-1-1")
        assert machine.note("ended") is None
        assert other.processes() and other.stop() == "gone"
    finally:
        other.close()


def test_clear_by_a_way_with_a_link_in_it(machine: Machine) -> None:
    """As ``workspaceRoot`` may have one; workers know their folders without."""
    machine.job()
    machine.start()
    machine.idle()
    real, way = machine.root, machine.root.parent / "way"
    way.symlink_to(real.parent)
    machine.root = way / real.name
    told = machine.clear()
    machine.root = real
    assert told == {"left": 0} and not machine.processes()


def test_of_many_orders_at_once_all_are_answered(machine: Machine) -> None:
    machine.job()
    machine.start()
    machine.idle()
    order = {**machine.start_order(), "force": True, "seconds": 20}
    processes = [machine.begin("stop", order) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.read() == f'{{"jobs": {{"{JOB}": "gone"}}}}\n'.encode()
    assert machine.note("ended") in ("signal 9", "gone")  # whoever finds nothing left may be first
