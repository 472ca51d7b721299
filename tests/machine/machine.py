"""A machine of the tests: this one, with the worker's real file and real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.worker.harness import PATIENCE, until
from worker.attendant.files import make_job
from worker.machine import tree

SWARM = ("default", "cloud-0f1e2d3c")
JOB = "cloud-0f1e2d3c-0-1"
NODE, COORDINATOR = "i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb"


class Machine:
    """Orders to this machine, as a controller gives them.

    Args:
        root: ``workspaceRoot``.
        program: the worker's file.
        env: further variables of the login.
    """

    def __init__(self, root: Path, program: Path, env: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.program = program
        self.env = {
            "HOME": str(root.parent),
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **(env or {}),
        }
        self.python = sys.executable
        root.mkdir(exist_ok=True)

    def job(self, job: str = JOB, **more: Any) -> Path:
        """A worker's folder, made as an attendant does."""
        settings = {"job": job, "index": 0, "runtime": "mock", "pollSeconds": 0.05, **more}
        settings.setdefault("heartbeatSeconds", 0.1)
        make_job(self.root, SWARM, job, 0, {"worker.json": json.dumps(settings), "env": "{}"})
        return self.folder(job)

    def folder(self, job: str = JOB) -> Path:
        return self.root.joinpath(*SWARM, job)

    def begin(self, verb: str, order: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """Begin an order in a session of its own, as sshd does."""
        process = subprocess.Popen(
            [self.python, "-I", str(self.program), "machine", verb, str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.env,
            cwd=self.root.parent,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        return process

    def order(self, verb: str, order: Mapping[str, Any]) -> Any:
        process = self.begin(verb, order)
        assert process.stdout is not None
        with process, process.stdout:
            told = process.stdout.read()
            assert process.wait(PATIENCE) == 0
        (line,) = told.splitlines()
        return json.loads(line)

    def start(self, *jobs: str, token: str = "t1", **more: Any) -> Any:
        """What is answered for each job; for one job, its answer alone."""
        return self._of(jobs, self.order("start", self.start_order(*jobs, token=token, **more)))

    def start_order(self, *jobs: str, token: str = "t1", **more: Any) -> dict[str, Any]:
        return {
            **self._jobs(jobs),
            "node": NODE,
            "coordinator": COORDINATOR,
            "token": token,
            **more,
        }

    def stop(self, *jobs: str, force: bool = False, seconds: float = PATIENCE) -> Any:
        order = {**self._jobs(jobs), "node": NODE, "force": force, "seconds": seconds}
        return self._of(jobs, self.order("stop", order))

    def clear(self) -> Any:
        return self.order("clear", {})

    @staticmethod
    def _jobs(jobs: tuple[str, ...]) -> dict[str, Any]:
        names = jobs or (JOB,)
        return {"jobs": [{"folder": "/".join((*SWARM, j)), "job": j, "index": 0} for j in names]}

    @staticmethod
    def _of(jobs: tuple[str, ...], told: Any) -> Any:
        answers = told.get("jobs", told)
        return answers if len(jobs) > 1 else answers[jobs[0] if jobs else JOB]

    # --- looks -----------------------------------------------------------------------------------

    def note(self, name: str, job: str = JOB) -> str | None:
        path = self.folder(job) / name
        return path.read_text().strip() if path.exists() else None

    def ended(self, job: str = JOB) -> str:
        told: str = until(lambda: self.note("ended", job), f"for the end; {self.log(job)}")
        return told

    def log(self, job: str = JOB) -> str:
        return self.note("worker.log", job) or ""

    def worker(self, job: str = JOB) -> int:
        """The pid of the worker that has begun."""
        path = self.folder(job) / "worker.pid"
        until(path.exists, f"for the worker: {self.log(job)}")
        return int(json.loads(path.read_text())["pid"])

    def processes(self, job: str = JOB) -> dict[int, tree.Process]:
        return tree.find(tree.of_job(job, self.folder(job)))

    def supervisor(self, job: str = JOB) -> int:
        (pid,) = until(
            lambda: [p for p, one in self.processes(job).items() if one.supervises],
            "for the supervisor",
        )
        return int(pid)

    def events(self, job: str = JOB) -> list[dict[str, Any]]:
        path = self.folder(job) / "mailbox" / "outbox" / f"{job}_00.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def statuses(self, job: str = JOB) -> list[tuple[str, str]]:
        told = [e["data"] for e in self.events(job) if e["event"] == "thread_status"]
        return [(d["status"], d.get("reason", "")) for d in told]

    def idle(self, job: str = JOB) -> None:
        until(lambda: ("idle", "") in self.statuses(job), f"for idle: {self.log(job)}")

    def prompt(self, content: str, injection: str, job: str = JOB) -> None:
        from tests.worker.harness import user

        with (self.folder(job) / "mailbox" / "inbox" / f"{job}_00.jsonl").open("a") as file:
            file.write(json.dumps(user(content, injection)) + "\n")

    def close(self) -> None:
        """End what the test left."""
        tree.kill(tree.below(str(self.root)), PATIENCE)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    """Whether a process is there, and no zombie that waits for an init process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"
