"""Roles: as written, no more than what is done; and as a real server enforces them."""

from __future__ import annotations

import json
import os
import time

import pytest

from controller.resources.kinds import GROUP, kinds
from tests.manifests.documents import MANIFESTS, load

OURS = {kind.plural for kind in kinds() if kind.group == GROUP}
READ = {"get", "list", "watch"}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}
AGGREGATED = "rbac.authorization.k8s.io/aggregate-to-"


def roles():
    found = {}
    for file in (MANIFESTS / "base").glob("*-role*.yaml"):
        for obj in load(file):
            if obj["kind"] in ("Role", "ClusterRole"):
                found[obj["metadata"]["name"]] = obj
    return found


ROLES = roles()


def rights(role):
    """What a role allows, as (resource, verb)."""
    return {
        (resource, verb)
        for rule in ROLES[role]["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def aggregated_to(role):
    labels = ROLES[role]["metadata"].get("labels", {})
    return {name.removeprefix(AGGREGATED) for name in labels if name.startswith(AGGREGATED)}


def test_no_role_has_a_wildcard():
    for role in ROLES.values():
        for rule in role["rules"]:
            assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}


def test_the_controller_may_what_it_does():
    """Compare controller/store/kube.py, kube_events.py, kube_references.py."""
    allowed = rights("codeswarm-controller")
    assert {r for r, verb in allowed if verb == "list"} == OURS
    assert {r for r, verb in allowed if verb == "watch"} == OURS
    assert {verb for r, verb in allowed if r == "secrets"} == {"get"}
    assert {verb for r, verb in allowed if r == "configmaps"} == {"get", "create", "delete"}
    assert {verb for r, verb in allowed if r == "events"} == {"create", "patch"}
    assert {r for r, verb in allowed if verb == "create"} == {
        "tasks", "approvals", "configmaps", "events",
    }  # fmt: skip
    assert {r for r, verb in allowed if verb == "delete"} == {"tasks", "configmaps"}
    assert {r for r, _ in allowed} == {
        *OURS,
        *(f"{kind.plural}/status" for kind in kinds() if kind.has_status),
        *("projects/finalizers", "tasks/finalizers"),
        *("configmaps", "secrets", "events"),
    }


def test_the_controller_can_neither_decide_an_approval_nor_change_a_class():
    allowed = rights("codeswarm-controller")
    for resource in ("approvals", "swarmclasses"):
        assert {verb for r, verb in allowed if r == resource} <= {*READ, "create"}


def test_only_the_controllers_own_lease():
    create, change, home = ROLES["codeswarm-lease"]["rules"]
    assert home == {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}
    assert create["verbs"] == ["create"]
    assert change["resourceNames"] == ["codeswarm-controller"]


def test_viewing_changes_nothing():
    assert {verb for _, verb in rights("codeswarm-view")} == READ
    assert {r for r, verb in rights("codeswarm-view") if verb == "list"} == OURS
    assert aggregated_to("codeswarm-view") == {"view", "edit", "admin"}


def test_editing_leaves_approvals_and_status_alone():
    allowed = rights("codeswarm-edit")
    assert {r for r, _ in allowed} == {*(OURS - {"approvals"}), "swarms/scale"}
    assert {verb for r, verb in allowed if r == "tasks"} == WRITE
    assert aggregated_to("codeswarm-edit") == {"edit", "admin"}


def test_approving_is_approving_and_nothing_else():
    assert rights("codeswarm-approve") == {
        ("approvals", verb) for verb in {*READ, "patch", "update"}
    }
    assert aggregated_to("codeswarm-approve") == {"admin"}


# --- on a real server -------------------------------------------------------------------------

needs_cluster = pytest.mark.skipif(
    not os.environ.get("CODESWARM_TEST_KUBECONFIG"), reason="needs CODESWARM_TEST_KUBECONFIG"
)


def review(cluster, who, verb, resource, *, namespace=None, name=""):
    """The question whether the server would let somebody do something."""
    plain, _, subresource = resource.partition("/")
    attributes = {
        "namespace": cluster.namespace if namespace is None else namespace,
        "verb": verb,
        "group": GROUP if plain in OURS else GROUPS.get(plain, ""),
        "resource": plain,
        "subresource": subresource,
        "name": name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": who, "resourceAttributes": attributes},
    }


def answers(cluster, reviews):
    """The server's answers, one for each question."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(reviews)})
    form = 'jsonpath={.status.allowed}{"\\n"}'
    found = cluster.must("create", "-f", "-", "-o", form, text=text)
    return [line == "true" for line in found.split()]


def may(cluster, who, verb, resource, **where):
    """Whether the server would let somebody do something."""
    return answers(cluster, [review(cluster, who, verb, resource, **where)])[0]


GROUPS = {
    "leases": "coordination.k8s.io",
    "tokenreviews": "authentication.k8s.io",
    "subjectaccessreviews": "authorization.k8s.io",
    "deployments": "apps",
}


def eventually(condition, seconds=20.0):
    """The server takes a moment to add roles up."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.cluster
@needs_cluster
def test_what_the_controllers_account_may_do(installed):
    me = f"system:serviceaccount:{installed.namespace}:codeswarm-controller"
    eventually(lambda: may(installed, me, "get", "swarms"))
    allowed = [
        ("list", "tasks"), ("watch", "approvals"), ("patch", "projects"), ("patch", "tasks/status"),
        ("create", "approvals"), ("delete", "tasks"), ("update", "projects/finalizers"),
        ("get", "secrets"), ("create", "configmaps"), ("create", "leases"), ("create", "events"),
    ]  # fmt: skip
    found = answers(installed, (review(installed, me, *question) for question in allowed))
    assert [q for q, yes in zip(allowed, found, strict=True) if not yes] == []
    refused = [
        ("list", "secrets"), ("watch", "secrets"), ("create", "secrets"), ("list", "configmaps"),
        ("patch", "configmaps"), ("patch", "approvals"), ("create", "swarms"), ("delete", "swarms"),
        ("delete", "projects"), ("create", "projects"), ("patch", "swarmclasses"),
        ("get", "leases"), ("get", "pods"), ("create", "pods"), ("get", "deployments"),
    ]  # fmt: skip
    found = answers(installed, (review(installed, me, *question) for question in refused))
    assert [q for q, yes in zip(refused, found, strict=True) if yes] == []
    assert may(installed, me, "patch", "leases", name="codeswarm-controller")
    assert not may(installed, me, "patch", "leases", name="another")
    assert may(installed, me, "create", "tokenreviews", namespace="")
    assert may(installed, me, "create", "subjectaccessreviews", namespace="")
    for resource in ("tasks", "secrets", "configmaps"):
        assert not may(installed, me, "get", resource, namespace="default")


@pytest.mark.cluster
@needs_cluster
def test_the_reader_reads_transcripts_and_nothing_else(installed):
    reader = f"system:serviceaccount:{installed.namespace}:codeswarm-reader"
    eventually(lambda: may(installed, reader, "get", "tasks/transcript"))
    assert not may(installed, reader, "get", "tasks")
    assert not may(installed, reader, "get", "secrets")
    assert not may(installed, reader, "get", "tasks/transcript", namespace="default")


@pytest.mark.cluster
@needs_cluster
def test_roles_add_up_to_the_clusters_own(installed):
    eventually(lambda: may(installed, "test-view", "list", "swarms"))
    eventually(lambda: may(installed, "test-edit", "create", "projects"))
    eventually(lambda: may(installed, "test-admin", "patch", "approvals"))
    table = {
        ("get", "tasks/transcript"): {"view", "edit", "admin"},
        ("list", "approvals"): {"view", "edit", "admin", "approve"},
        ("create", "tasks"): {"edit", "admin"},
        ("patch", "swarms/scale"): {"edit", "admin"},
        ("deletecollection", "projects"): {"edit", "admin"},
        ("patch", "approvals"): {"admin", "approve"},
        ("create", "approvals"): set(),
        ("delete", "approvals"): set(),
        ("patch", "tasks/status"): set(),
        ("list", "swarms"): {"view", "edit", "admin"},
    }
    for role in ("view", "edit", "admin", "approve"):
        asked = (review(installed, f"test-{role}", *question) for question in table)
        found = dict(zip(table, answers(installed, asked), strict=True))
        assert found == {question: role in roles for question, roles in table.items()}, role


@pytest.mark.cluster
@needs_cluster
def test_who_may_approve_sets_a_decision_and_cannot_touch_anything_else(installed):
    eventually(lambda: may(installed, "test-approve", "patch", "approvals"))
    request = {"id": "0", "kind": "command", "decisions": ["approve", "deny"]}
    approval = {
        "apiVersion": "codeswarm.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": "asked"},
        "spec": {"request": {**request, "swarm": "a", "job": "j"}},
    }
    installed.create(approval)

    def patch(kind, name, spec, *more):
        text = json.dumps({"spec": spec})
        return installed.kubectl(
            "patch", "--as=test-approve", "-n", installed.namespace, kind, name,
            "--type=merge", f"--patch={text}", *more,
        )  # fmt: skip

    changed = patch("approval", "asked", {"request": {"command": "true"}})
    assert changed.returncode != 0 and "request cannot be changed" in changed.stderr
    decided = patch("approval", "asked", {"decision": {"value": "approve"}})
    assert decided.returncode == 0, decided.stderr
    again = patch("approval", "asked", {"decision": {"value": "deny"}})
    assert again.returncode != 0 and "cannot be changed" in again.stderr
    swarm = patch("swarm", "any", {"replicas": 9})
    assert swarm.returncode != 0 and "forbidden" in swarm.stderr.lower()
