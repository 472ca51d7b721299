"""Real worker processes and real git repositories for the tests of this folder."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.mailbox import append_line, poke

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds; a deadline, not a pause

Event = dict[str, Any]


def until(what: Callable[[], Any], why: str = "", patience: float = PATIENCE) -> Any:
    """Poll until ``what`` gives something true, and return that."""
    deadline = time.monotonic() + patience
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"timed out waiting {why}"
        time.sleep(0.005)


class Worker:
    """One worker folder, and the process in it."""

    def __init__(self, base: Path, **config: Any) -> None:
        self.base = base
        base.mkdir(parents=True, exist_ok=True)
        self.job = config.setdefault("job", "builders-12345678-0-1")
        self.config = {"index": 0, "runtime": "mock", "agent": {}, "node": "here", **config}
        self.config.setdefault("stores", str(base.parent / "stores"))
        (base / "worker.json").write_text(json.dumps(self.config))
        self.inbox = base / "mailbox" / "inbox" / f"{self.job}_00.jsonl"
        self.outbox = base / "mailbox" / "outbox" / f"{self.job}_00.jsonl"
        self.process: subprocess.Popen[bytes] | None = None
        self.argv: Sequence[str] = (sys.executable, "-m", "worker")
        self.env: Mapping[str, str] = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        self._numbers = itertools.count(1)

    @property
    def repo(self) -> Path:
        return self.base / "repo"

    def spawn(self) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **self.env}
        log = self.base / "worker.log"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [*self.argv, str(self.base)], env=env, stdout=file, stderr=file, cwd=self.base
            )
        return self.process

    def start(self) -> Worker:
        before = self.count("thread_status")
        self.spawn()
        until(
            lambda: [
                e for e in self.events("thread_status")[before:] if e["data"]["status"] == "idle"
            ],
            f"for idle; log: {self.log()}",
        )
        return self

    def log(self) -> str:
        path = self.base / "worker.log"
        return path.read_text() if path.exists() else ""

    def lines(self) -> list[bytes]:
        data = self.outbox.read_bytes() if self.outbox.exists() else b""
        return data.split(b"\n")[:-1]

    def events(self, event: str | None = None, injection: str | None = None) -> list[Event]:
        found = []
        for line in self.lines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if event in (None, record["event"]) and injection in (None, record["injection_id"]):
                found.append(record)
        return found

    def count(self, event: str) -> int:
        return len(self.events(event))

    def write(self, record: Mapping[str, Any]) -> None:
        self.inbox.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.inbox, json.dumps(record).encode())
        poke(self.inbox.parent / "wake", b".")

    def control(self, action: str, epoch: int = 1, **payload: Any) -> None:
        self.write({"type": "control", "epoch": epoch, "payload": {"action": action, **payload}})

    def prompt(self, content: str, **more: Any) -> str:
        """Send a prompt; its injection."""
        record = user(content, f"uid.{next(self._numbers)}")
        record.update(more)
        self.write(record)
        return str(record["injection_id"])

    def wait(self, event: str, injection: str | None = None) -> Event:
        found: list[Event] = until(
            lambda: self.events(event, injection),
            f"for {event} of {injection}; log: {self.log()}; events: {self.events()[-5:]}",
        )
        return found[-1]

    def outcome(self, injection: str) -> Event:
        """The data of a turn's ``turn_complete``."""
        found: Event = self.wait("turn_complete", injection)["data"]
        return found

    def ask(self, content: str, **more: Any) -> Event:
        return self.outcome(self.prompt(content, **more))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def user(content: str, injection: str, **task: Any) -> dict[str, Any]:
    """A user record without a repository."""
    named = {"name": "task", "uid": "uid", "kind": "prompt", "attempt": 1, **task}
    return {
        "type": "user",
        "epoch": 1,
        "injection_id": injection,
        "content": content,
        "task": named,
    }


