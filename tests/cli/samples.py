"""Objects as the controller leaves them."""

from __future__ import annotations

from typing import Any

from controller.resources.admission import admit
from controller.store.base import Resource
from controller.store.database import Database

API = "codeswarm.dev/v1alpha1"
AT = "2020-01-02T03:04:05.000000Z"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def manifest(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> Resource:
    """An object as a person writes it."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def seed(db: Database, obj: Resource, status: dict[str, Any] | None = None) -> Resource:
    """Store an object, and its status as made from its present generation."""
    stored = db.create(admit(obj))
    if status is None:
        return stored
    generation = stored["metadata"]["generation"]
    stored["status"] = {"observedGeneration": generation, **status}
    return db.update_status(stored)


def set_status(db: Database, obj: Resource, **status: Any) -> Resource:
    """Change some fields of the status."""
    from controller.store.base import key_of

    now = db.get(key_of(obj))
    assert now is not None
    now["status"] = {
        **(now.get("status") or {}),
        "observedGeneration": now["metadata"]["generation"],
        **status,
    }
    return db.update_status(now)


def condition(type_: str, status: str, reason: str = "Because", message: str = "") -> Resource:
    """One condition."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": AT,
    }


def swarm(name: str = "builders", replicas: int = 2, **metadata: Any) -> Resource:
    """A Swarm of scripted workers."""
    spec = {"replicas": replicas, "agent": {"runtime": "mock"}, "provider": {"local": {}}}
    return manifest("Swarm", name, spec, **metadata)


def swarm_status(**more: Any) -> dict[str, Any]:
    """The status of a swarm of two, one at work."""
    return {
        "phase": "Running",
        "ready": "2/2",
        "readyReplicas": 2,
        "busyReplicas": 1,
        "idleReplicas": 1,
        "effective": {"agent": {"runtime": "mock"}, "provider": {"local": {}}},
        "conditions": [condition("Accepted", "True"), condition("Ready", "True", "WorkersReady")],
        "workers": [
            _worker(0, "Busy", task="greeter.library"),
            _worker(1, "Idle"),
        ],
        **more,
    }


def _worker(index: int, phase: str, **more: str) -> dict[str, Any]:
    job = f"builders-1a2b3c4d-{index}-{index + 1}"
    return {"index": index, "job": job, "phase": phase, "readyAt": AT, **more}


def project(name: str = "greeter", **spec: Any) -> Resource:
    """A Project of two tasks, one after the other."""
    tasks = [
        {"name": "library", "title": "Greeting library", "prompt": "Write it."},
        {"name": "command", "prompt": "Use it.", "dependsOn": ["library"]},
    ]
    whole = {
        "repository": {"url": "./greeter.git"},
        "workers": [{"swarm": "builders"}],
        "tasks": tasks,
        **spec,
    }
    return manifest("Project", name, whole)


def project_status(**more: Any) -> dict[str, Any]:
    """A project that runs."""
    return {
        "phase": "Running",
        "progress": "0/2",
        "branch": "codeswarm/greeter/integration",
        "tasks": {"total": 2, "running": 1, "waiting": 1},
        "conditions": [condition("Accepted", "True")],
        **more,
    }


def task(name: str, depends_on: tuple[str, ...] = (), **spec: Any) -> Resource:
    """A project's task, by its object's name."""
    project_name, _, short = name.partition(".")
    whole: dict[str, Any] = {"project": project_name, "prompt": f"Do {short}.", **spec}
    if depends_on:
        whole["dependsOn"] = list(depends_on)
    return manifest("Task", name, whole, labels={"codeswarm.dev/project": project_name})


def prompt(name: str, text: str = "Say hello.", **spec: Any) -> Resource:
    """A prompt to a swarm."""
    return manifest("Task", name, {"target": {"swarm": "builders"}, "prompt": text, **spec})


def attempt(number: int = 1, state: str = "Running", **more: Any) -> dict[str, Any]:
    """One attempt at worker 0."""
    return {
        "number": number,
        "state": state,
        "swarm": "builders",
        "worker": 0,
        "job": "builders-1a2b3c4d-0-1",
        "assignedAt": AT,
        "startedAt": AT,
        **more,
    }
