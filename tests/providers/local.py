"""The local provider, for tests of what is its own."""

from __future__ import annotations

from pathlib import Path

from providers.base import LaunchRequest
from tests.providers.test_conformance import LocalHarness


def folder_of(harness: LocalHarness, wanted: LaunchRequest) -> Path:
    """A job's folder."""
    swarm = wanted.swarm
    return harness.root / "default" / f"{swarm.name}-{swarm.uid[:8]}" / wanted.job
