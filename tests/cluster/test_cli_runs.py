"""The main job by the command line alone, and transcripts through a real service proxy."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.kube_server import Server
from controller.domain.machine_logs import transcript
from tests.cli.controller_http import ControllerHttp, by_cluster, write
from tests.cli.samples import attempt, swarm, task
from tests.cluster.cli import Line, rule, user
from tests.kube import Cluster, KubeLab, wait
from tests.lab import git, project, refs, work
from tests.lab import swarm as workers

FOLDER, JOB = "builders-1a2b3c4d", "builders-1a2b3c4d-0-1"


def own_address(cluster: Cluster) -> str:
    """An address of this machine for the API server to reach; not a loopback one. May be empty."""
    host, _, port = cluster.server.partition("//")[2].partition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port.partition("/")[0] or 443)))  # nothing is sent
        found = str(probe.getsockname()[0])
    every = [a.address for card in psutil.net_if_addrs().values() for a in card
             if a.family == socket.AF_INET]  # fmt: skip
    return next((a for a in (found, *every) if not a.startswith("127.")), "")


def publish(cluster: Cluster, namespace: str, address: str, port: int) -> None:
    """A Service `codeswarm` that leads to a process of this machine.

    The API server's proxy goes only to addresses of Pods, so there is one in name.
    """
    metadata = {"name": "codeswarm", "namespace": namespace}
    base = f"/api/v1/namespaces/{namespace}"
    ports = [{"name": "http", "port": 4000, "targetPort": port}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
               "spec": {"ports": ports}}  # fmt: skip
    cluster.request("POST", f"{base}/services", service)
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}]},
    }  # fmt: skip
    cluster.request("POST", f"{base}/pods", pod)
    status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
    patch = "application/merge-patch+json"
    cluster.request("PATCH", f"{base}/pods/codeswarm/status", status, patch)
    target = {"kind": "Pod", **metadata}
    addresses = [{"ip": address, "targetRef": target}]
    subset = {"addresses": addresses, "ports": [{"name": "http", "port": port}]}
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata,
                 "subsets": [subset]}  # fmt: skip
    cluster.request("POST", f"{base}/endpoints", endpoints)


def reader(cluster: Cluster, namespace: str) -> None:
    """The ServiceAccount that may read transcripts in the namespace, and nothing else."""
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    metadata = {"name": "codeswarm-reader", "namespace": namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    cluster.request("POST", base, account)
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    rules = [rule("tasks/transcript", verbs="get")]
    cluster.request("POST", f"{rbac}/roles", {**api, "kind": "Role", "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]}
    subjects = [{"kind": "ServiceAccount", **metadata}]
    binding = {**api, "kind": "RoleBinding", "roleRef": reference, "subjects": subjects}
    cluster.request("POST", f"{rbac}/rolebindings", binding)


@pytest.fixture
def cs(kube: KubeLab) -> Iterator[Line]:
    """``codeswarm`` for the lab's namespace; its controller's HTTP is behind a Service there."""
    cluster, space = kube.cluster, kube.namespace
    address = own_address(cluster)
    made = Line(cluster, space, kube.path, cluster.kubeconfig)
    made.environment["CODESWARM_CONTROLLER_NAMESPACE"] = space
    auth = by_cluster(cluster.kubeconfig)
    with ControllerHttp(kube.home.transcripts, auth, address or "127.0.0.1") as http:
        if address:
            publish(cluster, space, address, http.port)
        else:  # a machine without any network: not through the proxy then
            made.environment["CODESWARM_API_URL"] = http.url
        yield made


def says(seq: int, injection: str, text: str) -> bytes:
    """A line of a transcript: an agent says something."""
    record = {"seq": seq, "ts": 1_767_323_045 + seq, "job_id": JOB, "node_id": "n",
              "injection_id": injection, "event": "assistant",
              "data": {"item": str(seq), "text": text}}  # fmt: skip
    return json.dumps(record).encode() + b"\n"


def a_task_with_a_transcript(kube: KubeLab, cs: Line) -> str:
    """A task whose only attempt has said one thing; its injection."""
    cs.create(swarm())
    uid = cs.create(task("greeter.library"))["metadata"]["uid"]
    cs.set_status("Task", "greeter.library", phase="Running",
                  attempts=[attempt(injectionId=f"{uid}.1")])  # fmt: skip
    write(kube.home.transcripts, kube.namespace, FOLDER, JOB, says(1, f"{uid}.1", "first words"))
    return f"{uid}.1"


def test_logs_with_ones_own_token(kube: KubeLab, cs: Line) -> None:
    injection = a_task_with_a_transcript(kube, cs)
    assert "first words" in cs.ok("logs", "greeter.library")
    raw = cs.ok("logs", "task/greeter.library", "--json")
    assert json.loads(raw)["injection_id"] == injection
    assert "OK    transcripts can be read" in cs.ok("doctor")


def test_logs_of_how_a_swarms_machines_were_set_up(kube: KubeLab, cs: Line) -> None:
    folder = f"builders-{cs.create(swarm())['metadata']['uid'][:8]}"
    machine = "i-0aa0aa0aa0aa0aa0a"
    told = transcript(machine, "2026-01-02T03:04:05Z begins: role coordinator\n", 0.0)
    root = kube.home.transcripts
    write(root, kube.namespace, folder, machine, told)
    write(root, kube.namespace, folder, f"{folder}-0-1", says(1, "x.1", "first words"))
    whole = cs.ok("logs", "swarm/builders")
    assert f"{machine}  begins: role coordinator" in whole and "first words" in whole
    assert "first words" not in cs.ok("logs", f"builders/{machine}")


def test_logs_f_shows_what_is_added_and_ends_with_the_task(kube: KubeLab, cs: Line) -> None:
    injection = a_task_with_a_transcript(kube, cs)

    def more(seq: int, text: str) -> None:
        line = says(seq, injection, text)
        write(kube.home.transcripts, kube.namespace, FOLDER, JOB, line)

    with cs.spawn("logs", "-f", "greeter.library") as logs:
        assert "first words" in logs.line()
        more(2, "second words")
        assert "second words" in logs.line()
        more(3, "last words")
        ended = [attempt(injectionId=injection, state="Succeeded")]
        cs.set_status("Task", "greeter.library", phase="Succeeded", attempts=ended)
        code, out, err = logs.end()
    assert code == 0, err
    assert "last words" in out


def test_logs_f_is_left_with_ctrl_c(kube: KubeLab, cs: Line) -> None:
    a_task_with_a_transcript(kube, cs)
    with cs.spawn("logs", "-f", "greeter.library") as logs:
        assert "first words" in logs.line()
        logs.interrupt()
        code, _, err = logs.end()
    assert code == 130, err
    assert "Traceback" not in err


def test_without_a_token_of_ones_own_one_is_lent(
    kube: KubeLab, cs: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a client certificate: TokenRequest, TokenReview and SubjectAccessReview are real."""
    a_task_with_a_transcript(kube, cs)
    reader(kube.cluster, kube.namespace)
    monkeypatch.setattr(Server, "token", lambda self: "")
    wait(lambda: cs("logs", "greeter.library").exit_code == 0, "the reader's rights")
    assert "first words" in cs.ok("logs", "greeter.library")
    cs.environment["CODESWARM_CONTROLLER_NAMESPACE"] = "default"
    assert "codeswarm-reader" in cs("logs", "greeter.library").stderr


