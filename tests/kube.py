"""A Codeswarm on a cluster for tests: a namespace of its own, a controller as a process, workers.

Any cluster that may be written to will do: ``CODESWARM_TEST_KUBECONFIG`` names its kubeconfig.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import yaml
from kubernetes import config

from controller.resources import kinds
from controller.runtime.home import Home
from controller.store.kube_api import path_of
from tests.lab import DEADLINE, Timeout
from tests.processes import having

VARIABLE = "CODESWARM_TEST_KUBECONFIG"
READY_SECONDS = 60.0
CLAIMED = "kube-aggregator.kubernetes.io/automanaged"
"""Label of entries that a server makes for the CRDs that it serves itself."""
OWN = [kind for kind in kinds.kinds() if kind.group]


class ApiError(AssertionError):
    """The server refused; ``status`` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Cluster:
    """One API server, as a kubeconfig says."""

    def __init__(self, kubeconfig: str | Path) -> None:
        self.kubeconfig = str(kubeconfig)
        self._client = config.new_client_from_config(config_file=self.kubeconfig)

    @property
    def server(self) -> str:
        """Its URL."""
        return str(self._client.configuration.host)

    @property
    def token(self) -> str:
        """The bearer token of the kubeconfig's user."""
        value = self._client.configuration.auth_settings()["BearerToken"]["value"]
        return str(value).removeprefix("Bearer ")

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        token: str = "",
    ) -> dict[str, Any]:
        """One request; a ``body`` that is a text is sent as it is. Raises: ApiError."""
        configuration = self._client.configuration
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        bearer = configuration.auth_settings().get("BearerToken")
        if token or bearer:
            headers["Authorization"] = f"Bearer {token}" if token else bearer["value"]
        answer = self._client.rest_client.pool_manager.request(
            method,
            f"{configuration.host}{path}",
            headers=headers,
            body=body if body is None or isinstance(body, str) else json.dumps(body),
            timeout=30.0,
            retries=False,
        )
        try:
            data = json.loads(answer.data) if answer.data else {}
        except ValueError:  # a group that is not served yet is answered in plain text
            data = {"message": answer.data.decode("utf-8", "replace")}
        if answer.status >= 400:
            raise ApiError(answer.status, str(data.get("message")))
        found: dict[str, Any] = data
        return found

    def watch(self, path: str, version: str, seconds: int) -> Iterator[dict[str, Any]]:
        """What changes below a path after a version, for some seconds."""
        configuration = self._client.configuration
        answer = self._client.rest_client.pool_manager.request(
            "GET",
            f"{configuration.host}{path}",
            fields={"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)},
            headers={"Authorization": configuration.auth_settings()["BearerToken"]["value"]},
            timeout=seconds + 30.0,
            retries=False,
            preload_content=False,
        )
        for line in answer:
            told: dict[str, Any] = json.loads(line)
            yield told

    def command(self, namespace: str = "") -> list[str]:
        """How kubectl is run."""
        program = shutil.which("kubectl")
        assert program, "kubectl is not on the path"
        where = ["-n", namespace] if namespace else []
        return [program, f"--kubeconfig={self.kubeconfig}", *where]

    def kubectl(
        self, *args: str, text: str = "", namespace: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl."""
        return subprocess.run(
            [*self.command(namespace), *args],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def install_crds(self) -> None:
        """Apply the CRDs and wait until every kind is served."""
        for name in sorted(f.name for f in files("crds").iterdir() if f.name.endswith(".yaml")):
            text = (files("crds") / name).read_text()
            # Other test processes do the same: who comes second is told so.
            wait(lambda text=text: self._applied(text), f"{name} to be taken", READY_SECONDS)
        wait(self._routed, "the group's route", READY_SECONDS)
        for kind in OWN:
            wait(lambda kind=kind: self._served(kind), f"{kind.kind} to be served", READY_SECONDS)

    def _routed(self) -> bool:
        """Whether it is settled where the group is served.

        A server may have another one serve CRDs and custom resources.  Its own controller of CRDs
        does not know that: it claims the entry of a group, if it was first to make it, and takes
        the group back when a CRD changes next.
        """
        entries = "/apis/apiregistration.k8s.io/v1/apiservices"
        other = self.request("GET", f"{entries}/v1.apiextensions.k8s.io")["spec"].get("service")
        if not other:
            return True
        path = f"{entries}/{kinds.VERSION}.{kinds.GROUP}"
        try:
            found = self.request("GET", path)
        except ApiError as error:
            assert error.status == 404, error
            return False
        if found["spec"].get("service") == other and CLAIMED not in (
            found["metadata"].get("labels") or {}
        ):
            return True
        change = {
            "metadata": {"labels": {CLAIMED: None}},
            "spec": {"service": other, "insecureSkipTLSVerify": True},
        }
        self.request("PATCH", path, change, "application/merge-patch+json")
        return False

    def _applied(self, text: str) -> bool:
        done = self.kubectl("apply", "--validate=false", "-f", "-", text=text)
        passing = ("AlreadyExists", "object has been modified", "rate limit", "too many requests")
        refused = done.returncode != 0
        assert not refused or any(word in done.stderr for word in passing), done.stderr
        return not refused

    def _served(self, kind: kinds.Kind) -> bool:
        try:
            self.request("GET", path_of(kind.kind, "default"))
        except ApiError:
            return False
        return True

    @contextmanager
    def namespace(self, prefix: str = "t") -> Iterator[str]:
        """A namespace that is deleted in the end."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        self.request("POST", "/api/v1/namespaces", body)
        wait(lambda: self._has_account(name), "the namespace's default ServiceAccount")
        try:
            yield name
        finally:
            self.release(name)
            self.request("DELETE", f"/api/v1/namespaces/{name}")

    def _has_account(self, namespace: str) -> bool:
        try:
            self.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
        except ApiError:
            return False
        return True

    def release(self, namespace: str) -> None:
        """Remove finalizers that no controller is left to remove."""
        for kind in OWN:
            for obj in self.request("GET", path_of(kind.kind, namespace)).get("items") or ():
                if obj["metadata"].get("finalizers"):
                    patch = {"metadata": {"finalizers": None}}
                    path = path_of(kind.kind, namespace, obj["metadata"]["name"])
                    try:
                        self.request("PATCH", path, patch, "application/merge-patch+json")
                    except ApiError as error:
                        assert error.status == 404, error


class KubeLab:
    """A namespace with a controller that serves it, its home below ``path``."""

    def __init__(self, cluster: Cluster, namespace: str, path: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.path = path
        self.home = Home.at(path / "home").ensure()
        self.workspaces = self.home.workspaces
        self.log = path / "controller.log"
        self.kubeconfig = cluster.kubeconfig
        """What controllers are started with."""
        self.serves = ["-n", namespace]
        self._controllers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- controllers ---------------------------------------------------------------------------

    def spawn(
        self, *arguments: str, program: tuple[str, ...] = ("-m", "cli.main"), **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a controller and do not wait for it."""
        environment = {**os.environ, "CODESWARM_HOME": str(self.home.root), **variables}
        command = [
            sys.executable, *program, "controller", "run", "--kubernetes",
            "--kubeconfig", self.kubeconfig, *self.serves, *arguments,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, env=environment, stderr=log, stdout=log, stdin=subprocess.DEVNULL
            )
        self._controllers.append(process)
        return process

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a controller and wait until it is up."""
        ups = self.text().count("controller is up")
        process = self.spawn(*arguments, **variables)
        self.wait(
            lambda: process.poll() is not None or self.text().count("controller is up") > ups,
            "the controller to be up",
        )
        assert process.poll() is None, self.text()
        return process

    @property
    def controller(self) -> subprocess.Popen[bytes]:
        """The controller that was started last."""
        return self._controllers[-1]

    def kill(self) -> None:
        """``kill -9`` of the controller."""
        self.controller.kill()
        self.controller.wait()

    def stop(self) -> int:
        """Stop the controller gracefully; its exit code."""
        self.controller.send_signal(signal.SIGTERM)
        return self.controller.wait(20)

    def text(self) -> str:
        """What the controllers have said."""
        return self.log.read_text() if self.log.exists() else ""

    def close(self) -> None:
        """End every process."""
        for process in self._controllers:
            if process.poll() is None:
                process.kill()
                process.wait()
        for worker in self.processes():
            with _gone_is_fine():
                worker.kill()

    def processes(self) -> list[psutil.Process]:
        """Workers of this lab, and whatever descends from them."""
        return having("CODESWARM_BASE_DIR", str(self.workspaces))

    def worker_pid(self, swarm: str, index: int) -> int:
        """The process of a worker."""
        for row in self.status("Swarm", swarm).get("workers", ()):
            if row["index"] == index and row.get("handle", "").startswith("pid "):
                return int(row["handle"].removeprefix("pid "))
        raise AssertionError(f"no process for {swarm}/{index}")

    # --- objects -------------------------------------------------------------------------------

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """``kubectl apply``, as a person does."""
        text = yaml.safe_dump_all([dict(obj) for obj in objects])
        done = self.cluster.kubectl("apply", "-f", "-", text=text, namespace=self.namespace)
        assert done.returncode == 0, done.stderr

    def create(self, *objects: Mapping[str, Any]) -> None:
        """Create, a request each: faster than kubectl for many."""
        for obj in objects:
            meta = {**obj["metadata"], "namespace": self.namespace}
            body = {**obj, "metadata": meta}
            self.cluster.request("POST", path_of(obj["kind"], self.namespace), body)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return self.cluster.request("GET", path_of(kind, self.namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object that must be there."""
        found = self.find(kind, name)
        assert found is not None, f"no {kind} {name}"
        return found

    def list(self, kind: str) -> Any:
        """All of a kind in the namespace."""
        return self.cluster.request("GET", path_of(kind, self.namespace)).get("items") or []

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """An object's status; empty while there is none."""
        found: dict[str, Any] = (self.find(kind, name) or {}).get("status") or {}
        return found

    def condition(self, kind: str, name: str, type: str) -> dict[str, Any]:
        """One condition of an object; empty while there is none."""
        conditions = self.status(kind, name).get("conditions") or ()
        return next((c for c in conditions if c["type"] == type), {})

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch."""
        path = path_of(kind, self.namespace, name)
        return self.cluster.request("PATCH", path, change, "application/merge-patch+json")

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, or begin to."""
        self.cluster.request("DELETE", path_of(kind, self.namespace, name))

    # --- waiting -------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Poll until a condition holds; its value. Raises: Timeout, with a picture."""
        try:
            return wait(condition, what, deadline)
        except Timeout as timeout:
            raise Timeout(f"{timeout}\n{self.picture()}") from None

    def wait_phase(self, kind: str, name: str, *phases: str, deadline: float = DEADLINE) -> None:
        """Wait until an object is in one of the phases."""
        self.wait(
            lambda: self.status(kind, name).get("phase") in phases,
            f"{kind} {name} to be {' or '.join(phases)}",
            deadline,
        )

    def wait_gone(self, kind: str, name: str, deadline: float = DEADLINE) -> None:
        """Wait until there is no such object."""
        self.wait(lambda: self.find(kind, name) is None, f"{kind} {name} to be gone", deadline)

    def picture(self) -> str:
        """What there is, for a failure's message."""
        lines = []
        for kind in ("Swarm", "Project", "Task"):
            for obj in self.list(kind)[:40]:
                status = obj.get("status") or {}
                attempts = [
                    (a["number"], a["state"], a.get("reason"), a.get("message"))
                    for a in status.get("attempts") or ()
                ]
                lines.append(
                    f"{kind}/{obj['metadata']['name']} {status.get('phase')} "
                    f"{status.get('reason')} {status.get('progress') or status.get('ready') or ''} "
                    f"{attempts or ''} {status.get('blocker') or ''}"
                )
        return "\n".join([*lines, "--- log ---", self.text()[-3000:]])


def wait(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Poll until a condition holds; its value. Raises: Timeout."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise Timeout(f"waited {deadline} s for {what}")


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        pass
