"""The faults that take Slurm long, in full; the others cause them by quick ways."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from providers.base import JobState, SwarmHandle
from tests.providers.harness import Session, new_swarm, request, run, session
from tests.slurm import running
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]


async def ended(one: Session, swarm: SwarmHandle, job: str, seconds: float) -> str:
    """Wait until a worker has ended; why it did."""
    until = time.monotonic() + seconds
    while (seen := await one.status(swarm, job)).state is not JobState.ENDED:
        assert time.monotonic() < until, f"{job} is {seen} after {seconds:.0f} s"
        await asyncio.sleep(0.5)
    return seen.reason


def test_a_time_limit_and_a_node_without_power(tmp_path: Path) -> None:
    async def scenario(world: SlurmHarness) -> None:
        limited, doomed = new_swarm(world, "limited"), new_swarm(world, "doomed")
        limited.parameters["timeLimit"] = "1"  # type: ignore[index]
        async with session(world) as one:
            for swarm in (limited, doomed):
                await one.provider.launch([request(swarm)])
                one.provider.follow(swarm, request(swarm).job, 0, 0)
                await one.ready(request(swarm).job)
            job = request(limited).job
            # Slurm signals up to 60 s early and looks every 30 s.
            assert await ended(one, limited, job, 120) in ("Completed", "Completing")
            await one.provider.flush(job)
            assert any(r["data"].get("reason") == "TimeLimit" for r in one.records(job))

            job = request(doomed).job
            id = world.slurm.ids(job)[-1]
            node = world.slurm.call("squeue", "-h", "-j", id, "-o", "%N").stdout.strip()
            world.slurm.kill_node(node)
            assert await ended(one, doomed, job, 60) == "NodeFail"

    path = tmp_path.resolve()
    with (
        running(nodes=2) as slurm,
        Sshd(path / "login", environment=slurm.environment) as sshd,
    ):
        world = SlurmHarness(slurm, sshd, path / "shared")
        run(lambda: scenario(world))
        slurm.kill_jobs()
        world.end()


def test_a_job_that_ignores_its_signal_is_ended_by_its_time_limit(tmp_path: Path) -> None:
    """Slurm's own TIMEOUT, seen as such: the worker is stopped, so that it hears no signal."""

    async def scenario(world: SlurmHarness) -> None:
        swarm = new_swarm(world)
        job = request(swarm).job
        async with session(world) as one:
            await one.provider.launch([request(swarm)])
            await one.running(swarm, job)
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            (pid,) = world.processes(job)
            os.kill(pid, 19)
            world.slurm.expire(world.slurm.ids(job)[-1])
            assert await ended(one, swarm, job, 90) == "TimeLimit"

    path = tmp_path.resolve()
    with (
        running(nodes=1) as slurm,
        Sshd(path / "login", environment=slurm.environment) as sshd,
    ):
        world = SlurmHarness(slurm, sshd, path / "shared")
        run(lambda: scenario(world))
        slurm.kill_jobs()
        world.end()
