"""A Slurm cluster over SSH: status requests, a prompt's way to its turn, fifty workers at once.

The cluster is real and lies on this machine: sshd, slurmctld and four slurmd on loopback.  So the
network costs nothing here, and a shared file system is a local one; what is measured is ours.
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
import time
from pathlib import Path

import psutil

from bench.machine import describe, spread
from tests import clusters
from tests.faults.support import turns
from tests.lab import prompt
from tests.on_slurm.lab import SlurmLab

MIB = 1 << 20
OTHERS = ("REQUEST_STATS_INFO", "REQUEST_PING")
"""Requests of this program's own, and of Slurm among itself."""


def main() -> None:
    """Measure each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=60, help="prompts to an idle worker")
    parser.add_argument("--launch", type=int, default=50, help="workers of one launch")
    parser.add_argument("--many", type=int, default=200, help="workers while Slurm is looked at")
    parser.add_argument("--minutes", type=float, default=2.0, help="of looking at each number")
    options = parser.parse_args()
    print(describe())
    with clusters.running(cpus=64) as cluster:
        with lab_on(cluster) as lab:
            requests(lab, 4, options.minutes)
            prompts(lab, options.prompts)
        with lab_on(cluster) as lab:
            launch(lab, options.launch)
            requests(lab, options.many, options.minutes)


def lab_on(cluster: clusters.Cluster) -> SlurmLab:
    """A home whose controller is up, and the emptied cluster."""
    cluster.clear()
    lab = SlurmLab(Path(tempfile.mkdtemp(prefix="bench-slurm-")), cluster)
    lab.start()
    return lab


def launch(lab: SlurmLab, workers: int) -> None:
    """From the manifest to all workers ready."""
    began = time.monotonic()
    lab.apply(lab.swarm_of(replicas=workers))
    wait_ready(lab, workers)
    print(f"launch of {workers} workers until all are ready: {time.monotonic() - began:.1f} s")


def requests(lab: SlurmLab, workers: int, minutes: float) -> None:
    """What Slurm is asked in quiet minutes, and what the controller is then."""
    lab.apply(lab.swarm_of(replicas=workers))
    wait_ready(lab, workers)
    time.sleep(35)  # launches are told for some time to come
    before = asked(lab)
    process = psutil.Process(lab.controller.pid)
    spent = sum(process.cpu_times()[:2])
    began = time.monotonic()
    time.sleep(60 * minutes)
    seconds = time.monotonic() - began
    more = {name: count - before.get(name, 0) for name, count in asked(lab).items()}
    rates = ", ".join(f"{name} {60 * n / seconds:.1f}" for name, n in sorted(more.items()) if n)
    memory = process.memory_info().rss / MIB
    share = 100 * (sum(process.cpu_times()[:2]) - spent) / seconds
    print(
        f"{workers} idle workers: requests to slurmctld a minute: {rates or 'none'}; "
        f"controller {memory:.0f} MB, {share:.2f} % of a core"
    )


def asked(lab: SlurmLab) -> dict[str, int]:
    """What slurmctld itself has counted: requests of clients by kind."""
    said = lab.cluster.slurm.call("sdiag").stdout.partition("by user")[0]
    kinds = re.findall(r"(REQUEST_\w+)\s*\(\s*\d+\)\s*count:(\d+)", said)
    return {kind: int(count) for kind, count in kinds if kind not in OTHERS}


def prompts(lab: SlurmLab, count: int) -> None:
    """From a Task's creation to its turn's beginning on the node, one at a time."""
    took = []
    for number in range(count):
        name = f"p{number}"
        began = time.time()
        lab.apply(prompt(name))
        lab.wait_phase("Task", name, "Succeeded")
        (attempt,) = lab.task(name)["attempts"]
        took.append(1000 * (turns(lab)[attempt["injectionId"]].started - began))
    print(f"prompt to the beginning of its turn on a node: {spread(took, ' ms', 0)}")


def wait_ready(lab: SlurmLab, workers: int) -> None:
    """All of the swarm's workers are ready."""
    for pause in itertools.repeat(0.1):
        if lab.swarm("builders").get("readyReplicas") == workers:
            return
        assert lab.controller.poll() is None, lab.picture()
        time.sleep(pause)


if __name__ == "__main__":
    main()
