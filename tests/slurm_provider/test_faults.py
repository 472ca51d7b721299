"""Faults between us and a cluster, caused for real: cuts in sbatch, a slurmctld that forgets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from providers.base import JobState, OutcomeUnknown, ProviderError, ProviderUnreachable, SwarmHandle
from tests.providers.harness import Session, new_swarm, request, run, session, until
from tests.slurm import Slurm, running
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd

SLOW = """\
#!/bin/sh
# sbatch, slow both before and after it has submitted the job
touch {place}/begun
while [ -e {place}/hold-before ]; do sleep 0.05; done
{sbatch} "$@"
code=$?
touch {place}/submitted
while [ -e {place}/hold-after ]; do sleep 0.05; done
exit $code
"""


class Slow:
    """A login host whose sbatch can be held."""

    def __init__(self, world: SlurmHarness, place: Path) -> None:
        self.world = world
        self.place = place
        sbatch = shutil.which("sbatch")
        (place / "bin").mkdir()
        script = place / "bin" / "sbatch"
        script.write_text(SLOW.format(place=place, sbatch=sbatch))
        script.chmod(0o755)
        (world.sshd.home / ".profile").write_text(f'PATH="{place}/bin:$PATH"\n')

    def hold(self, when: str) -> Path:
        """Have sbatch wait ``before`` or ``after`` it submits, as long as this file is there."""
        path = self.place / f"hold-{when}"
        path.touch()
        return path

    async def reached(self, name: str) -> None:
        """Wait until sbatch has come so far."""

        async def there() -> bool:
            return (self.place / name).exists()

        await until(there, f"sbatch to have {name}")


@pytest.fixture
def slow(shared_slurm: Slurm, tmp_path: Path) -> Iterator[Slow]:
    """The shared cluster with a login host of its own."""
    path = tmp_path.resolve()
    with Sshd(path / "login", environment=shared_slurm.environment) as sshd:
        world = SlurmHarness(shared_slurm, sshd, path / "shared")
        yield Slow(world, path)
        shared_slurm.kill_jobs()
        world.end()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cut_in_the_middle_of_sbatch_ends_in_one_worker(slow: Slow, when: str) -> None:
    async def scenario() -> None:
        swarm = new_swarm(slow.world)
        wanted = request(swarm)
        held = slow.hold(when)
        async with session(slow.world) as one:
            launching = asyncio.create_task(one.provider.launch([wanted]))
            await slow.reached("begun" if when == "before" else "submitted")
            slow.world.sshd.cut()
            with pytest.raises(OutcomeUnknown):
                await launching
            again = asyncio.create_task(one.provider.launch([wanted]))
            if when == "before":  # it lives, and keeps out whoever comes next, until it has ended
                done, _ = await asyncio.wait({again}, timeout=2)
                assert not done
            held.unlink()
            await again
            await one.running(swarm, wanted.job)
            one.provider.follow(swarm, wanted.job, 0, 0)
            await one.ready(wanted.job)
            assert len(slow.world.slurm.ids(wanted.job)) == 1

    run(scenario)


def test_a_swarm_is_not_removed_under_a_submission(slow: Slow) -> None:
    async def scenario() -> None:
        swarm = new_swarm(slow.world)
        wanted = request(swarm)
        held = slow.hold("before")
        async with session(slow.world) as one:
            launching = asyncio.create_task(one.provider.launch([wanted]))
            await slow.reached("begun")
            slow.world.sshd.cut()
            with pytest.raises(OutcomeUnknown):
                await launching
            removing = asyncio.create_task(one.provider.remove(swarm))
            done, _ = await asyncio.wait({removing}, timeout=1)
            assert not done
            held.unlink()
            with pytest.raises(ProviderError) as refused:
                await removing
            assert refused.value.reason == "StillRunning"
            await one.provider.stop(swarm, [wanted.job], force=True)
            await one.reach(swarm, JobState.ENDED, wanted.job)
            await one.provider.remove(swarm)
            assert slow.world.traces(swarm) == []

    run(scenario)


def test_slurmctld_killed_right_after_a_submission(tmp_path: Path) -> None:
    """What it has not saved it forgets, and gives the job's id to the next one."""

    async def scenario(world: SlurmHarness) -> None:
        swarm, other = new_swarm(world), new_swarm(world, "other")
        wanted, another = request(swarm), request(other)
        async with session(world) as one:
            await one.provider.launch([wanted])
            world.slurm.kill_ctld()
            world.slurm.start_ctld()
            await _answered(one, swarm)
            await one.provider.launch([another])
            await one.provider.launch([wanted])
            for handle, each in ((swarm, wanted), (other, another)):
                one.provider.follow(handle, each.job, 0, 0)
                await one.ready(each.job)
                assert (await one.status(handle, each.job)).state is JobState.RUNNING
                assert len(world.processes(each.job)) == 1
            await one.provider.stop(swarm, [wanted.job], force=False)
            await one.reach(swarm, JobState.ENDED, wanted.job)
            assert (await one.status(other, another.job)).state is JobState.RUNNING

    path = tmp_path.resolve()
    with (
        running(nodes=2) as slurm,
        Sshd(path / "login", environment=slurm.environment) as sshd,
    ):
        world = SlurmHarness(slurm, sshd, path / "shared")
        run(lambda: scenario(world))
        slurm.kill_jobs()
        world.end()


async def _answered(one: Session, swarm: SwarmHandle) -> None:
    """Wait until slurmctld is back."""

    async def back() -> bool:
        try:
            await one.provider.observe(swarm)
        except ProviderUnreachable:
            return False
        return True

    await until(back, "slurmctld to answer")


def test_a_new_key_goes_on_where_the_old_one_stopped(slow: Slow) -> None:
    """The workers stay, and what they say meanwhile is read once."""

    async def scenario() -> None:
        sshd, swarm = slow.world.sshd, new_swarm(slow.world)
        job = request(swarm).job
        async with session(slow.world) as one:
            await one.provider.launch([request(swarm)])
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            await one.prompt(swarm, job, "u.1")
            await one.said(job, "turn_complete", "u.1")
            new = sshd.make_key("new")
            sshd.authorize(new)
            sshd.cut()
            renewed = replace(swarm, secrets={"sshKey": new.read_text()})
            await one.running(renewed, job)
            await one.prompt(renewed, job, "u.2")
            await one.said(job, "turn_complete", "u.2")
            await one.provider.flush(job)
            sequence = [r["seq"] for r in one.records(job)]
            assert sequence == list(range(1, len(sequence) + 1))

    run(scenario)
