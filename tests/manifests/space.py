"""A namespace of a cluster, by kubectl, as a person uses it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from controller.store.kube_rest import path_of
from tests.kube import VARIABLE
from tests.kube import Cluster as Server


class Cluster:
    """The test's cluster, and the namespace that a test has in it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.server = Server(os.environ[VARIABLE])

    def kubectl(self, *args: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl."""
        return self.server.kubectl(*args, text=text)

    def must(self, *args: str, text: str = "") -> str:
        """Run kubectl, which has to succeed; its output."""
        done = self.kubectl(*args, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stderr}"
        return done.stdout

    def create(self, obj: dict[str, Any]) -> None:
        """Create an object in the namespace. Raises: ApiError."""
        metadata = {**obj["metadata"], "namespace": self.namespace}
        path = path_of(obj["kind"], self.namespace)
        self.server.request("POST", path, {**obj, "metadata": metadata})

    def replace_status(self, obj: dict[str, Any]) -> None:
        """Write a status as the controller does. Raises: ApiError."""
        path = path_of(obj["kind"], self.namespace, obj["metadata"]["name"], "status")
        self.server.request("PUT", path, obj)
