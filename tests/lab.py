"""A whole Codeswarm in one folder, for tests and benchmarks: controller, workers, repositories.

Everything is real: processes, files, git.  Whatever was started is ended by ``close``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from controller.resources.admission import admit
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock
from controller.store.apply import ApplyRequest
from controller.store.base import Key, Resource
from controller.store.database import Database
from tests.processes import having

API = "codeswarm.dev/v1alpha1"
DEADLINE = 30.0


class Timeout(AssertionError):
    """What was waited for did not come; the text says what there was instead."""


class Lab:
    """One home below ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = Home.at(path / "home").ensure()
        self.workspaces = self.home.workspaces
        self.db = Database(self.home.state)
        self.log = path / "controller.log"
        self._controller: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- the controller ------------------------------------------------------------------------

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        """Start the controller and wait until it is up."""
        environment = {**os.environ, "CODESWARM_HOME": str(self.home.root), **variables}
        with self.log.open("ab") as log:
            self._controller = subprocess.Popen(
                [sys.executable, "-m", "controller.runtime.local"],
                env=environment,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        process = self._controller
        self.wait(lambda: process.poll() is not None or self._up(), "the controller to be up")
        return process

    def _up(self) -> bool:
        holder = ControllerLock(self.home).holder()
        return holder is not None and holder.epoch > 0

    @property
    def controller(self) -> subprocess.Popen[bytes]:
        """The running controller."""
        assert self._controller is not None
        return self._controller

    def kill(self) -> None:
        """``kill -9`` of the controller."""
        self.controller.kill()
        self.controller.wait()

    def stop(self) -> None:
        """Stop the controller gracefully, if it runs."""
        if self._controller is not None and self._controller.poll() is None:
            self._controller.send_signal(signal.SIGTERM)
            self._controller.wait(20)

    def close(self) -> None:
        """End every process and close what is open."""
        if self._controller is not None and self._controller.poll() is None:
            self._controller.kill()
            self._controller.wait()
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.01)  # on a busy machine even those that were killed take a moment
        self.db.close()

    def processes(self) -> list[psutil.Process]:
        """Workers of this lab, and whatever descends from them."""
        return having("CODESWARM_BASE_DIR", str(self.workspaces))

    def worker_pid(self, swarm: str, index: int) -> int:
        """The process of a worker."""
        for row in self.status(Key("Swarm", "default", swarm)).get("workers", ()):
            if row["index"] == index and row.get("handle", "").startswith("pid "):
                return int(row["handle"].removeprefix("pid "))
        raise AssertionError(f"no process for {swarm}/{index}")

    # --- objects -----------------------------------------------------------------------------

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply manifests as the CLI does, in one transaction."""
        requests = []
        for obj in objects:
            meta = obj["metadata"]
            meta.setdefault("namespace", "default")
            meta.setdefault("annotations", {})["codeswarm.dev/base-dir"] = str(self.path)
            requests.append(ApplyRequest(obj, admit=admit, schema=None))
        self.db.apply_many(requests)

    def get(self, kind: str, name: str) -> Resource:
        """An object that must be there."""
        found = self.db.get(Key(kind, "default", name))
        assert found is not None, f"no {kind} {name}"
        return found

    def status(self, key: Key) -> dict[str, Any]:
        """An object's status; empty while there is none."""
        return (self.db.get(key) or {}).get("status") or {}

    def task(self, name: str) -> dict[str, Any]:
        """A Task's status."""
        return self.status(Key("Task", "default", name))

    def project(self, name: str) -> dict[str, Any]:
        """A Project's status."""
        return self.status(Key("Project", "default", name))

    def swarm(self, name: str) -> dict[str, Any]:
        """A Swarm's status."""
        return self.status(Key("Swarm", "default", name))

    def condition(self, kind: str, name: str, type: str) -> dict[str, Any]:
        """One condition of an object; empty while there is none."""
        conditions = self.status(Key(kind, "default", name)).get("conditions") or ()
        return next((c for c in conditions if c["type"] == type), {})

    def patch(self, kind: str, name: str, change: Callable[[Resource], None]) -> None:
        """Change an object as a client does, again on a conflict."""
        from controller.store.base import Conflict

        for _ in range(50):
            obj = self.get(kind, name)
            change(obj)
            try:
                self.db.update(admit(obj, self.get(kind, name)))
            except Conflict:
                continue
            return
        raise AssertionError(f"{kind} {name} changes all the time")

    # --- waiting -----------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
        """Poll until a condition holds; its value. Raises: Timeout."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise Timeout(f"waited {deadline} s for {what}\n{self.picture()}")

    def wait_phase(self, kind: str, name: str, *phases: str, deadline: float = DEADLINE) -> None:
        """Wait until an object is in one of the phases."""
        key = Key(kind, "default", name)
        self.wait(
            lambda: self.status(key).get("phase") in phases,
            f"{kind} {name} to be {' or '.join(phases)}",
            deadline,
        )

    def picture(self) -> str:
        """What there is, for a failure's message."""
        lines = []
        for kind in ("Swarm", "Project", "Task"):
            for obj in self.db.list(kind)[:40]:
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
        log = self.log.read_text()[-3000:] if self.log.exists() else ""
        return "\n".join([*lines, "--- log ---", log])

    # --- repositories ------------------------------------------------------------------------

    def repository(self, name: str = "repo.git", files: dict[str, str] | None = None) -> Path:
        """A bare repository with one commit on ``main``; it appears complete."""
        making, path = self.path / f"making-{name}", self.path / name
        git("init", "--quiet", "--bare", "--initial-branch=main", str(making))
        self.commit(making, files or {"README.md": "# Here\n"}, "Begin")
        return making.rename(path)

    def commit(self, repository: Path, files: dict[str, str], message: str = "Change") -> str:
        """Add a commit to ``main`` of a repository, from elsewhere; its hash."""
        clone = self.path / f"clone-{time.monotonic_ns()}"
        git("clone", "--quiet", str(repository), str(clone))
        for name, text in files.items():
            file = clone / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git("-C", str(clone), "add", "--all")
        git("-C", str(clone), "commit", "--quiet", "-m", message)
        git("-C", str(clone), "push", "--quiet", "origin", "HEAD:main")
        return git("-C", str(clone), "rev-parse", "HEAD")


