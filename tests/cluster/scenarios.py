"""Scenarios that must end alike in both homes (``cases/*.yaml``), and how they are driven.

A scenario has ``objects`` (``Kind/name``: a spec; of Secrets and ConfigMaps what stands beside
the metadata), ``until`` (what their statuses come to; ``gone``: what is not there any more), and
``then``: further steps (``apply``, ``patch``, ``annotate``, ``delete``, ``repositories``), each
with an ``until`` of its own.  ``cluster`` is what a cluster comes to instead, where one home
cannot do what the other one does.  ``order`` is that in which Tasks were given to workers.

In objects ``write: [a]`` is a prompt that writes ``a.txt``, ``script`` one with these steps, and
``{root}`` the home's folder.  A Project has a repository of its own name and the swarm ``one``.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.resources import kinds
from tests.cluster.homes import Home, Name, Objects

CASES = Path(__file__).parent / "cases"
QUIET_SECONDS = 2.5
"""So long nothing is written in the end: longer than counts may wait to be written."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Step:
    """Something that a person does, and what it comes to."""

    apply: Mapping[str, Any] = field(default_factory=dict)
    patch: Mapping[str, Any] = field(default_factory=dict)
    annotate: Mapping[str, Any] = field(default_factory=dict)
    delete: Iterable[str] = ()
    repositories: Iterable[str] = ()
    until: Mapping[str, Any] = field(default_factory=dict)
    cluster: Mapping[str, Any] | None = None
    gone: Iterable[str] = ()


@dataclass(frozen=True)
class Scenario:
    """One scenario."""

    name: str
    steps: tuple[Step, ...]
    order: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    branches: Mapping[str, str] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """A home cannot do what the other one does."""
        return any(step.cluster is not None for step in self.steps)

    def owns(self, obj: Mapping[str, Any]) -> bool:
        """Whether an object belongs to this scenario."""
        name = str(obj["metadata"]["name"])
        if name.startswith("routed-"):
            name = str(obj["metadata"]["annotations"]["codeswarm.dev/routed-from"])
        return name == self.name or name.startswith((f"{self.name}.", f"{self.name}-"))


def load() -> list[Scenario]:
    """All scenarios."""
    found = []
    for file in sorted(CASES.glob("*.yaml"), reverse=True):
        for raw in yaml.safe_load(file.read_text()):
            found.append(_scenario(raw))
    return found


def parameters() -> list[Any]:
    """The scenarios as pytest's parameters."""
    return [pytest.param(scenario, id=scenario.name) for scenario in load()]


def _scenario(raw: dict[str, Any]) -> Scenario:
    first = {key: raw[key] for key in ("until", "cluster", "gone") if key in raw}
    projects = [key.split("/")[1] for key in raw["objects"] if key.startswith("Project/")]
    repositories = raw.get("repositories", projects)
    begin = Step(apply=raw["objects"], repositories=repositories, **first)
    later = [Step(**step) for step in raw.get("then", ())]
    return Scenario(
        name=raw["name"],
        steps=(begin, *later),
        order=tuple(raw.get("order", ())),
        folders=tuple(raw.get("folders", ())),
        branches=raw.get("branches", {}),
    )


# --- objects -----------------------------------------------------------------------------------


