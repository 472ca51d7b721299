"""A namespace with a controller, all its history, and kubectl."""

from __future__ import annotations

from typing import Any

from tests.cluster.history import History
from tests.cluster.homes import ClusterHome
from tests.kube import KubeLab
from tests.lab import project


class World:
    """A namespace with a controller, and everything that happened in it."""

    def __init__(self, lab: KubeLab, history: History) -> None:
        self.lab, self.history = lab, history
        self.home = ClusterHome(lab)

    def project(self, name: str, *tasks: dict[str, Any], **spec: Any) -> dict[str, Any]:
        """A project with a repository of its own."""
        self.home.repository(f"{name}.git")
        where = {"url": f"{self.home.root}/{name}.git", "baseBranch": "main"}
        return project(name, tasks, repository=where, **spec)

    def kubectl(self, *args: str, text: str = "", code: int = 0) -> str:
        """What kubectl prints, if it ends with ``code``."""
        done = self.lab.cluster.kubectl(*args, text=text, namespace=self.lab.namespace)
        assert done.returncode == code, f"{args}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def events(self, kind: str, name: str) -> list[tuple[str, str, int]]:
        """Type, reason and count of what was told of an object."""
        found = [e for e in self.lab.list("Event") if e["involvedObject"]["kind"] == kind]
        mine = [e for e in found if e["involvedObject"]["name"] == name]
        return [(e["type"], e["reason"], e["count"]) for e in mine]