def block(*steps: Any, before: str = "Do it.") -> str:
    """A prompt with a mock block (JSON is YAML)."""
    listed = "\n".join(f"- {json.dumps(step)}" for step in steps)
    return f"{before}\n\n```mock\n{listed}\n```\n"


def git(*args: str, cwd: Path) -> str:
    """Run git as a user would; its output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    people = {
        f"GIT_{who}_{what}": f"tester-{what.lower()}"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", *args], cwd=cwd, env={**env, **people}, check=True, capture_output=True, timeout=60
    )
    return done.stdout.decode().strip()


class Repository:
    """A bare remote with one branch ``main``, and a way to put more into it."""

    def __init__(self, path: Path, files: Mapping[str, str] | None = None) -> None:
        self.path = path
        path.mkdir(parents=True)
        git("init", "-q", "--bare", "-b", "main", cwd=path)
        self.base = self.commit("main", files or {"README.md": "hello\n"})

    def commit(self, branch: str, files: Mapping[str, str | None], start: str = "") -> str:
        """Add a commit with these files (None removes one) to a branch; its hash."""
        clone = self.path.with_name(self.path.name + ".clone")
        if not clone.exists():
            clone.mkdir()
            git("init", "-q", "-b", "scratch", cwd=clone)
            git("remote", "add", "origin", str(self.path), cwd=clone)
        git("fetch", "-q", "origin", cwd=clone)
        if start:
            git("checkout", "-q", "--detach", start, cwd=clone)
        for name, content in files.items():
            target = clone / name
            if content is None:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        git("add", "-A", cwd=clone)
        git("commit", "-q", "-m", f"change {branch}", cwd=clone)
        git(
            "push",
            "-q",
            "origin",
            f"HEAD:{branch if branch.startswith('refs/') else 'refs/heads/' + branch}",
            cwd=clone,
        )
        return git("rev-parse", "HEAD", cwd=clone)

    def refs(self) -> dict[str, str]:
        lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.path)
        return dict(line.split(" ") for line in lines.splitlines())

    def show(self, commit: str, name: str) -> str:
        return git("show", f"{commit}:{name}", cwd=self.path)

    def log(self, commit: str) -> str:
        """A commit's message."""
        return git("log", "-1", "--format=%B", commit, cwd=self.path)

    def files(self, commit: str) -> list[str]:
        return git("ls-tree", "-r", "--name-only", commit, cwd=self.path).splitlines()

    def parents(self, commit: str) -> list[str]:
        return git("rev-list", "--parents", "-n1", commit, cwd=self.path).split()[1:]

    def work(
        self,
        injection: str,
        content: str,
        *,
        kind: str = "work",
        attempt: int = 1,
        base: str = "",
        dependencies: Sequence[Mapping[str, str]] = (),
        expected: str | None = None,
        name: str = "library",
        integration: Mapping[str, Any] | None = None,
        push: bool = True,
    ) -> dict[str, Any]:
        """A user record of a project's task; ``expected`` None: where the branch is now."""
        uid = f"uid-{name}"
        repository = {
            "url": str(self.path),
            "project_uid": "p-1",
            "base_branch": "main",
            "base_commit": base or self.base,
            "dependencies": list(dependencies),
        }
        if push:
            repository["attempt_ref"] = f"refs/codeswarm/{uid}/{attempt}"
            repository["branch"] = f"codeswarm/greeter/{name}"
            now = self.refs().get(f"refs/heads/codeswarm/greeter/{name}", "")
            repository["expected"] = now if expected is None else expected
        task = {"project": "greeter", "task_id": name, "title": f"The {name}"}
        record = user(
            content, injection, kind=kind, attempt=attempt, name=f"greeter.{name}", uid=uid, **task
        )
        record["repository"] = repository
        if integration is not None:
            record["integration"] = integration
        return record


def head(task: str, commit: str, ref: str = "") -> dict[str, str]:
    """A dependency or merge reference."""
    return {"task": task, "commit": commit, "ref": ref or f"refs/heads/{task}"}
