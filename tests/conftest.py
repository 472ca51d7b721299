"""The order of the tests, and which CI gives a second chance."""

from __future__ import annotations

import os

import pytest

# No test asks the metadata service of the machine that it runs on, whatever it starts.
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

FIRST = (
    # A server of an old version in front of a newer one that serves CRDs begins to see to CRDs too
    # after some minutes, and lets go of deleted ones that still have objects.
    "tests/cluster/test_faults_cluster.py",
    # Minutes or nearly so: begun late, one of them would be all that runs at the end.
    "tests/faults/test_controller_killed.py",
    "tests/carrying/test_projects.py",
    "tests/on_aws/test_faults_machines.py",
    "tests/on_aws/test_faults_end.py",
    "tests/on_aws/test_faults_api.py",
    "tests/on_aws/test_faults_killed.py",
    "tests/on_slurm/test_faults_contact.py",
    "tests/on_slurm/test_faults_jobs.py",
    "tests/on_slurm/test_bad_input.py",
    "tests/cluster/test_faults_api.py",
    "tests/reconcile/test_crashes.py",
    "tests/on_slurm/test_faults_killed.py",
    "tests/cluster/test_parity.py",
    "tests/cluster/test_faults_killed.py",
    "tests/cluster/test_faults_two.py",
    "tests/remote/test_tools.py",
)
"""Files whose tests come before all others, in this order."""

ELSEWHERE = (
    "tests/carrying/",
    "tests/cloud/",
    "tests/machine/",
    "tests/providers/",
    "tests/remote/",
    "tests/slurm_provider/",
    "tests/ssh/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those files' tests come first, all others stay where they are.

    In CI a test of whole processes that fails is run once more, and named in the summary: a machine
    that stands still for seconds fails one in thousands. So is one with a real sshd or Slurm.
    """
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(FIRST)))
    if os.environ.get("CI"):
        for item in items:
            whole = any(item.get_closest_marker(name) for name in ("e2e", "cluster"))
            if whole or item.nodeid.startswith(ELSEWHERE):
                item.add_marker(pytest.mark.flaky(reruns=1))