def test_the_least_rights_for_logs(kube: KubeLab, cs: Line, tmp_path: Path) -> None:
    """The proxy to this one Service, and the transcripts themselves: both are needed."""
    a_task_with_a_transcript(kube, cs)
    gate = {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"],
            "resourceNames": ["http:codeswarm:4000"]}  # fmt: skip
    rules = [rule("tasks", "swarms"), gate]
    config = user(cs.cluster, cs.namespace, tmp_path, rules)
    somebody = Line(cs.cluster, cs.namespace, tmp_path, config)
    somebody.environment["CODESWARM_CONTROLLER_NAMESPACE"] = kube.namespace
    wait(lambda: somebody("get", "tasks").exit_code == 0, "the rights to be taken up")
    result = somebody("logs", "greeter.library")
    assert result.exit_code == 1
    assert "may not get tasks/transcript" in result.stderr
    assert "first words" not in result.output
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{cs.namespace}/roles/somebody"
    more = {"rules": [*rules, rule("tasks/transcript", verbs="get")]}
    cs.cluster.request("PATCH", role, more, "application/merge-patch+json")
    wait(lambda: somebody("logs", "greeter.library").exit_code == 0, "the right to transcripts")
    assert "first words" in somebody.ok("logs", "greeter.library")


def test_a_manifest_in_merged_branches_out_by_the_command_line(kube: KubeLab, cs: Line) -> None:
    repository = kube.path / "repo.git"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(repository))
    kube.start()
    url = {"url": str(repository), "baseBranch": "main"}
    tasks = [work("a", "say: Hello from a"), work("b", depends_on=["a"])]
    file = cs.file("all.yaml", workers(), project(repository=url, tasks=tasks))
    applied = cs("apply", "-f", file, "--wait", "--timeout", "60s")
    assert applied.exit_code == 0, applied.output + kube.picture()
    assert "project/demo complete (2/2)" in applied.stderr
    assert "no controller" not in applied.stderr
    assert "refs/heads/codeswarm/demo/integration" in refs(repository)
    assert "Completed" in cs.ok("get", "projects")
    assert "Hello from a" in cs.ok("logs", "project/demo")
    assert "Hello from a" in cs.ok("logs", "builders/0") + cs.ok("logs", "builders/1")
    assert "Attempts" in cs.ok("describe", "task", "demo.a")
    answer = cs("prompt", "builders", "Hi.\n```mock\n- say: Hello yourself\n```\n", "--follow")
    assert answer.exit_code == 0, answer.output
    assert "Hello yourself" in answer.stdout
    assert "will be retried" not in cs("retry", "demo.a").stdout
    cs.ok("scale", "builders", "--replicas", "3")
    cs.ok("wait", "--for=condition=Ready", "swarm/builders", "--timeout", "30s")
    cs.ok("delete", "project", "demo", "--wait", "--timeout", "30s")
    ended = cs("stop-all", "-y", "--timeout", "60s")
    assert ended.exit_code == 0, ended.output + kube.picture()
    assert not kube.processes()
    assert "refs/heads/codeswarm/demo/integration" in refs(repository)
