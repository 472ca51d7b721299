"""A real API server takes every CRD, and judges objects as file mode does.

Needs ``CODESWARM_TEST_KUBECONFIG`` (any cluster that may be written to) and kubectl, from the
folder ``KUBE_BIN`` or the path.  kubectl only carries requests: they go to the API as they
are, with ``fieldValidation=Strict``, since older kubectls have no flag for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import kinds
from controller.resources.admission import Invalid, admit

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        not os.environ.get("CODESWARM_TEST_KUBECONFIG"),
        reason="needs CODESWARM_TEST_KUBECONFIG",
    ),
]

CASES = Path(__file__).parents[1] / "resources" / "cases"
MANIFESTS = (CASES.parent / "manifests", Path(__file__).parents[2] / "examples")
READY_SECONDS = 60.0
Answer = tuple[int, str, dict[str, Any]]


class Cluster:
    """kubectl with the test's kubeconfig."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        folder = os.environ.get("KUBE_BIN")
        program = str(Path(folder) / "kubectl") if folder else shutil.which("kubectl")
        if not program or not Path(program).exists():
            pytest.fail("kubectl is neither in the folder KUBE_BIN nor on the path")
        self._program = program
        self._config = os.environ["CODESWARM_TEST_KUBECONFIG"]

    def kubectl(self, *args: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [self._program, f"--kubeconfig={self._config}", *args]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    def must(self, *args: str, text: str = "") -> str:
        done = self.kubectl(*args, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout

    def _path(self, kind: str, name: str = "") -> str:
        plural = kinds.get(kind).plural
        base = f"/apis/{kinds.API_VERSION}/namespaces/{self.namespace}/{plural}"
        return f"{base}/{name}?fieldValidation=Strict" if name else f"{base}?fieldValidation=Strict"

    def create(self, obj: dict[str, Any]) -> Answer:
        return self._send(lambda: self._raw("create", self._path(obj["kind"]), obj))

    def replace(self, obj: dict[str, Any]) -> Answer:
        path = self._path(obj["kind"], obj["metadata"]["name"])
        return self._send(lambda: self._raw("replace", path, obj))

    def replace_status(self, obj: dict[str, Any]) -> Answer:
        path = self._path(obj["kind"], f"{obj['metadata']['name']}/status")
        return self._send(lambda: self._raw("replace", path, obj))

    def _raw(self, verb: str, path: str, obj: dict[str, Any]) -> Answer:
        done = self.kubectl(verb, "--raw", path, "-f", "-", text=json.dumps(obj))
        answer = json.loads(done.stdout) if done.returncode == 0 else {}
        return done.returncode, done.stderr, answer

    def _send(self, request: Callable[[], Answer]) -> Answer:
        """A kind just established may answer "not found" or "too many requests" at first."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            answer = request()
            passing = ("could not find the requested resource", "storage is (re)initializing")
            if time.monotonic() > deadline or not any(p in answer[1] for p in passing):
                return answer
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(f"crds-{uuid.uuid4().hex[:8]}")
    crds = sorted(f.name for f in files("crds").iterdir() if f.name.endswith(".yaml"))
    for name in crds:
        text = (files("crds") / name).read_text()
        cluster.must("apply", "--validate=false", "-f", "-", text=text)
    names = [f"crd/{kinds.get(k.kind).qualified}" for k in kinds.kinds() if k.group]
    cluster.must("wait", "--for=condition=Established", f"--timeout={READY_SECONDS:.0f}s", *names)
    cluster.must("create", "namespace", cluster.namespace)
    yield cluster
    cluster.must("delete", "namespace", cluster.namespace, "--wait=false")


def test_no_crd_is_refused_in_part(cluster: Cluster) -> None:
    for kind in kinds.kinds():
        if kind.group:
            crd = json.loads(cluster.must("get", "crd", kind.qualified, "-o", "json"))
            conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
            assert conditions.get("NonStructuralSchema", "False") == "False"
            assert conditions["NamesAccepted"] == "True"


def load_cases() -> list[Any]:
    found = []
    for file in sorted(CASES.glob("*.yaml")):
        table = yaml.safe_load(file.read_text())
        for case in table["cases"]:
            for part in ("old", "object"):
                if part in case:
                    case[part] = {**table["base"], **case[part]}
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


def delete(cluster: Cluster, obj: dict[str, Any]) -> None:
    kind = kinds.get(obj["kind"]).qualified
    name = obj["metadata"]["name"]
    cluster.kubectl("delete", "-n", cluster.namespace, kind, name, "--ignore-not-found")


@pytest.mark.parametrize("case", load_cases())
def test_the_server_judges_as_file_mode_does(cluster: Cluster, case: dict[str, Any]) -> None:
    obj = case["object"]
    before = None
    try:
        if "old" in case:
            code, problem, before = cluster.create(case["old"])
            assert code == 0, problem
            version = before["metadata"]["resourceVersion"]
            obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}}
            code, problem, stored = cluster.replace(obj)
        else:
            code, problem, stored = cluster.create(obj)
        assert (code == 0) == case["accept"], problem
        if case["accept"]:
            assert stored["spec"] == admit(obj, before)["spec"]
        else:
            assert case["phrase"] in problem
            with pytest.raises(Invalid):
                admit(obj, before)
    finally:
        delete(cluster, obj)


def example_objects() -> list[Any]:
    found = []
    for file in sorted(f for folder in MANIFESTS for f in folder.rglob("*.yaml")):
        for obj in yaml.safe_load_all(file.read_text()):
            if isinstance(obj, dict) and obj.get("apiVersion") == kinds.API_VERSION:
                name = f"{obj['kind']}/{obj['metadata']['name']}"
                found.append(pytest.param(obj, id=f"{file.name}: {name}"))
    return found


@pytest.mark.parametrize("obj", example_objects())
def test_examples_are_taken_with_the_same_defaults(cluster: Cluster, obj: dict[str, Any]) -> None:
    try:
        code, problem, stored = cluster.create(obj)
        assert code == 0, problem
        assert stored["spec"] == admit(obj)["spec"]
    finally:
        delete(cluster, obj)


def test_status_and_scale_are_subresources(cluster: Cluster) -> None:
    swarm = {
        "apiVersion": kinds.API_VERSION,
        "kind": "Swarm",
        "metadata": {"name": "scaled"},
        "spec": {"provider": {"local": {}}},
        "status": {"phase": "Running"},
    }
    try:
        code, problem, stored = cluster.create(swarm)
        assert code == 0, problem
        assert "status" not in stored
        cluster.must("scale", "-n", cluster.namespace, "swarm/scaled", "--replicas=3")
        spec = json.loads(
            cluster.must("get", "-n", cluster.namespace, "sw", "scaled", "-o", "json")
        )
        assert spec["spec"]["replicas"] == 3
        table = cluster.must("get", "-n", cluster.namespace, "sw")
        assert table.split("\n")[0].split() == [
            "NAME",
            *(c.name for c in kinds.get("Swarm").columns if not c.priority),
        ]
    finally:
        delete(cluster, swarm)


LEAST: dict[str, dict[str, Any]] = {
    "Swarm": {"provider": {"local": {}}},
    "Project": {"repository": {"url": "./x"}, "workers": [{"swarm": "a"}]},
    "Task": {"target": {"swarm": "a"}, "prompt": "x"},
    "Approval": {
        "request": {"id": "0", "kind": "command", "decisions": ["deny"], "swarm": "a", "job": "j"}
    },
}


@pytest.mark.parametrize("kind", LEAST)
def test_a_full_status_is_stored_whole(cluster: Cluster, kind: str) -> None:
    status = yaml.safe_load((CASES.parent / "status.yaml").read_text())[kind]
    obj = {
        "apiVersion": kinds.API_VERSION,
        "kind": kind,
        "metadata": {"name": "full"},
        "spec": LEAST[kind],
    }
    try:
        code, problem, stored = cluster.create(obj)
        assert code == 0, problem
        code, problem, stored = cluster.replace_status({**stored, "status": status})
        assert code == 0, problem
        assert stored["status"] == status
    finally:
        delete(cluster, obj)
