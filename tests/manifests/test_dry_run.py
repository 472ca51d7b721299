"""A real API server takes the built-in objects (``kubectl apply --dry-run=server``)."""

from __future__ import annotations

import copy
import json
import os

import pytest
import yaml

from controller.resources.kinds import API_VERSION
from tests.manifests.documents import EXAMPLES, MANIFESTS, built, load

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not os.environ.get("CODESWARM_TEST_KUBECONFIG"),
        reason="needs CODESWARM_TEST_KUBECONFIG",
    ),
]

FOLDERS = [
    MANIFESTS / "base",
    MANIFESTS / "kind",
    EXAMPLES / "kubernetes" / "git-server",
    EXAMPLES / "gitops" / "apps" / "codeswarm",
    EXAMPLES / "gitops" / "teams" / "greeters",
]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_the_server_takes_a_folder(cluster, folder):
    objects = []
    for obj in copy.deepcopy(built(folder)):
        if obj["kind"] == "CustomResourceDefinition" or obj["apiVersion"] == API_VERSION:
            continue  # the tests of CRDs and of examples do these
        if "namespace" in obj["metadata"]:
            obj["metadata"]["namespace"] = cluster.namespace
        objects.append(obj)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    done = cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=text)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(objects)


def test_the_health_checks_are_added_to_what_argocd_has(cluster, tmp_path):
    file = tmp_path / "argocd-cm.yaml"
    checks = load(MANIFESTS / "argocd" / "argocd-cm.yaml")[0]
    checks["metadata"]["namespace"] = cluster.namespace
    file.write_text(yaml.safe_dump(checks))
    own = {**checks, "data": {"url": "https://argocd.example.com"}}
    cluster.must("apply", "-f", "-", text=json.dumps(own))
    patch = ("patch", "configmap", "argocd-cm", "-n", cluster.namespace, "--patch-file")
    cluster.must(*patch, str(file))
    get = ("get", "-n", cluster.namespace, "configmap", "argocd-cm", "-o", "json")
    data = json.loads(cluster.must(*get))["data"]
    assert data == {**own["data"], **checks["data"]}
