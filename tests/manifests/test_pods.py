"""Pods: the Pod Security Standard "restricted", and what lies between the two containers."""

from __future__ import annotations

import pytest

from tests.manifests.documents import EXAMPLES, MANIFESTS, built, every, pick

FOLDERS = [
    MANIFESTS / "base",
    MANIFESTS / "kind",
    EXAMPLES / "kubernetes" / "git-server",
    EXAMPLES / "gitops" / "apps" / "codeswarm",
]
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
"""The kinds of volumes that the standard allows."""


def pods():
    found = []
    for folder in FOLDERS:
        for deployment in every(built(folder), "Deployment"):
            found.append(deployment["spec"]["template"]["spec"])
    return found


def containers(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.fixture(scope="module")
def pod():
    return pick(built(MANIFESTS / "base"), "Deployment")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def controller(pod):
    return next(c for c in pod["containers"] if c["name"] == "controller")


@pytest.fixture(scope="module")
def host(pod):
    return next(c for c in pod["containers"] if c["name"] == "worker-host")


def test_the_baseline_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Baseline)."""
    for pod in pods():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        for context in [pod["securityContext"], *(c["securityContext"] for c in containers(pod))]:
            refused = {"sysctls", "seLinuxOptions", "windowsOptions", "procMount"}
            assert not refused & context.keys()
            assert not context.get("privileged")
            assert "add" not in context.get("capabilities", {})
        for container in containers(pod):
            assert not any("hostPort" in port for port in container.get("ports", ()))
        assert not any("hostPath" in volume for volume in pod["volumes"])


def test_the_restricted_standard():
    """The same page (Restricted)."""
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in pod["volumes"]:
            (kind,) = volume.keys() - {"name"}
            assert kind in VOLUMES
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            assert context["runAsUser"] > 0
            assert context.get("runAsNonRoot", True) is True
            assert "seccompProfile" not in context


def test_the_namespace_asks_for_the_standard():
    labels = pick(built(MANIFESTS / "base"), "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_beyond_the_standard():
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_one_replica_that_ends_before_the_next_one_starts():
    spec = pick(built(MANIFESTS / "base"), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def mounts(container):
    return {m["name"]: m for m in container["volumeMounts"]}


def test_only_the_controller_has_a_token(pod, controller, host):
    volumes = {v["name"]: v for v in pod["volumes"]}
    with_tokens = {name for name, v in volumes.items() if "projected" in v or "secret" in v}
    assert with_tokens == {"token"}
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert mounts(controller)["token"]["mountPath"] == where
    assert mounts(controller)["token"]["readOnly"] is True
    assert "token" not in mounts(host)
    paths = {
        item["path"]
        for source in volumes["token"]["projected"]["sources"]
        for part in source.values()
        for item in part.get("items", [part])
    }
    assert paths == {"token", "ca.crt", "namespace"}


def test_the_containers_share_a_socket_and_nothing_else(controller, host):
    assert mounts(controller).keys() & mounts(host).keys() == {"socket"}
    assert mounts(controller)["socket"]["readOnly"] is True
    users = {c["securityContext"]["runAsUser"] for c in (controller, host)}
    assert users == {10001, 10002}


def test_the_containers_agree_on_the_socket_and_on_who_may_use_it(pod, controller, host):
    environment = {v["name"]: v.get("value") for v in controller["env"]}
    args = host["args"]
    socket = args[args.index("--socket") + 1]
    assert environment["CODESWARM_WORKER_HOST"] == socket
    allowed = int(args[args.index("--allow-uid") + 1])
    assert allowed == controller["securityContext"]["runAsUser"]
    group = pod["securityContext"]["fsGroup"]
    for container in (controller, host):
        assert container["securityContext"]["runAsGroup"] == group == 10000
        assert socket.startswith(mounts(container)["socket"]["mountPath"] + "/")


def test_what_is_written_has_a_place(controller, host):
    environment = {v["name"]: v.get("value") for v in controller["env"]}
    assert under(controller, environment["CODESWARM_HOME"]) == "home"
    assert under(controller, environment["CODESWARM_CONFIG"]) == "config"
    assert under(controller, environment["HOME"]) == "controller-tmp"
    assert under(controller, "/tmp/x") == "controller-tmp"
    args = host["args"]
    assert under(host, args[args.index("--root") + 1]) == "work"
    assert under(host, host["env"][0]["value"]) == "worker-home"
    assert under(host, "/tmp/x") == "worker-tmp"


def under(container, path):
    """The volume that a path of a container is on."""
    found = [
        name
        for name, mount in mounts(container).items()
        if (path + "/").startswith(mount["mountPath"] + "/")
    ]
    assert len(found) == 1, path
    return found[0]


def test_probes_ask_what_they_should(controller, host):
    asked = {name: controller[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness")}
    assert all(get == {"path": "/healthz", "port": "http"} for get in asked.values())
    assert controller["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert "livenessProbe" not in host, "a probe that fails would kill every worker"
