"""The shipped Deployment at work: a project is finished, with the shipped rights alone."""

from __future__ import annotations

import copy
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from tests.lab import prompt
from tests.manifests.documents import EXAMPLES, MANIFESTS, ROOT, built, pick
from tests.manifests.pod import Pod, usable

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.e2e,
    pytest.mark.skipif(
        not os.environ.get("CODESWARM_TEST_KUBECONFIG"), reason="needs CODESWARM_TEST_KUBECONFIG"
    ),
    pytest.mark.skipif(
        bool(os.environ.get("CODESWARM_TEST_KUBECONFIG")) and not usable(),
        reason="needs root, and leave to mount",
    ),
    pytest.mark.skipif(
        ROOT.is_relative_to("/tmp"), reason="a pod has a /tmp of its own: not with a checkout there"
    ),
]

DEADLINE = 90.0
TRIES = r"""
```mock
- run: "test ! -e /var/run/secrets/kubernetes.io/serviceaccount/token"
- run: "test ! -e /var/lib/codeswarm/home"
- run: "test ! -e /etc/codeswarm"
- run: "! touch /etc/planted /usr/planted 2>/dev/null"
- run: "touch /tmp/mine $HOME/mine"
- run: "test $(id -u) = 10002"
- run: "grep -q 'CapEff:.0000000000000000' /proc/self/status"
- run: "grep -q 'NoNewPrivs:.1' /proc/self/status"
- run: "test -z \"$KUBERNETES_SERVICE_HOST$CODESWARM_HOME\""
```
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Installation:
    """The controller's pod and the git server's, in the test's namespace."""

    def __init__(self, cluster, folder: Path) -> None:
        self.cluster = cluster
        self.port, git_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        objects = copy.deepcopy(built(MANIFESTS / "base"))
        for obj in objects:  # the machine's network is the pod's: other ports than in a cluster
            if obj["kind"] == "ConfigMap":
                obj["data"]["config.yaml"] += f"http: {{host: 127.0.0.1, port: {self.port}}}\n"
        server = copy.deepcopy(built(EXAMPLES / "kubernetes" / "git-server"))
        arguments = pick(server, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
        arguments[arguments.index("--port") + 1] = str(git_port)
        self.repositories = f"http://127.0.0.1:{git_port}"
        self.pod = Pod(pick(objects, "Deployment"), objects, cluster, folder / "codeswarm")
        self.git = Pod(pick(server, "Deployment"), server, cluster, folder / "git")

    def apply(self, *objects) -> None:
        for obj in objects:
            obj["metadata"]["namespace"] = self.cluster.namespace
            self.cluster.must("apply", "-f", "-", text=json.dumps(obj))

    def get(self, kind: str, name: str):
        place = ("-n", self.cluster.namespace, "-o", "json")
        return json.loads(self.cluster.must("get", kind, name, *place))

    def ask(self, path: str, token: str = ""):
        """Status and body of an HTTP request."""
        request = urllib.request.Request(self.url + path)
        if token:
            request.add_header("X-Codeswarm-Token", token)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()

    def wait(self, condition, what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.logs()}"
            time.sleep(0.5)

    def wait_phase(self, kind: str, name: str, phase: str) -> None:
        def there() -> bool:
            return self.get(kind, name).get("status", {}).get("phase") == phase

        try:
            self.wait(there, f"{kind} {name} is not {phase}")
        except AssertionError:
            print(json.dumps(self.get(kind, name).get("status"), indent=1))
            raise

    def logs(self) -> str:
        pods = (self.pod, self.git)
        files = [pod.log(c["name"]) for pod in pods for c in pod.spec["containers"]]
        return "\n".join(f"--- {f.name}\n{f.read_text()[-3000:]}" for f in files if f.exists())

    def close(self) -> None:
        self.pod.close()
        self.git.close()


@pytest.fixture
def installation(installed, tmp_path):
    found = Installation(installed, tmp_path)
    found.git.start()
    yield found
    found.close()


def test_a_project_is_finished_by_the_shipped_deployment(installation):
    lab = installation
    lab.pod.start()
    lab.wait(lambda: lab.ask("/readyz")[0] == 200, "not ready")
    assert lab.ask("/healthz")[0] == 200
    assert lab.ask("/metrics")[0] == 200
    text = (EXAMPLES / "kubernetes" / "greeter.yaml").read_text()
    text = text.replace("http://git.codeswarm.svc:8080", lab.repositories)
    lab.apply(*yaml.safe_load_all(text))
    lab.wait_phase("project", "greeter", "Completed")
    lab.apply(prompt("tries", TRIES))
    lab.wait_phase("task", "tries", "Succeeded")

    space = lab.cluster.namespace
    reader, nobody = lab.pod.token("codeswarm-reader"), lab.pod.token("default")
    path = f"/api/v1/namespaces/{space}/transcripts"
    assert lab.ask(path)[0] == 401
    assert lab.ask(path, nobody)[0] == 403
    assert lab.ask("/api/v1/namespaces/default/transcripts", reader)[0] == 403
    status, body = lab.ask(path, reader)
    assert status == 200 and json.loads(body)["transcripts"]

    # Everything again, after the pod was replaced.
    assert lab.pod.stop() == {"controller": 0, "worker-host": 0}
    lab.apply(prompt("later", "Say hello."))
    lab.pod.start()
    lab.wait_phase("task", "later", "Succeeded")
    assert lab.get("project", "greeter")["status"]["phase"] == "Completed"
    assert "Traceback" not in lab.logs()
    for kind in ("swarm", "project"):
        lab.cluster.must("delete", "-n", space, kind, "--all", "--timeout=60s")
    assert lab.pod.stop() == {"controller": 0, "worker-host": 0}


def test_the_host_of_workers_may_die_alone(installation):
    lab = installation
    lab.pod.start()
    lab.apply(
        {
            "apiVersion": "codeswarm.dev/v1alpha1",
            "kind": "Swarm",
            "metadata": {"name": "builders"},
            "spec": {"replicas": 1, "agent": {"runtime": "mock"}, "provider": {"local": {}}},
        }
    )
    lab.wait_phase("swarm", "builders", "Running")
    lab.pod.kill("worker-host")
    lab.apply(prompt("after", "Say hello."))
    lab.pod.start("worker-host")
    lab.wait_phase("task", "after", "Succeeded")
    assert lab.pod.processes["controller"].poll() is None
    lab.cluster.must("delete", "-n", lab.cluster.namespace, "swarm", "--all", "--timeout=60s")
    assert lab.pod.stop() == {"controller": 0, "worker-host": 0}
