"""A lab on a cluster whose controller may die, or whose way to the API server is broken."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, ClassVar

import urllib3

from tests.cluster import tuned
from tests.faults import crashing
from tests.faults.support import Mortal
from tests.kube import ApiError, KubeLab
from tests.lab import git, project

QUICK_LEASE = {
    "controller.runtime.lease:DURATION_SECONDS": 6,
    "controller.runtime.lease:RENEW_SECONDS": 1,
    "controller.runtime.lease:MARGIN_SECONDS": 2,
    "controller.runtime.lease:POLL_SECONDS": 0.5,
}
"""A Lease's times, shorter than they are."""
_HTTP = re.compile(r"HTTP on (http://\S+)")
_SAID = re.compile(r"Traceback|inconsistencies|was never retrieved|Task was destroyed")


class KubeFaultLab(Mortal, KubeLab):
    """A lab that starts its controller again when it has died, as a pod's restart does."""

    times: ClassVar[dict[str, float]] = {}
    """What controllers are started with (see ``tuned``)."""

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a controller and wait until it is up, or has ended."""
        if self.times:
            variables = {tuned.VARIABLE: json.dumps(self.times), **variables}
            return self._start(("-m", tuned.__name__), *arguments, **variables)
        return self._start(("-m", "cli.main"), *arguments, **variables)

    def _start(
        self, program: tuple[str, ...], *arguments: str, **variables: str
    ) -> subprocess.Popen[bytes]:
        ups = self.text().count("controller is up")
        process = self.spawn(*arguments, program=program, **variables)
        self.wait(
            lambda: process.poll() is not None or self.text().count("controller is up") > ups,
            "the controller to be up",
        )
        return process

    def start_waiting(self) -> subprocess.Popen[bytes]:
        """Start a second controller, and wait until it waits."""
        waits = self.text().count("waiting for the lease")
        variables = {tuned.VARIABLE: json.dumps(self.times)} if self.times else {}
        program = ("-m", tuned.__name__) if self.times else ("-m", "cli.main")
        process = self.spawn(program=program, **variables)
        self.wait(lambda: self.text().count("waiting for the lease") > waits, "it to wait")
        return process

    def start_crashing(self, at: int | str) -> Path:
        """Start a controller that kills itself at a step; the log of its steps."""
        steps = self.path / f"steps {at}"
        variables = {crashing.AT: str(at), crashing.LOG: str(steps)}
        self._start(("-m", crashing.__name__), **variables)
        return steps

    def urls(self) -> list[str]:
        """Where the controllers serve HTTP, in the order of their start."""
        return _HTTP.findall(self.text())

    def ready(self, url: str) -> tuple[int, str]:
        """What a controller's ``/readyz`` says."""
        answer = urllib3.request("GET", f"{url}/readyz", timeout=5, retries=False)
        return answer.status, answer.data.decode()

    def touch(self, kind: str, name: str) -> None:
        """Have an object looked at now: a client changes an annotation."""
        word = str(time.monotonic_ns())
        self.patch(kind, name, {"metadata": {"annotations": {"touched": word}}})

    def repository(self, name: str = "repo.git") -> Path:
        """An empty bare repository."""
        path = self.path / name
        git("init", "--quiet", "--bare", "--initial-branch=main", str(path))
        return path

    def project(self, repository: Path, **spec: Any) -> dict[str, Any]:
        """A project on a repository of this machine."""
        return project(repository={"url": str(repository), "baseBranch": "main"}, **spec)

    def lease(self) -> dict[str, Any]:
        """The controller's Lease."""
        return self.cluster.request("GET", self.lease_path)

    @property
    def lease_path(self) -> str:
        """Its path."""
        group = "/apis/coordination.k8s.io/v1"
        return f"{group}/namespaces/{self.namespace}/leases/codeswarm-controller"

    def events(self, reason: str) -> list[dict[str, Any]]:
        """Events of a reason."""
        path = f"/api/v1/namespaces/{self.namespace}/events"
        found = self.cluster.request("GET", path).get("items") or []
        return [event for event in found if event["reason"] == reason]

    def check_log(self) -> None:
        """Nobody has said what only a programmer understands."""
        said = [line for line in self.text().splitlines() if _SAID.search(line)]
        assert not said, self.text()[-6000:]


def forgiving(lab: KubeLab, kind: str, name: str) -> None:
    """Delete an object, if it is there."""
    try:
        lab.delete(kind, name)
    except ApiError as error:
        assert error.status == 404, error


def signal_to(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process that this test started."""
    os.kill(process.pid, number)
