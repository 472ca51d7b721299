"""No drift: what the controller adds and makes is nothing that a GitOps tool would undo."""

from __future__ import annotations

import copy
import json
import os
import uuid

import pytest
import yaml

from tests.lab import swarm
from tests.manifests.documents import EXAMPLES
from tests.reconcile.conftest import play
from tests.reconcile.given import planned, plans

__all__ = ["play"]

TRACKING = {
    "labels": {
        "app.kubernetes.io/instance": "greeters",
        "kustomize.toolkit.fluxcd.io/name": "greeters",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    },
    "annotations": {"argocd.argoproj.io/tracking-id": "greeters:codeswarm.dev/Project:x/demo"},
}
"""What Argo CD and Flux mark the objects of their repository with, and find them again by."""


def test_planned_tasks_have_an_owner_and_no_marks_of_it(play):
    async def scenario(rig):
        rig.provider.script = plans()
        declared = {**planned(), "metadata": {"name": "demo", **copy.deepcopy(TRACKING)}}
        rig.apply(swarm("planners", 1), swarm(replicas=1), declared)
        await rig.phase("Project", "demo", "Completed")
        owner = rig.store.get(("Project", "default", "demo"))["metadata"]
        assert owner["labels"] == TRACKING["labels"]
        made = {task["metadata"]["name"]: task["metadata"] for task in rig.store.list("Task")}
        assert made.keys() == {"demo.plan", "demo.t1", "demo.integration"}
        for meta in made.values():
            assert [ref["uid"] for ref in meta["ownerReferences"]] == [owner["uid"]]
            assert meta["labels"].keys() == {"codeswarm.dev/project"}
            assert all(name.startswith("codeswarm.dev/") for name in meta["annotations"])

    play(scenario)


@pytest.mark.cluster
@pytest.mark.skipif(
    not os.environ.get("CODESWARM_TEST_KUBECONFIG"), reason="needs CODESWARM_TEST_KUBECONFIG"
)
@pytest.mark.parametrize("manner", ["flux", "argocd"])
def test_applying_again_changes_nothing_after_the_controller_wrote(crds, manner):
    """Flux applies on the server, Argo CD with ServerSideApply too, else as kubectl does."""
    cluster = crds
    name = f"greeter-{uuid.uuid4().hex[:6]}"
    texts = (EXAMPLES / "gitops" / "teams" / "greeters" / "project.yaml").read_text()
    (declared,) = yaml.safe_load_all(texts)
    declared["metadata"] = {"name": name, "namespace": cluster.namespace, **TRACKING}
    server = ("--server-side", "--field-manager=kustomize-controller")
    how = ("apply", "-f", "-", *(server if manner == "flux" else ()))

    def stored():
        get = ("get", "-n", cluster.namespace, "project", name, "-o", "json")
        return json.loads(cluster.must(*get))

    cluster.must(*how, text=json.dumps(declared))
    finalizer = [{"op": "add", "path": "/metadata/finalizers", "value": ["codeswarm.dev/refs"]}]
    cluster.must(
        "patch", "-n", cluster.namespace, "project", name, "--type=json",
        "--field-manager=codeswarm-controller", f"--patch={json.dumps(finalizer)}",
    )  # fmt: skip
    status = yaml.safe_load((EXAMPLES.parent / "tests" / "resources" / "status.yaml").read_text())
    cluster.replace_status({**stored(), "status": status["Project"]})
    before = stored()
    cluster.must(*how, text=json.dumps(declared))
    after = stored()
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert after["metadata"]["finalizers"] == ["codeswarm.dev/refs"]
    assert after["spec"] == before["spec"]
    cluster.must(
        "patch", "-n", cluster.namespace, "project", name, "--type=json",
        '--patch=[{"op": "remove", "path": "/metadata/finalizers"}]',
    )  # fmt: skip
