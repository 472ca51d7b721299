"""What a cluster cannot do, and what a host lacks: said at once, or waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.base import (
    JobState,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
)
from tests.slurm import Slurm
from tests.slurm_provider.jobs import World, play, until


def test_a_job_that_waits_says_why_and_can_be_taken_back(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        one = world.request(0)
        for node in slurm.names:
            slurm.set_node(node, "drain")
        await world.provider.launch([one])

        async def says() -> bool:
            seen = await world.status(one.job)
            return seen.state is JobState.PENDING and "DRAINED" in seen.reason

        await until(says, "the reason to wait")
        slurm.cancel(world.id(one.job))
        assert (await world.ended(one.job, "Cancelled")).message == ""
        await world.provider.launch([one])
        assert len(slurm.ids(one.job)) == 1
        await world.provider.remove(world.swarm)

    play(World(slurm, root), scenario)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"partition": "nope"}, "PartitionNotFound"),
        ({"partition": "short", "timeLimit": "60"}, "TimeLimitTooLong"),
        ({"partition": "closed", "account": "mine"}, "AccountNotFound"),
        ({"partition": "closed", "account": "others", "qos": "fast"}, "QosNotFound"),
        ({"gres": "gpu:1"}, "SubmissionRefused"),
        ({"sbatchOptions": ["--bogus"]}, "SubmissionRefused"),
        ({"sbatchOptions": ["--array=1-9"]}, "SbatchOptionRefused"),
    ],
)
def test_what_a_cluster_cannot_do_is_said_at_once(
    slurm: Slurm, root: Path, parameters: dict[str, Any], reason: str
) -> None:
    async def scenario(world: World) -> None:
        for _ in range(2):
            with pytest.raises(ProviderError) as refused:
                await world.provider.launch([world.request(0), world.request(1)])
            assert refused.value.reason == reason
            assert not isinstance(refused.value, ProviderUnreachable | OutcomeUnknown)
            assert await world.provider.observe(world.swarm) == []
        # What was refused is a job in Slurm's books: it is not asked for again at once.
        assert sum("sbatch" in argv for argv in world.login.ran) <= 1

    play(World(slurm, root, **parameters), scenario)


def test_a_partition_that_is_down_is_waited_for(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        slurm.set_partition("main", "DOWN")
        with pytest.raises(ProviderError) as refused:
            await world.provider.launch([world.request(0)])
        assert refused.value.reason == "PartitionDown"
        assert slurm.jobs() == [] or not slurm.ids(world.request(0).job)

    play(World(slurm, root), scenario)


def test_more_workers_than_a_partition_can_ever_hold(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        wanted = [world.request(index) for index in range(3)]
        with pytest.raises(ProviderError) as refused:
            await world.provider.launch(wanted)
        assert refused.value.reason == "PartitionTooSmall"
        assert "holds 2 workers" in str(refused.value) and "3 are wanted" in str(refused.value)
        assert len(await world.provider.observe(world.swarm)) == 2

    play(World(slurm, root, partition="short", sbatchOptions=["-c4"]), scenario)


def test_a_node_without_python_says_what_to_do(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        one = world.request(0)
        await world.provider.launch([one])
        ended = await world.ended(one.job, "PythonNotFound")
        assert "pythonPath" in ended.message

    play(World(slurm, root, pythonPath="/usr/bin/no-python"), scenario)


def test_a_login_host_without_slurm_says_so(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        world.login.environment["PATH"] = str(root)
        for name in ("env", "id"):
            (root / name).symlink_to(f"/usr/bin/{name}")
        with pytest.raises(ProviderUnreachable) as away:
            await world.provider.observe(world.swarm)
        assert away.value.reason == "SlurmNotFound"

    play(World(slurm, root), scenario)
