"""The conformance suite, for workers that are jobs of a real cluster behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.base import JobState
from tests.providers.conformance import DAEMON, STUBBORN, ProviderConformance
from tests.providers.harness import new_swarm, request, run, session, until
from tests.slurm import Slurm
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd


class TestSlurm(ProviderConformance):
    """With the worker that users get."""

    @pytest.fixture
    def harness(
        self, shared_slurm: Slurm, slurm_login: Sshd, tmp_path: Path
    ) -> Iterator[SlurmHarness]:
        """The cluster, with a folder that no other test has."""
        root = tmp_path.resolve() / "shared"
        harness = SlurmHarness(shared_slurm, slurm_login, root)
        yield harness
        shared_slurm.kill_jobs()
        harness.end()

    def test_what_a_dead_worker_left_running_is_ended(self, harness: SlurmHarness) -> None:
        """It is Slurm that ends it, where it keeps track of processes."""
        if not harness.slurm.tracks:
            pytest.skip("the kernel's freezer cannot be had here, by which Slurm tracks processes")
        run(lambda: self.left_running(harness))

    async def left_running(self, harness: SlurmHarness) -> None:
        swarm = new_swarm(harness)
        job = request(swarm).job
        async with session(harness) as one:
            await one.provider.launch([request(swarm)])
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            await one.prompt(swarm, job, "u.1", DAEMON, STUBBORN)

            async def begun() -> bool:
                return len(harness.processes(job)) >= 4

            async def gone() -> bool:
                return not harness.processes(job)

            await until(begun, "its commands to run")
            harness.kill_worker(job)
            await one.reach(swarm, JobState.ENDED, job)
            await until(gone, "what it left to end")
