"""The command line on a cluster: run in this process, in a namespace of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

import yaml
from click.testing import CliRunner, Result

from cli.kube_config import place
from cli.main import cli
from controller.resources.kinds import API_VERSION
from controller.store.kube_rest import path_of
from tests.kube import ApiError, Cluster
from tests.lab import DEADLINE

VARIABLES = (
    "CODESWARM_CONTROLLER_NAMESPACE",
    "CODESWARM_API_URL",
    "CODESWARM_API_TOKEN",
    "CODESWARM_HOME",
)


class Line:
    """``codeswarm`` with the cluster's context and the test's namespace."""

    def __init__(self, cluster: Cluster, namespace: str, path: Path, kubeconfig: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.path = path
        self.kubeconfig = kubeconfig
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in VARIABLES},
            "KUBECONFIG": kubeconfig,
            "CODESWARM_CONTEXT": place(kubeconfig, None).context,
            "CODESWARM_HOME": str(path / "no-home"),
            "TZ": "UTC",
        }

    def __call__(self, *words: str, input: str | None = None) -> Result:
        """Run it in this process."""
        cleared: dict[str, str | None] = dict.fromkeys(VARIABLES)
        return CliRunner(env={**cleared, **self.environment}).invoke(
            cli, [*words, "-n", self.namespace], input=input, prog_name="codeswarm"
        )

    def ok(self, *words: str, input: str | None = None) -> str:
        """Run it; what it printed. It must succeed."""
        result = self(*words, input=input)
        assert result.exit_code == 0, result.output
        return result.stdout

    def spawn(self, *words: str) -> Running:
        """Run it as a process."""
        command = [sys.executable, "-u", "-c", _PROGRAM, *words, "-n", self.namespace]
        pipe = subprocess.PIPE
        return Running(
            subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)
        )

    # --- objects, behind the command line's back --------------------------------------------------

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object as the server has it."""
        return self.cluster.request("GET", path_of(kind, self.namespace, name))

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return self.get(kind, name)
        except ApiError as error:
            assert error.status == 404, error
            return None

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Make an object."""
        body = {**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}}
        return self.cluster.request("POST", path_of(obj["kind"], self.namespace), body)

    def set_status(self, kind: str, name: str, **status: Any) -> None:
        """Play the controller: a status made from the present generation."""
        generation = self.get(kind, name)["metadata"]["generation"]
        body = {"status": {"observedGeneration": generation, **status}}
        path = path_of(kind, self.namespace, name, "status")
        self.cluster.request("PATCH", path, body, "application/merge-patch+json")

    def file(self, name: str, *documents: Any) -> str:
        """A manifest; documents are objects or texts."""
        texts = [d if isinstance(d, str) else yaml.safe_dump(d) for d in documents]
        path = self.path / name
        path.write_text("---\n".join(texts))
        return str(path)


class Running:
    """A ``codeswarm`` that goes on: its lines as they come; killed when it is left."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: Queue[str] = Queue()
        self._errors: list[str] = []
        assert process.stdout is not None and process.stderr is not None
        streams = ((process.stdout, self._lines.put), (process.stderr, self._errors.append))
        self._readers = [threading.Thread(target=_each, args=pair) for pair in streams]
        for reader in self._readers:
            reader.start()

    def line(self) -> str:
        """The next line of its output."""
        try:
            return self._lines.get(timeout=DEADLINE)
        except Empty:
            raise AssertionError(f"no line came; errors: {self._errors}") from None

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, the lines that were not read yet, and its errors."""
        code = self.process.wait(DEADLINE)
        for reader in self._readers:
            reader.join()
        rest = []
        while not self._lines.empty():
            rest.append(self._lines.get())
        return code, "".join(rest), "".join(self._errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()


def _each(stream: Iterable[str], take: Callable[[str], None]) -> None:
    for text in stream:
        take(text)


_PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
from cli.main import cli
cli.main(sys.argv[1:], prog_name="codeswarm")
"""


@contextmanager
def line(cluster: Cluster, path: Path) -> Iterator[Line]:
    """The command line in a namespace of its own."""
    with cluster.namespace("cli") as namespace:
        yield Line(cluster, namespace, path, cluster.kubeconfig)


def user(cluster: Cluster, namespace: str, path: Path, rules: list[dict[str, Any]]) -> str:
    """The kubeconfig of somebody who has these rights in the namespace and no more."""
    metadata = {"name": "somebody", "namespace": namespace}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.request("POST", base, account)
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    cluster.request("POST", f"{rbac}/roles", {**api, "kind": "Role", "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "somebody"}
    subjects = [{"kind": "ServiceAccount", **metadata}]
    binding = {**api, "kind": "RoleBinding", "roleRef": reference, "subjects": subjects}
    cluster.request("POST", f"{rbac}/rolebindings", binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
             "spec": {"expirationSeconds": 3600}}  # fmt: skip
    token = cluster.request("POST", f"{base}/somebody/token", asked)["status"]["token"]
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    active = next(c for c in config["contexts"] if c["name"] == config["current-context"])
    for entry in config["users"]:
        if entry["name"] == active["context"]["user"]:
            entry["user"] = {"token": token}
    file = path / "somebody"
    file.write_text(yaml.safe_dump(config))
    return str(file)


def rule(*resources: str, verbs: str = "get,list,watch") -> dict[str, Any]:
    """A rule about kinds of ours."""
    group = API_VERSION.partition("/")[0]
    return {"apiGroups": [group], "resources": list(resources), "verbs": verbs.split(",")}


def annotations(obj: dict[str, Any]) -> dict[str, Any]:
    """An object's annotations, those of JSON parsed."""
    found: dict[str, Any] = obj["metadata"].get("annotations") or {}
    return {k: json.loads(v) if v.startswith("{") else v for k, v in found.items()}
