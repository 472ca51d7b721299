"""The conformance suite, for workers of a worker host: a process of its own behind a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.launching import worker_command
from tests.providers.conformance import ProviderConformance
from tests.providers.hosting import HostedHarness, hosted


class TestStandin(ProviderConformance):
    """With a worker that starts at once."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[HostedHarness]:
        """A host that runs the stand-in."""
        with hosted(tmp_path) as harness:
            yield harness


class TestWorker(ProviderConformance):
    """With the worker that users get."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Iterator[HostedHarness]:
        """A host that runs the real worker."""
        with hosted(tmp_path, worker_command()) as harness:
            yield harness
