"""The conformance suite, for workers that are jobs of a real cluster behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers.conformance import ProviderConformance
from tests.providers.harness import run
from tests.slurm import Slurm
from tests.slurm_provider.harness import SlurmHarness
from tests.sshd import Sshd


class TestSlurm(ProviderConformance):
    """With the worker that users get."""

    ended_where_they_are = True

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