def manifest(key: str, spec: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The manifest of an object as a scenario writes it."""
    kind, _, name = key.partition("/")
    body = complete(kind, name, spec, root)
    head = {"apiVersion": kinds.get(kind).api_version, "kind": kind, "metadata": {"name": name}}
    return {**head, "spec": body} if kinds.get(kind).group else {**head, **body}


def complete(kind: str, name: str, spec: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """A spec with what scenarios leave out."""
    defaults: dict[str, Any] = {}
    if kind == "Swarm":
        defaults = {"agent": {"runtime": "mock"}, "provider": {"local": {}}}
    elif kind == "Project":
        defaults = {
            "repository": {"url": f"{root}/{name}.git", "baseBranch": "main"},
            "workers": [{"swarm": "one"}],
            "integration": {"verify": []},
            "retry": {"limit": 1, "backoffSeconds": 0.1, "maxBackoffSeconds": 1},
        }
    whole = {**defaults, **spec}
    filled: dict[str, Any] = _filled({k: v for k, v in whole.items() if v is not None}, root)
    return filled


def _filled(value: Any, root: Path) -> Any:
    if isinstance(value, list):
        return [_filled(item, root) for item in value]
    if isinstance(value, str):
        return value.replace("{root}", str(root))
    if not isinstance(value, dict):
        return value
    rest = {k: _filled(v, root) for k, v in value.items() if k not in ("write", "script")}
    steps = [f'write: {{path: {f}.txt, content: "{f}\\n"}}' for f in value.get("write", ())]
    steps += value.get("script", ())
    if steps:
        lines = "\n".join(f"- {step}" for step in steps)
        field_ = "specification" if "swarm" in value else "prompt"
        rest[field_] = f"Do this.\n```mock\n{lines}\n```\n"
    return rest


# --- expectations --------------------------------------------------------------------------------


def unmet(step: Step, objects: Objects, *, cluster: bool) -> str:
    """The first expectation of a step that does not hold, in words; empty if all do."""
    expected = step.cluster if cluster and step.cluster is not None else step.until
    for key, wanted in expected.items():
        found = select(objects, key)
        if not found:
            return f"there is no {key}"
        for name, obj in found:
            problem = _differs(wanted, obj.get("status") or {})
            if problem:
                return f"{name}: {problem}"
    there = [name for key in step.gone for name, _ in select(objects, key)]
    return f"{there[0]} is still there" if there else ""


def select(objects: Objects, key: str) -> list[tuple[Name, dict[str, Any]]]:
    """The objects of a key, whose name may end in a star."""
    kind, _, pattern = key.partition("/")
    return [
        (name, obj)
        for name, obj in objects.items()
        if name[0] == kind and fnmatch.fnmatchcase(name[1], pattern)
    ]


def _differs(wanted: Any, found: Any, path: str = "status") -> str:
    if isinstance(wanted, dict) and path.endswith(".conditions"):
        told = {c["type"]: f"{c['status']} {c['reason']}" for c in found or ()}
        return _differs({k: str(v) for k, v in wanted.items()}, told, f"{path}[]")
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            there = (found or {}).get(name)
            problem = _differs(value, there, f"{path}.{name}")
            if problem:
                return problem
        return ""
    if isinstance(found, list):
        found = len(found)
    return "" if wanted == found else f"{path} is {found!r}, not {wanted!r}"


# --- driving -------------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a scenario is in one home."""

    scenario: Scenario
    begun: int = 0
    """Steps that were begun."""
    waits: str = "it has not begun"

    @property
    def done(self) -> bool:
        """Everything came to what it had to come to."""
        return self.begun == len(self.scenario.steps) and not self.waits


class Drive:
    """All scenarios at once in one home."""

    def __init__(self, home: Home, scenarios: Iterable[Scenario]) -> None:
        self.home = home
        self.progress = [Progress(scenario) for scenario in scenarios]
        self.objects: Objects = {}
        self._quiet_since = time.monotonic()

    @property
    def finished(self) -> bool:
        """All scenarios are at their end, and nothing has been written for a while."""
        at_end = all(progress.done for progress in self.progress)
        return at_end and time.monotonic() - self._quiet_since > QUIET_SECONDS

    def look(self) -> None:
        """Take the next step of each scenario that is ready for it."""
        objects = self.home.objects()
        if _versions(objects) != _versions(self.objects):
            self._quiet_since = time.monotonic()
        self.objects = objects
        for progress in self.progress:
            steps = progress.scenario.steps
            if progress.begun:
                step = steps[progress.begun - 1]
                progress.waits = unmet(step, objects, cluster=self.home.in_cluster)
            if progress.begun < len(steps) and (not progress.begun or not progress.waits):
                self._begin(progress.scenario, steps[progress.begun], first=not progress.begun)
                progress.begun += 1
                progress.waits = "its step has begun"

    def _begin(self, scenario: Scenario, step: Step, *, first: bool) -> None:
        home, root = self.home, self.home.root
        for name in step.repositories:
            home.repository(f"{name}.git", branch=scenario.branches.get(name, ""))
        if first:
            for name in scenario.folders:
                (root / name).mkdir()
        home.apply(*(manifest(key, spec, root) for key, spec in step.apply.items()))
        for key, change in step.patch.items():
            for (kind, name), _ in select(self.objects, key) or _by_name(key):
                body = _filled(dict(change), root)
                home.patch(kind, name, {"spec": body} if kinds.get(kind).group else body)
        for key, change in step.annotate.items():
            for (kind, name), _ in select(self.objects, key):
                home.patch(kind, name, {"metadata": {"annotations": change}})
        for key in step.delete:
            for (kind, name), _ in select(self.objects, key):
                home.delete(kind, name)


def _by_name(key: str) -> list[tuple[Name, dict[str, Any]]]:
    """What is not looked at, such as a Secret, by its exact name."""
    kind, _, name = key.partition("/")
    return [((kind, name), {})]


def _versions(objects: Objects) -> dict[Name, str]:
    return {name: obj["metadata"]["resourceVersion"] for name, obj in objects.items()}


def drive(drives: Iterable[Drive], deadline: float) -> None:
    """Take all to their end, or as far as they come within ``deadline`` seconds."""
    all_drives = list(drives)
    end = time.monotonic() + deadline
    while time.monotonic() < end and not all(one.finished for one in all_drives):
        for one in all_drives:
            one.look()
        time.sleep(POLL_SECONDS)
