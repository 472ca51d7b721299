"""The cluster of the tests that need one, and a namespace of their own in it."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator

import pytest

from tests.manifests.documents import MANIFESTS, built
from tests.manifests.space import Cluster


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
    cluster.server.install_crds()
    return cluster


@pytest.fixture(scope="module")
def installed(crds: Cluster) -> Iterator[Cluster]:
    """The roles, in the test's namespace; the cluster-wide ones under names of the test's own."""
    cluster = crds
    ending = uuid.uuid4().hex[:8]
    made, objects = [], []
    for obj in copy.deepcopy(built(MANIFESTS / "base")):
        if obj["kind"] not in (
            "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding",
        ):  # fmt: skip
            continue
        if obj["kind"].startswith("Cluster"):
            obj["metadata"]["name"] += f"-{ending}"
            made.append(f"{obj['kind']}/{obj['metadata']['name']}")
        else:
            obj["metadata"]["namespace"] = cluster.namespace
        if "roleRef" in obj and obj["roleRef"]["kind"] == "ClusterRole":
            obj["roleRef"]["name"] += f"-{ending}"
        for subject in obj.get("subjects", ()):
            subject["namespace"] = cluster.namespace
        objects.append(obj)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    cluster.must("apply", "-f", "-", text=text)
    for role in ("view", "edit", "admin"):
        bind(cluster, f"test-{role}", role)
    bind(cluster, "test-approve", f"codeswarm-approve-{ending}")
    yield cluster
    cluster.must("delete", "--ignore-not-found", *made)


def bind(cluster: Cluster, user: str, role: str) -> None:
    cluster.must(
        "create", "rolebinding", user, "-n", cluster.namespace,
        f"--clusterrole={role}", f"--user={user}",
    )  # fmt: skip
