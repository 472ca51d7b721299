"""A partition of higher priority takes a worker's node away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import clusters
from tests.lab import git, project, refs, work
from tests.on_slurm.lab import SlurmLab

GRACE = 10
"""Seconds that a job gets to end, of the partition."""
EXTRA = f"""\
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime={GRACE} State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF State=UP
"""


@pytest.fixture(scope="module")
def preempting() -> Iterator[clusters.Cluster]:
    """A cluster of one node."""
    with clusters.running(
        nodes=1, extra=EXTRA, PreemptType="preempt/partition_prio", PreemptMode="CANCEL"
    ) as cluster:
        yield cluster


@pytest.mark.soak
def test_a_preempted_worker_saves_its_turn_and_is_replaced(
    preempting: clusters.Cluster, tmp_path: Path
) -> None:
    with SlurmLab(tmp_path, preempting) as lab:
        repository = lab.repository()
        gate = lab.path / "gate"
        lab.start()
        waits = f'run: "while [ ! -e {gate} ]; do sleep 0.05; done"'
        lab.apply(
            lab.swarm_of(replicas=1, slurm={"partition": "low"}),
            project(tasks=[work("a", waits)]),
        )
        lab.wait(
            lambda: lab.attempts("demo.a") and "turnStartedAt" in lab.attempts("demo.a")[-1], "a"
        )
        first = lab.slurm_id("builders", 0)
        other = preempting.slurm.call(
            "sbatch", "--parsable", "-p", "urgent", "--exclusive", "--wrap", "sleep 4"
        ).stdout.strip()
        lab.wait(lambda: len(lab.attempts("demo.a")) == 2, "another attempt", 60)
        lost = lab.attempts("demo.a")[0]
        assert lost["class"] == "Infrastructure"
        assert refs(repository)[lost["ref"]] == lost["headCommit"], "its work was saved"
        assert lab.slurm_id("builders", 0) != first
        assert preempting.slurm.call("scontrol", "show", "job", first).stdout.count(
            "JobState=PREEMPTED"
        ), other
        gate.touch()
        lab.wait_phase("Project", "demo", "Completed", deadline=60)
        assert [a.get("class") for a in lab.attempts("demo.a")] == ["Infrastructure", None]
        assert git("-C", str(repository), "show", "codeswarm/demo/a:a.txt") == "a"
