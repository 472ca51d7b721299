"""Objects to store, and ways to be another user or another process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controller.store.apply import ApplyRequest
from controller.store.base import Conflict, Key, Resource
from controller.store.database import Database

API = "codeswarm.dev/v1alpha1"
NOBODY = 65534


def task(
    name: str, spec: Any = None, *, owner: Resource | None = None, **metadata: Any
) -> Resource:
    """A Task as a caller would create it."""
    meta: dict[str, Any] = {"name": name, **metadata}
    if owner is not None:
        meta["ownerReferences"] = [reference(owner)]
    return {"apiVersion": API, "kind": "Task", "metadata": meta, "spec": spec or {"prompt": "go"}}


def project(name: str, **metadata: Any) -> Resource:
    """A Project as a caller would create it."""
    return {**task(name, {"goal": "done"}, **metadata), "kind": "Project"}


def reference(owner: Resource) -> dict[str, Any]:
    """An ownerReference to a stored object."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def key(name: str, kind: str = "Task", namespace: str = "default") -> Key:
    """The key of an object of the default namespace."""
    return Key(kind, namespace, name)


def revision_of(obj: Resource) -> int:
    """Its resourceVersion as a number."""
    return int(obj["metadata"]["resourceVersion"])


def request(manifest: Resource, schema: Any = None) -> ApplyRequest:
    """Apply without admission."""
    return ApplyRequest(manifest, lambda merged, live: merged, schema)


def names(objects: list[Resource]) -> list[str]:
    """The names of objects, in order."""
    return [obj["metadata"]["name"] for obj in objects]


def insist(database: Database, name: str, change: Callable[[Resource], None]) -> int:
    """Read, change, update until no conflict; how many conflicts there were."""
    conflicts = 0
    while True:
        obj = database.get(key(name))
        assert obj is not None
        change(obj)
        try:
            database.update(obj)
        except Conflict:
            conflicts += 1
        else:
            return conflicts


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition inside the event loop."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.002)


def in_child(work: Callable[[], str], *, uid: int | None = None) -> str:
    """What ``work`` returns in a forked process, as another user if ``uid`` is given."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(out)
            if uid is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            text = work()
        except BaseException:
            text = traceback.format_exc()
        os.write(into, text.encode())
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A Python process that runs ``code``, its input and output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
