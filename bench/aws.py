"""Workers on EC2: a launch of many machines, what EC2 is asked in quiet minutes, memory.

EC2's API is a test server on loopback, the machines are namespaces on this one with a real sshd
each, so they boot at once and all share its processors.  What is measured is ours: requests, and
the time that setting up takes; a machine of AWS's needs half a minute more to boot.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from bench.machine import describe
from tests.cloud.machines import Cloud
from tests.on_aws.lab import AwsLab

MIB = 1 << 20


class UsersLab(AwsLab):
    """A lab whose controller looks at EC2 as often as users' do."""

    def start(self, **variables: str) -> object:  # type: ignore[override]
        """Start the controller that users have."""
        return super(AwsLab, self).start(**self.cloud.environment(), **variables)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=20, help="of the launch")
    parser.add_argument("--each", type=int, default=2, help="workers on an instance")
    parser.add_argument("--minutes", type=float, default=3.0, help="of looking")
    options = parser.parse_args()
    print(describe())
    path = Path(tempfile.mkdtemp(prefix="bench-aws-"))
    with Cloud(path / "cloud") as cloud, UsersLab(path, cloud) as lab:
        lab.start()
        before = memory(lab)
        launch(lab, options.instances, options.each)
        steady(lab, options.minutes, before)
        end(lab)


def launch(lab: AwsLab, instances: int, each: int) -> None:
    """From the manifest to all workers ready."""
    workers = instances * each
    began = time.monotonic()
    lab.apply(lab.swarm_of(replicas=workers, aws={"workersPerInstance": each}))
    ran = None
    while lab.swarm("builders").get("readyReplicas") != workers:
        assert lab.controller.poll() is None, lab.picture()
        if ran is None and len(lab.cloud.live()) == instances:
            ran = time.monotonic() - began
        time.sleep(0.1)
    took, asked = time.monotonic() - began, said(lab.cloud.counts())
    print(
        f"launch of {instances} instances with {workers} workers: "
        f"all launched after {ran or took:.1f} s, "
        f"all workers ready after {took:.1f} s; requests: {asked}"
    )


def steady(lab: AwsLab, minutes: float, before: float) -> None:
    """Requests in quiet minutes, and what the controller is then."""
    time.sleep(30)
    asked, process = lab.cloud.counts(), psutil.Process(lab.controller.pid)
    spent, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(60 * minutes)
    seconds = time.monotonic() - began
    more = {k: n - asked.get(k, 0) for k, n in lab.cloud.counts().items()}
    rates = ", ".join(f"{k} {60 * n / seconds:.1f}" for k, n in sorted(more.items()) if n)
    share = 100 * (sum(process.cpu_times()[:2]) - spent) / seconds
    print(
        f"quiet: requests a minute: {rates or 'none'}; controller {memory(lab):.0f} MB "
        f"({before:.0f} MB before the swarm), {share:.2f} % of a core"
    )


def end(lab: AwsLab) -> None:
    """From the deletion to nothing left."""
    asked, uid, began = lab.cloud.counts(), lab.uid(), time.monotonic()
    lab.delete("Swarm", "builders")
    while lab.find("Swarm", "builders") is not None:
        time.sleep(0.1)
    more = {k: n - asked.get(k, 0) for k, n in lab.cloud.counts().items()}
    assert lab.cloud.leftovers(uid) == []
    print(f"deletion until nothing is left: {time.monotonic() - began:.1f} s; {said(more)}")


def memory(lab: AwsLab) -> float:
    """Of the controller, MB."""
    return float(psutil.Process(lab.controller.pid).memory_info().rss / MIB)


def said(counts: dict[str, int]) -> str:
    """Counts by action, and their sum."""
    listed = ", ".join(f"{k} {n}" for k, n in sorted(counts.items()) if n)
    return f"{sum(counts.values())} ({listed})"


if __name__ == "__main__":
    main()
