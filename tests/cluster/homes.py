"""The two homes behind one face, for tests that do the same in both."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from controller.resources import kinds
from controller.resources.admission import admit
from controller.store.apply import ApplyRequest
from controller.store.base import Key
from controller.store.kube_rest import path_of
from tests.kube import KubeLab
from tests.lab import Lab, git

Name = tuple[str, str]
"""Kind and name of an object."""
Objects = dict[Name, dict[str, Any]]
Event = tuple[str, str, str, str]
"""Kind and name of an object, type and reason of what was told of it."""
SHOWN = ("Swarm", "SwarmClass", "Project", "Task", "Approval", "ConfigMap")
SERVER_MADE = frozenset({"kube-root-ca.crt"})


class Home(Protocol):
    """What a person can do in a home."""

    in_cluster: bool

    @property
    def root(self) -> Path:
        """The folder of its repositories."""
        ...

    @property
    def said(self) -> str:
        """The controller's log."""
        ...

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make new objects."""
        ...

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Change an object by a merge patch (RFC 7386)."""
        ...

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, or begin to."""
        ...

    def objects(self) -> Objects:
        """All there are, Secrets apart."""
        ...

    def events(self) -> set[Event]:
        """What was told of objects."""
        ...

    def repository(self, name: str, branch: str = "") -> None:
        """Make a bare repository with one commit on ``main``, and perhaps another branch."""
        ...


class _Repositories:
    """Repositories are copies of one: that is faster than making each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._model = root / "model"

    def repository(self, name: str, branch: str = "") -> None:
        """As ``Home.repository``."""
        if not self._model.exists():
            git("init", "--quiet", "--bare", "--initial-branch=main", str(self._model))
            work = self.root / "work"
            git("clone", "--quiet", str(self._model), str(work))
            git("-C", str(work), "commit", "--quiet", "--allow-empty", "-m", "Begin")
            git("-C", str(work), "push", "--quiet", "origin", "HEAD:main")
        making = self.root / f"making-{name}"
        shutil.copytree(self._model, making)
        if branch:
            git("-C", str(making), "branch", branch, "main")
        making.rename(self.root / name)


class FileHome(_Repositories):
    """A file home with a controller."""

    in_cluster = False

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.path)
        self.lab = lab

    @property
    def said(self) -> str:
        """As ``Home.said``."""
        return self.lab.log.read_text()

    def apply(self, *objects: dict[str, Any]) -> None:
        """As ``Home.apply``."""
        requests = []
        for obj in objects:
            metadata = {**obj["metadata"], "namespace": "default"}
            if kinds.get(obj["kind"]).group:
                metadata["annotations"] = {"codeswarm.dev/base-dir": str(self.root)}
            requests.append(request_of({**obj, "metadata": metadata}))
        self.lab.db.apply_many(requests)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """As ``Home.patch``."""
        self.lab.patch(kind, name, lambda obj: obj.update(merged(obj, change)))

    def delete(self, kind: str, name: str) -> None:
        """As ``Home.delete``."""
        self.lab.db.delete(Key(kind, "default", name))

    def objects(self) -> Objects:
        """As ``Home.objects``."""
        found = [obj for kind in SHOWN for obj in self.lab.db.list(kind)]
        return {(obj["kind"], obj["metadata"]["name"]): obj for obj in found}

    def events(self) -> set[Event]:
        """As ``Home.events``."""
        found = self.lab.db.events()
        return {(one.key.kind, one.key.name, one.type, one.reason) for one in found}


class ClusterHome(_Repositories):
    """A namespace with a controller."""

    in_cluster = True

    def __init__(self, lab: KubeLab) -> None:
        super().__init__(lab.path)
        self.lab = lab

    @property
    def said(self) -> str:
        """As ``Home.said``."""
        return self.lab.text()

    def apply(self, *objects: dict[str, Any]) -> None:
        """As ``Home.apply``, with strict field validation."""
        for obj in objects:
            path = f"{path_of(obj['kind'], self.lab.namespace)}?fieldValidation=Strict"
            self.lab.cluster.request("POST", path, obj)

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """As ``Home.patch``."""
        self.lab.patch(kind, name, change)

    def delete(self, kind: str, name: str) -> None:
        """As ``Home.delete``."""
        self.lab.delete(kind, name)

    def objects(self) -> Objects:
        """As ``Home.objects``."""
        found: Objects = {}
        for kind in SHOWN:
            for obj in self.lab.list(kind):
                name = obj["metadata"]["name"]
                if name not in SERVER_MADE:
                    found[kind, name] = {"kind": kind, **obj}
        return found

    def events(self) -> set[Event]:
        """As ``Home.events``."""
        found = set()
        for one in self.lab.list("Event"):
            about = one["involvedObject"]
            found.add((about["kind"], about["name"], one["type"], one["reason"]))
        return found


def request_of(obj: dict[str, Any]) -> ApplyRequest:
    """An apply of a manifest as the CLI makes it."""
    group = kinds.get(obj["kind"]).group
    return ApplyRequest(obj, admit, kinds.open_api_schema(obj["kind"]) if group else None)


def merged(value: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` after a merge patch."""
    result = dict(value)
    for name, new in change.items():
        if new is None:
            result.pop(name, None)
        elif isinstance(new, Mapping):
            below = result.get(name)
            result[name] = merged(below if isinstance(below, Mapping) else {}, new)
        else:
            result[name] = new
    return result
