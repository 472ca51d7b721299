"""Machines that reboot or fall silent under a provider that knows them to be ready."""

from __future__ import annotations

from dataclasses import replace

from providers.aws import AwsProvider
from providers.base import (
    InProgress,
    JobState,
    LaunchRequest,
    OutcomeUnknown,
    ProviderUnreachable,
    SwarmHandle,
)
from tests.aws_provider.harness import TIMES, AwsHarness, provider
from tests.providers.harness import Session, new_swarm, request, run, session, until

QUICK = replace(
    TIMES, doubt=0.5, deaf=600.0, patience=replace(TIMES.patience, linger=600.0, silent=3.0)
)


class Patient(AwsHarness):
    """A harness with other intervals."""

    def provider(self) -> AwsProvider:
        return provider(QUICK)


def _machine_of(harness: AwsHarness, swarm: SwarmHandle, *, leader: bool) -> str:
    """The instance that has the volume, or the one that has not."""
    (volume,) = harness.cloud.volumes().values()
    leading = str(volume["attached_to"])
    return leading if leader else next(i for i in harness.cloud.live() if i != leading)


async def _ended(one: Session, swarm: SwarmHandle, job: str) -> None:
    """A worker of which nothing is left is killed until it is seen to have ended."""

    async def seen() -> bool:
        try:
            await one.provider.stop(swarm, [job], force=True)
            return (await one.status(swarm, job)).state is JobState.ENDED
        except (ProviderUnreachable, OutcomeUnknown):
            return False

    await until(seen, f"{job} to have ended")


async def _launched(one: Session, wanted: LaunchRequest) -> None:
    """A worker runs, though its machine may be said not to answer at first."""

    async def runs() -> bool:
        try:
            await one.provider.launch([wanted])
            return (await one.status(wanted.swarm, wanted.job)).state is JobState.RUNNING
        except (InProgress, ProviderUnreachable):
            return False

    await until(runs, f"{wanted.job} to run")


def test_a_coordinator_that_rebooted_is_made_ready_again(harness: AwsHarness) -> None:
    """Its volume is mounted again, and who ran there is seen to be gone."""

    async def scenario() -> None:
        mine = Patient(harness.cloud)
        swarm = new_swarm(mine)
        first, second = request(swarm), request(swarm, 1)
        async with session(mine) as one:
            await one.launch([first])
            await one.running(swarm, first.job)
            mine.cloud.reboot(_machine_of(mine, swarm, leader=True))
            await _ended(one, swarm, first.job)
            await _launched(one, second)
            assert len(mine.cloud.instances()) == 1

    run(scenario)


def test_another_machine_that_rebooted_is_made_ready_again(harness: AwsHarness) -> None:
    async def scenario() -> None:
        mine = Patient(harness.cloud, {"workersPerInstance": 1})
        swarm = new_swarm(mine)
        wanted = [request(swarm, index) for index in range(2)]
        async with session(mine) as one:
            await one.launch(wanted)
            await one.running(swarm, *(each.job for each in wanted))
            other = _machine_of(mine, swarm, leader=False)
            mine.cloud.reboot(other)
            (job,) = [s.job for s in await one.provider.observe(swarm) if s.handle == other]
            await _ended(one, swarm, job)
            third = request(swarm, 2)
            await _launched(one, third)
            assert (await one.status(swarm, third.job)).handle == other
            assert len(mine.cloud.instances()) == 2

    run(scenario)


def test_nothing_is_exported_to_machines_that_are_gone(harness: AwsHarness) -> None:
    """Their addresses are given to others."""

    async def scenario() -> None:
        mine = Patient(harness.cloud, {"workersPerInstance": 1})
        swarm = new_swarm(mine)
        wanted = [request(swarm, index) for index in range(2)]
        async with session(mine) as one:
            await one.launch(wanted)
            await one.running(swarm, *(each.job for each in wanted))
            leader = _machine_of(mine, swarm, leader=True)
            other = _machine_of(mine, swarm, leader=False)
            address = mine.cloud.machines()[other]["address"]
            exports = mine.cloud.file(leader, "/etc/exports.d/codeswarm.exports")
            assert address in exports.read_text()
            mine.cloud.kill(other)

            async def withdrawn() -> bool:
                return address not in exports.read_text()

            await until(withdrawn, "it to be exported no more")

    run(scenario)


def test_a_coordinator_that_is_deaf_is_replaced_if_others_answer(harness: AwsHarness) -> None:
    """Its workers, and those that used its export, are over; nothing is lost on the volume."""

    async def scenario() -> None:
        mine = Patient(harness.cloud, {"workersPerInstance": 1})
        swarm = new_swarm(mine)
        wanted = [request(swarm, index) for index in range(2)]
        async with session(mine) as one:
            await one.launch(wanted)
            await one.running(swarm, *(each.job for each in wanted))
            leader = _machine_of(mine, swarm, leader=True)
            mine.cloud.refuse_ssh(leader, 600.0)
            mine.cloud.cut(leader)

            async def over() -> bool:
                try:
                    seen = await one.provider.observe(swarm)
                except ProviderUnreachable:
                    return False
                return len(seen) == 2 and all(s.state is JobState.ENDED for s in seen)

            await until(over, "both to be over")
            assert leader not in mine.cloud.live()
            await _launched(one, request(swarm, 2))

    run(scenario)


def test_a_lone_coordinator_that_is_deaf_goes_once_ec2_finds_it_impaired(
    harness: AwsHarness,
) -> None:
    """That nobody answers may be our own network: only EC2 can tell."""

    async def scenario() -> None:
        mine = Patient(harness.cloud)
        swarm = new_swarm(mine)
        async with session(mine) as one:
            await one.launch([request(swarm)])
            await one.running(swarm, request(swarm).job)
            leader = _machine_of(mine, swarm, leader=True)
            mine.cloud.refuse_ssh(leader, 600.0)
            mine.cloud.cut(leader)

            async def asked() -> bool:
                return mine.cloud.counts().get("DescribeInstanceStatus", 0) >= 2

            await until(asked, "EC2 to be asked")
            assert leader in mine.cloud.live()
            mine.cloud.impair(leader)

            async def over() -> bool:
                try:
                    (seen,) = await one.provider.observe(swarm)
                except ProviderUnreachable:
                    return False
                return seen.state is JobState.ENDED

            await until(over, "its end")
            assert leader not in mine.cloud.live()

    run(scenario)
