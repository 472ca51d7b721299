"""HTTP of a controller on a cluster: who gets in is the API server's word, directly or by proxy."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.test_cli_runs import own_address, publish
from tests.kube import ApiError, Cluster, KubeLab
from tests.lab import prompt, script, swarm

LIMIT = 30.0
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"
Headers = dict[str, str]


def account(cluster: Cluster, namespace: str, name: str) -> str:
    """A token of a new ServiceAccount, which has no rights."""
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    cluster.request("POST", base, body)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
             "spec": {"expirationSeconds": 600}}  # fmt: skip
    token: str = cluster.request("POST", f"{base}/{name}/token", asked)["status"]["token"]
    return token


def grant(cluster: Cluster, namespace: str, name: str) -> None:
    """The right to read transcripts, and nothing else."""
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
    rule = {"apiGroups": ["codeswarm.dev"], "resources": ["tasks/transcript"], "verbs": ["get"]}
    cluster.request("POST", f"{RBAC}/{namespace}/roles", {**api, "kind": "Role", "rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    binding = {**api, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]}
    cluster.request("POST", f"{RBAC}/{namespace}/rolebindings", binding)


def urls(lab: KubeLab) -> list[str]:
    """Where the lab's controllers listen, in the order of their starts."""
    return re.findall(r"HTTP on (http://\S+)", lab.text())


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=LIMIT)


def ask(url: str, path: str, headers: Headers | None = None) -> tuple[int, bytes]:
    """One request: status and body."""
    connection = connect(url)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def listening(connection: http.client.HTTPConnection, path: str, headers: Headers) -> Iterator[Any]:
    """Live records of a stream that listens when this returns."""
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    assert answer.readline().startswith(b": ")

    def records() -> Iterator[Any]:
        while line := answer.readline():
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))

    return records()


def test_who_has_the_right_reads_and_nobody_else(kube: KubeLab) -> None:
    cluster, space = kube.cluster, kube.namespace
    reader, nobody = account(cluster, space, "reader"), account(cluster, space, "nobody")
    grant(cluster, space, "reader")
    kube.home.config.write_text("http: {port: 0}\n")
    kube.start()
    (url,) = urls(kube)
    base = f"/api/v1/namespaces/{space}"
    assert url.startswith("http://127.0.0.1:")

    connection = connect(url)
    records = listening(connection, f"{base}/events?swarm=builders", {"X-Codeswarm-Token": reader})
    kube.apply(swarm(replicas=1), prompt("hello", script("say: hi")))
    kube.wait_phase("Task", "hello", "Succeeded")
    assert next(r for r in records if r["record"]["event"] == "turn_complete")["task"] == "hello"
    connection.close()

    for headers in ({"Authorization": f"Bearer {reader}"}, {"X-Codeswarm-Token": reader}):
        status, body = ask(url, f"{base}/transcripts", headers)
        assert status == 200
        (row,) = json.loads(body)["transcripts"]
        path = kube.home.transcripts / space / row["swarm"] / f"{row['job']}.jsonl"
        status, body = ask(url, f"{base}/transcripts/{row['swarm']}/{row['job']}", headers)
        assert (status, body) == (200, path.read_bytes())

    refused = [
        (401, base, {}),
        (401, base, {"Authorization": "Bearer nonsense"}),
        (403, base, {"Authorization": f"Bearer {nobody}"}),
        (403, "/api/v1/namespaces/default", {"Authorization": f"Bearer {reader}"}),
    ]
    for status, place, headers in refused:
        for path in (f"{place}/transcripts", f"{place}/events"):
            found, body = ask(url, path, headers)
            assert found == status, body
    assert "nobody may not get tasks/transcript" in str(
        ask(url, f"{base}/transcripts", {"X-Codeswarm-Token": nobody})[1]
    )

    status, body = ask(url, "/metrics")
    counted = re.findall(rb'codeswarm_api_requests_total\{code="(\d+)",resource="(\w+)"', body)
    assert (b"201", b"tokenreviews") in counted and (b"201", b"subjectaccessreviews") in counted
    assert ask(url, "/readyz")[0] == 200
    status, body = ask(url, "/healthz")
    assert status == 200 and json.loads(body)["contactSeconds"] < 300
    assert not [token for token in (reader, nobody) if token in kube.text()]

    cluster.request("DELETE", f"{RBAC}/{space}/rolebindings/reader")
    kube.wait(
        lambda: ask(url, f"{base}/transcripts", {"X-Codeswarm-Token": reader})[0] == 403,
        "the right that was taken away to be gone",
    )


def test_one_who_waits_for_the_lease_says_so(kube: KubeLab) -> None:
    kube.home.config.write_text("http: {port: 0}\n")
    kube.start()
    kube.spawn()
    kube.wait(lambda: len(urls(kube)) == 2, "the second controller to listen")
    second = urls(kube)[1]
    kube.wait(lambda: b"lease" in ask(second, "/readyz")[1], "it to find the lease taken")
    status, body = ask(second, "/readyz")
    assert status == 503
    assert re.search(r"waits for the lease that \S+ holds", json.loads(body)["reason"])
    assert ask(second, "/healthz")[0] == 200
    assert ask(second, "/metrics")[0] == 200


def test_through_the_api_server_s_service_proxy(kube: KubeLab) -> None:
    cluster, space = kube.cluster, kube.namespace
    reader = account(cluster, space, "reader")
    grant(cluster, space, "reader")
    kube.home.config.write_text("http: {host: 0.0.0.0, port: 0}\n")
    kube.start()
    port = int(urls(kube)[0].rpartition(":")[2])
    publish(cluster, space, own_address(cluster), port)
    proxy = f"/api/v1/namespaces/{space}/services/codeswarm:http/proxy"
    base = f"{proxy}/api/v1/namespaces/{space}"

    def reachable() -> bool:
        try:
            return bool(cluster.request("GET", f"{proxy}/readyz")["status"] == "ready")
        except ApiError:
            return False

    kube.wait(reachable, "the proxy to lead to the controller")
    with pytest.raises(ApiError) as refusal:
        cluster.request("GET", f"{base}/transcripts")  # its own token does not get through
    assert refusal.value.status == 401

    pool = cluster._client.rest_client.pool_manager
    admin = cluster._client.configuration.auth_settings().get("BearerToken")
    headers = {"X-Codeswarm-Token": reader}
    if admin:
        headers["Authorization"] = admin["value"]
    answer = pool.request(
        "GET", f"{cluster.server}{base}/events", headers=headers, preload_content=False,
        timeout=LIMIT,
    )  # fmt: skip
    assert answer.status == 200
    kube.apply(swarm(replicas=1), prompt("hello", script("say: hi")))
    seen = b""
    while b'"turn_complete"' not in seen:
        seen += answer.read1(65536)
    assert b"event: record" in seen and b'"task":"hello"' in seen
    answer.close()
    answer = pool.request("GET", f"{cluster.server}{base}/transcripts", headers=headers)
    (row,) = json.loads(answer.data)["transcripts"]
    part = f"{base}/transcripts/{row['swarm']}/{row['job']}?offset=1&limit=7"
    answer = pool.request("GET", f"{cluster.server}{part}", headers=headers)
    assert answer.status == 200 and len(answer.data) == 7
    assert int(answer.headers["X-Codeswarm-Size"]) >= row["size"]