def git(*arguments: str) -> str:
    """Run git as a person would; what it printed."""
    environment = {
        **os.environ,
        "GIT_AUTHOR_NAME": "You",
        "GIT_AUTHOR_EMAIL": "you@example.com",
        "GIT_COMMITTER_NAME": "You",
        "GIT_COMMITTER_EMAIL": "you@example.com",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    result = subprocess.run(
        ["git", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"git {' '.join(arguments)}: {result.stderr}"
    return result.stdout.strip()


def refs(repository: Path) -> dict[str, str]:
    """All refs of a repository."""
    lines = git("-C", str(repository), "for-each-ref", "--format=%(refname) %(objectname)")
    return dict(line.split(" ", 1) for line in lines.splitlines())


# --- manifests ---------------------------------------------------------------------------------


def swarm(name: str = "builders", replicas: int = 2, **spec: Any) -> dict[str, Any]:
    """A swarm of scripted workers on this machine."""
    return {
        "apiVersion": API,
        "kind": "Swarm",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "agent": {"runtime": "mock"},
            "provider": {"local": {}},
            **spec,
        },
    }


def project(
    name: str = "demo", tasks: Iterable[dict[str, Any]] = (), **spec: Any
) -> dict[str, Any]:
    """A project on ``repo.git`` with the swarm ``builders``."""
    listed = list(tasks)
    body: dict[str, Any] = {
        "repository": {"url": "./repo.git", "baseBranch": "main"},
        "workers": [{"swarm": "builders"}],
        "integration": {"verify": []},
        "retry": {"limit": 1, "backoffSeconds": 0.1, "maxBackoffSeconds": 1},
        **({"tasks": listed} if listed else {}),
        **spec,
    }
    return {"apiVersion": API, "kind": "Project", "metadata": {"name": name}, "spec": body}


def work(name: str, *steps: str, depends_on: Iterable[str] = (), **spec: Any) -> dict[str, Any]:
    """A project's task that writes ``<name>.txt`` and does further scripted steps."""
    lines = [f'- write: {{path: {name}.txt, content: "{name}\\n"}}', *(f"- {s}" for s in steps)]
    script = "\n".join(lines)
    task: dict[str, Any] = {"name": name, "prompt": f"Do {name}.\n```mock\n{script}\n```\n", **spec}
    if depends_on:
        task["dependsOn"] = list(depends_on)
    return task


def prompt(name: str, text: str = "Hello.", swarm: str = "builders", **spec: Any) -> dict[str, Any]:
    """A prompt to the first idle worker."""
    target = spec.pop("target", {"swarm": swarm, "workers": "idle"})
    return {
        "apiVersion": API,
        "kind": "Task",
        "metadata": {"name": name},
        "spec": {"target": target, "prompt": text, **spec},
    }


def script(*steps: str) -> str:
    """A prompt that is a script for the mock agent."""
    return "Do this.\n```mock\n" + "\n".join(f"- {step}" for step in steps) + "\n```\n"
