"""A cluster for each session, a namespace and a controller for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cli import Line, line
from tests.cluster.faulty import KubeFaultLab
from tests.cluster.proxy import Proxy
from tests.kube import VARIABLE, Cluster, KubeLab

HERE = str(Path(__file__).parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder; without a cluster it is skipped, but not in CI."""
    skip = pytest.mark.skip(reason=f"needs {VARIABLE}")
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.cluster)
            if not os.environ.get(VARIABLE) and not os.environ.get("CI"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server() -> Cluster:
    """The cluster, with the CRDs."""
    kubeconfig = os.environ.get(VARIABLE)
    if not kubeconfig:
        pytest.fail(f"{VARIABLE} is not set: in CI these tests must run")
    cluster = Cluster(kubeconfig)
    cluster.install_crds()
    return cluster


@pytest.fixture
def kube(server: Cluster, tmp_path: Path) -> Iterator[KubeLab]:
    """A namespace with room for a controller; nothing of it lives on."""
    with server.namespace() as namespace, KubeLab(server, namespace, tmp_path) as lab:
        yield lab
    assert not lab.processes()


@pytest.fixture
def faulty(server: Cluster, tmp_path: Path) -> Iterator[KubeFaultLab]:
    """The same, for controllers that die or are cut off."""
    with server.namespace() as namespace, KubeFaultLab(server, namespace, tmp_path) as lab:
        yield lab
    assert not lab.processes()


@pytest.fixture
def proxy(server: Cluster, faulty: KubeFaultLab) -> Iterator[Proxy]:
    """A proxy between the controllers of ``faulty`` and the server."""
    with Proxy(server, faulty.path) as made:
        faulty.kubeconfig = str(made.kubeconfig)
        yield made
        faulty.close()


@pytest.fixture
def cs(server: Cluster, tmp_path: Path) -> Iterator[Line]:
    """``codeswarm`` in a namespace of its own."""
    with line(server, tmp_path) as made:
        yield made
    assert not (tmp_path / "no-home").exists()  # nothing of it needs a file home
