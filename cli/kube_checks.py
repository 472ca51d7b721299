"""What ``codeswarm doctor`` checks in a cluster: server, kinds, rights, controller, transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cli.checks import Check, python
from cli.errors import CliError
from cli.kube_gate import Gate
from controller.resources import kinds
from controller.store.base import StoreError, StoreUnavailable

if TYPE_CHECKING:
    from cli.kube_client import KubeClient

CHANGED = ("swarms", "projects", "tasks")
"""Kinds that one changes with this command line."""


def run(client: KubeClient, namespace: str) -> Iterator[Check]:
    """All checks, in order; what needs the server is left out when it does not answer."""
    yield python()
    try:
        version = client.server.request("GET", "/version").get("gitVersion", "?")
    except StoreUnavailable as error:
        yield Check("FAIL", "server", str(error), "look at the kubeconfig and the network")
        return
    place = client.server.place
    yield Check("OK", "server", f"{client.server.host} ({version}), context {place.context}")
    known = _kinds(client)
    yield known
    if known.level == "OK":
        yield _rights(client, namespace)
    yield _controller(client)
    yield _transcripts(client, namespace)


def _kinds(client: KubeClient) -> Check:
    """Whether the server has our kinds."""
    try:
        found = client.server.request("GET", f"/apis/{kinds.API_VERSION}")
    except StoreError:
        found = {}
    served = {entry.get("name") for entry in found.get("resources") or ()}
    missing = [k.plural for k in kinds.kinds() if k.group and k.plural not in served]
    if missing:
        advice = "apply the CRDs (crds/), or the whole of manifests/"
        return Check("FAIL", "kinds", f"the server does not know {', '.join(missing)}", advice)
    return Check("OK", "kinds", f"{kinds.API_VERSION} is served")


def _rights(client: KubeClient, namespace: str) -> Check:
    """What the user may do in the namespace."""
    where = f"in namespace {namespace}"
    if not _may(client, namespace, "list", "tasks"):
        return Check("FAIL", "rights", f"tasks may not be read {where}", "ask for codeswarm-view")
    refused = [plural for plural in CHANGED if not _may(client, namespace, "create", plural)]
    if refused:
        text = f"read only {where}: {', '.join(refused)} may not be created"
        return Check("WARN", "rights", text, "codeswarm-edit gives that right")
    approve = _may(client, namespace, "update", "approvals")
    return Check("OK", "rights", f"read and change {where}" + (", approve" if approve else ""))


def _may(client: KubeClient, namespace: str, verb: str, resource: str) -> bool:
    attributes = {"namespace": namespace, "verb": verb, "resource": resource}
    body: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**attributes, "group": kinds.GROUP}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = client.server.request("POST", path, body=body)
    return bool((answer.get("status") or {}).get("allowed"))


def _controller(client: KubeClient) -> Check:
    state = client.controller()
    if state.running:
        return Check("OK", "controller", state.detail)
    return Check("WARN", "controller", state.detail, state.remedy)


def _transcripts(client: KubeClient, namespace: str) -> Check:
    """Whether ``logs`` would work."""
    try:
        Gate(client.server).get(["namespaces", namespace, "transcripts"], [("swarm", "none")])
    except (CliError, StoreError) as error:
        return Check("WARN", "transcripts", str(error).split("\n", 1)[0], "`logs` needs them")
    return Check("OK", "transcripts", "can be read")
