"""What stays of a swarm: its volume if the manifest says so, and if anything can be on it."""

from __future__ import annotations

from providers.base import InProgress, ProviderError
from tests.aws_provider.harness import AwsHarness
from tests.providers.harness import new_swarm, request, run, session, until

KEPT = {"volume": {"sizeGib": 8, "deleteOnTermination": False}}


def test_a_volume_with_work_on_it_stays(harness: AwsHarness) -> None:
    async def scenario() -> None:
        harness.more = KEPT
        swarm = new_swarm(harness)
        wanted = request(swarm)
        async with session(harness) as one:
            await one.launch([wanted])
            await one.running(swarm, wanted.job)
            await one.remove(swarm)
            (left,) = harness.traces(swarm)
            tags = harness.cloud.volumes()[left]["tags"]
            assert tags["codeswarm.dev/kept"] == "true"

    run(scenario)


def test_one_that_never_had_a_file_system_goes(harness: AwsHarness) -> None:
    """Its only machine let nobody in."""

    async def scenario() -> None:
        harness.more = {**KEPT, "sshUser": "nobody-there"}
        swarm = new_swarm(harness)

        async def attached() -> bool:
            try:
                await one.provider.launch([request(swarm)])
            except (InProgress, ProviderError):
                pass
            return any(id.startswith("vol-") for id in harness.traces(swarm))

        async with session(harness) as one:
            await until(attached, "the volume")
            await one.remove(swarm)
            assert harness.traces(swarm) == []

    run(scenario)
