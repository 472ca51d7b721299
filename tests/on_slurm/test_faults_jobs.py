"""Nodes, jobs and workers that end, or stand still, while a project or a turn runs on a cluster."""

from __future__ import annotations

import os
import signal

from tests.faults.support import turns
from tests.lab import project, refs, work
from tests.on_slurm.lab import SlurmLab
from tests.on_slurm.slow import SECONDS, begun, finished, gate, slow_project, waits_for


def test_a_node_fails_and_no_attempt_is_used_up(lab: SlurmLab) -> None:
    repository = slow_project(lab)
    node = lab.node_of(lab.slurm_id("builders", 0))
    lab.cluster.slurm.fail_node(node)
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    finished(lab, repository, ["Infrastructure", None])


def test_an_administrator_cancels_a_job_whose_turn_runs(lab: SlurmLab) -> None:
    """The worker saves what was done before it leaves; another goes on with the task."""
    repository = slow_project(lab)
    lab.cluster.slurm.cancel(lab.slurm_id("builders", 0))
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    lost = lab.attempts("demo.a")[0]
    assert lost["class"] == "Infrastructure"
    assert refs(repository)[lost["ref"]] == lost["headCommit"], "its work is at the attempt's ref"
    finished(lab, repository, ["Infrastructure", None])


def test_the_time_limit_nears(lab: SlurmLab) -> None:
    """USR1 ahead of the end: work is saved, the task put back, a new job follows."""
    repository = slow_project(lab)
    old = lab.slurm_id("builders", 0)
    lab.cluster.slurm.update(old, "EndTime=now+70")
    lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", SECONDS)
    left = lab.attempts("demo.a")[0]
    assert (left["class"], left["reason"]) == ("Infrastructure", "TimeLimit")
    assert refs(repository)[left["ref"]] == left["headCommit"]
    assert lab.slurm_id("builders", 0) != old
    finished(lab, repository, ["Infrastructure", None])


def test_a_suspended_job_is_left_alone_and_goes_on(lab: SlurmLab) -> None:
    repository = lab.repository()
    lab.start()
    lab.apply(
        lab.swarm_of(replicas=1, heartbeatTimeoutSeconds=8),
        project(tasks=[work("a", waits_for(gate(lab)))]),
    )
    begun(lab, "demo.a")
    id = lab.slurm_id("builders", 0)
    lab.cluster.slurm.suspend(id)
    lab.wait(lambda: "uspend" in str(lab.swarm_status("builders")), "it to be said")
    lab.outlast(10)  # more than a heartbeat timeout
    lab.cluster.slurm.resume(id)
    finished(lab, repository, [None])
    assert lab.slurm_id("builders", 0) == id


def test_a_worker_dies(lab: SlurmLab) -> None:
    repository = slow_project(lab)
    (process,) = lab.workers()[next(iter(lab.jobs("builders")))]
    os.kill(process.pid, signal.SIGKILL)
    finished(lab, repository, ["Infrastructure", None])
    uid = lab.get("Task", "demo.a")["metadata"]["uid"]
    assert sum(turn.uid == uid for turn in turns(lab).values()) == 2
