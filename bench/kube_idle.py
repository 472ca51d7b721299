"""A controller with idle workers, and one with nothing to do: writes, CPU, memory."""

from __future__ import annotations

import time

import psutil

from bench.kube_lab import Bench, bench, cpu, load

RENEWAL_SECONDS = 5.0
QUIET_SECONDS = 10.0
"""After the last worker got ready, before it counts."""


def rest(bench: Bench, controller: psutil.Process, what: str, seconds: float) -> bool:
    """Let time go by; whether nothing was written but the Lease, often enough at most."""
    before, used = bench.requests(), cpu([controller])
    begin = time.monotonic()
    time.sleep(seconds)
    spent = cpu([controller]) - used
    found = bench.requests().since(before)
    took = time.monotonic() - begin
    renewals = found.writes("leases")
    print(f"  {what}, {took:.0f} s: writes to the API server: {found.text()}")
    print(
        f"  {what}: controller {100 * spent / took:.2f} % of a core, "
        f"{controller.memory_info().rss / 1e6:.0f} MB ({load()})"
    )
    return found.writes() == renewals and renewals <= took / RENEWAL_SECONDS + 1


def measure(workers: int, seconds: float) -> bool:
    """Nothing at all for a while, then idle workers; whether the aims are reached."""
    print("at rest")
    with bench() as room:
        controller = room.start()
        time.sleep(QUIET_SECONDS)
        rest(room, controller, "nothing to do", min(seconds, 60.0))
        begin = time.monotonic()
        room.swarm(workers, deadline=300)
        print(f"  {workers} workers ready after {time.monotonic() - begin:.1f} s")
        time.sleep(QUIET_SECONDS)
        reached = rest(room, controller, f"{workers} idle workers", seconds)
        room.lab.stop()
    return reached
