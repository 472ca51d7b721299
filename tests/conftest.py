"""The order of the tests."""

from __future__ import annotations

import pytest

FIRST = "tests/cluster/test_faults_cluster.py"
"""A server of an old version in front of a newer one that serves CRDs begins to see to CRDs too
after some minutes, and lets go of deleted ones that still have objects."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """That file's tests come first, all others stay where they are."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
