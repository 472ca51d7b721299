"""The cluster of the tests that need one, and a namespace of their own in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.resources import files

import pytest

from controller.resources.kinds import kinds
from tests.cluster.test_crds import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A namespace that goes at the end."""
    cluster = Cluster(f"manifests-{uuid.uuid4().hex[:8]}")
    cluster.must("create", "namespace", cluster.namespace)
    yield cluster
    cluster.must("delete", "namespace", cluster.namespace, "--wait=false")


@pytest.fixture(scope="module")
def crds(cluster: Cluster) -> Cluster:
    """The same, with our kinds in it."""
    for file in files("crds").iterdir():
        if file.name.endswith(".yaml"):
            cluster.must("apply", "--validate=false", "-f", "-", text=file.read_text())
    names = [f"crd/{kind.qualified}" for kind in kinds() if kind.group]
    cluster.must("wait", "--for=condition=Established", "--timeout=60s", *names)
    return cluster
