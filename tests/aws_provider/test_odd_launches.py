"""Launches that cannot be, and volumes that are not as they were left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from providers.aws import AwsProvider
from providers.base import InProgress, ProviderError, ProviderUnreachable, SwarmHandle
from tests.aws_provider.harness import TIMES, AwsHarness, provider
from tests.providers.harness import Session, new_swarm, request, run, session, until


async def _refused(one: Session, swarm: SwarmHandle, index: int, reason: str) -> str:
    """What is said of a worker that cannot be launched."""
    said: list[str] = []

    async def refused() -> bool:
        try:
            await one.provider.launch([request(swarm, index)])
        except (InProgress, ProviderUnreachable):
            return False
        except ProviderError as error:
            said.append(str(error))
            return error.reason == reason
        return False

    await until(refused, f"{reason}; it was {said[-3:]}")
    return said[-1]


def test_a_manifest_that_names_another_zone_than_the_volume_is_in(harness: AwsHarness) -> None:
    """Nothing is launched there, where nobody could read the volume."""

    async def scenario() -> None:
        swarm = new_swarm(harness)
        async with session(harness) as one:
            await one.launch([request(swarm)])
            moved = replace(swarm, parameters={**swarm.parameters, "subnetId": "subnet-2"})
            said = await _refused(one, moved, 1, "VolumeInAnotherZone")
            assert "us-east-1a" in said
            assert len(harness.cloud.instances()) == 1

    run(scenario)


def test_what_is_wrong_is_not_looked_up_again_and_again(harness: AwsHarness) -> None:
    async def scenario() -> None:
        wrong = AwsHarness(harness.cloud, {"amiId": "ami-0123456789abcdef0"})
        swarm = new_swarm(wrong)
        async with session(wrong) as one:
            for _ in range(3):
                await _refused(one, swarm, 0, "ImageNotFound")
            assert harness.cloud.counts()["DescribeKeyPairs"] == 1

    run(scenario)


def test_an_instance_that_ec2_ends_at_once_is_not_launched_again_at_once(
    harness: AwsHarness,
) -> None:
    async def scenario() -> None:
        harness.cloud.doom("Client.VolumeLimitExceeded", times=50)
        swarm = new_swarm(harness)
        async with session(harness) as one:
            await _refused(one, swarm, 0, "VolumeLimitExceeded")
            await _refused(one, swarm, 0, "VolumeLimitExceeded")
            assert harness.cloud.counts()["RunInstances"] <= 2

    run(scenario)


def test_a_volume_that_somebody_deleted_is_made_anew(harness: AwsHarness) -> None:
    """The request is not that of the first one, whose volume EC2 would name again."""

    async def scenario() -> None:
        swarm = new_swarm(harness)
        async with session(harness) as one:
            await one.launch([request(swarm)])
        (old,) = harness.cloud.volumes()
        for machine in harness.cloud.live():
            harness.cloud.kill(machine)
        harness.cloud.wait(
            lambda: harness.cloud.volumes()[old]["state"] == "available", "it to be free"
        )
        harness.cloud.client().delete_volume(VolumeId=old)
        async with session(harness) as one:
            await one.launch([request(swarm, 1)])
            await one.running(swarm, request(swarm, 1).job)
        (new,) = harness.cloud.volumes()
        assert new != old

    run(scenario)


class Hurried(AwsHarness):
    """A harness whose sites do not wait long for EC2."""

    def provider(self) -> AwsProvider:
        patience = replace(TIMES.patience, attaching=1.0, ending=1.0)
        return provider(replace(TIMES, patience=patience))


@pytest.fixture
def slow(harness: AwsHarness) -> Iterator[Hurried]:
    yield Hurried(harness.cloud)
    harness.cloud.set(attach_seconds=0.02, ending_seconds=0.05)


def test_an_instance_to_which_the_volume_does_not_come_is_replaced(slow: Hurried) -> None:
    async def scenario() -> None:
        slow.cloud.set(attach_seconds=600.0)
        swarm = new_swarm(slow)
        wanted = request(swarm)
        async with session(slow) as one:

            async def two() -> bool:
                try:
                    await one.provider.launch([wanted])
                except (InProgress, ProviderError):
                    pass
                if len(slow.cloud.instances()) == 2:
                    slow.cloud.set(attach_seconds=0.02)
                    return True
                return False

            await until(two, "another instance")
            await one.launch([wanted])
            await one.running(swarm, wanted.job)

    run(scenario)


def test_the_volume_is_taken_from_an_instance_that_does_not_come_to_its_end(
    slow: Hurried,
) -> None:
    async def scenario() -> None:
        swarm = new_swarm(slow)
        async with session(slow) as one:
            await one.launch([request(swarm)])
            (old,) = slow.cloud.live()
            slow.cloud.set(ending_seconds=15.0)
            slow.cloud.client().terminate_instances(InstanceIds=[old])
            second = request(swarm, 1)

            async def runs() -> bool:
                try:
                    await one.provider.launch([second])
                    return bool((await one.status(swarm, second.job)).heartbeat)
                except ProviderError:
                    return False

            await until(runs, "a worker on another instance")
            assert slow.cloud.counts()["DetachVolume"] == 1

    run(scenario)
