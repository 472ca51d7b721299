"""Workers on a Slurm cluster, of a controller on Kubernetes: the key comes from a Secret."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clusters import Cluster, running
from tests.kube import KubeLab
from tests.lab import git, project, refs, swarm, work


@pytest.fixture(scope="module")
def batch() -> Iterator[Cluster]:
    """A login host in front of two nodes."""
    with running(nodes=2) as cluster:
        yield cluster


def secret(batch: Cluster) -> dict[str, Any]:
    """The private key that the login host lets in."""
    data = base64.b64encode(batch.login.key.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "lab-key"},
        "data": {"id": data},
    }


def place(batch: Cluster, **more: Any) -> dict[str, Any]:
    """A provider block without any file of the controller's machine."""
    given = batch.parameters()
    for path in ("identityFile", "knownHostsFile"):
        del given[path]
    given["sshKeyFrom"] = {"secretKeyRef": {"name": "lab-key", "key": "id"}}
    given["knownHosts"] = batch.login.known_hosts.read_text()
    return {"slurm": {**given, **more}}


def test_a_project_on_slurm_from_a_manifest_to_nothing_left(kube: KubeLab, batch: Cluster) -> None:
    path = kube.path / "repo.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
    kube.start()
    tasks = [work("a"), work("b"), work("c", depends_on=["a", "b"])]
    where = {"url": str(path), "baseBranch": "main"}
    kube.apply(
        secret(batch),
        swarm(provider=place(batch)),
        project(repository=where, tasks=tasks, integration={"verify": ["test -f c.txt"]}),
    )
    kube.wait_phase("Project", "demo", "Completed", deadline=90)
    assert "refs/heads/codeswarm/demo/integration" in refs(path)
    assert kube.condition("Swarm", "builders", "ProviderReachable")["status"] == "True"
    shown = str(kube.status("Swarm", "builders"))
    assert "PRIVATE KEY" not in shown
    kube.delete("Project", "demo")
    kube.wait_gone("Project", "demo")
    kube.delete("Swarm", "builders")
    kube.wait_gone("Swarm", "builders")
    assert batch.left() == []
    assert "Traceback" not in kube.text() and "PRIVATE KEY" not in kube.text()


def test_files_of_the_controller_are_nobody_elses(kube: KubeLab, batch: Cluster) -> None:
    kube.start()
    kube.apply(swarm(provider={"slurm": batch.parameters()}))
    kube.wait(
        lambda: (
            kube.condition("Swarm", "builders", "ProviderReachable").get("reason")
            == "NotInThisHome"
        ),
        "it to be refused",
    )


def test_a_key_that_comes_later(kube: KubeLab, batch: Cluster) -> None:
    """Without its Secret the swarm says so; with it, it starts by itself."""
    kube.start()
    kube.apply(swarm(replicas=1, provider=place(batch)))
    kube.wait(
        lambda: "lab-key" in str(kube.status("Swarm", "builders").get("conditions")),
        "the Secret to be missed",
    )
    kube.apply(secret(batch))
    kube.wait_phase("Swarm", "builders", "Running", deadline=90)
