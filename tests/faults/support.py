"""A lab whose controller may die, and what must hold whatever died."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import IO, Any

import psutil

from controller.domain.cost import cost_of, text
from controller.domain.usage import Usage
from controller.resources.price_list import built_in
from controller.runtime.home import Home
from controller.store.base import Key
from tests.faults import crashing, skewed
from tests.lab import Lab, git, refs

ROOT = Path(__file__).parents[2]
TOKENS = {"input": 1000, "cached_input": 200, "output": 50}
USE = "usage: {inputTokens: 1000, cachedInputTokens: 200, outputTokens: 50}"
"""A script's step that uses ``TOKENS``."""
PRICED = {"runtime": "mock", "model": "gpt-5.4"}
"""An agent whose usage has a price, which ``check_usage`` looks at."""
_WORKER = re.compile(r"worker|.*/worker-[0-9a-f]+\.pyz")
"""The program of a worker, installed or shipped as one file."""


class Mortal:
    """What both homes' labs have where a controller may die: a view of objects, and new ones."""

    crash_at: int | str = 0
    """At which step the controllers that follow a dead one die; 0: they are ordinary ones."""
    crash_points: Sequence[str] = ()
    """Where they die one after another, before that."""
    patience: float = 60.0
    """For how many seconds something is waited for: more where many controllers must start."""
    controller: subprocess.Popen[bytes]
    home: Home
    path: Path
    workspaces: Path
    """Where workers' folders lie."""
    provider: Mapping[str, Any] = MappingProxyType({"local": {}})
    """Where workers run: the block of a swarm."""
    find: Callable[[str, str], dict[str, Any] | None]
    """An object by kind and name, or None."""
    list: Callable[[str], Any]
    """All objects of a kind."""
    delete: Callable[[str, str], None]
    touch: Callable[[str, str], None]
    """Have an object looked at now: a client changes an annotation."""
    apply: Callable[..., None]
    start: Callable[[], Any]
    start_crashing: Callable[[int | str], Path]
    """Start a controller that kills itself at a step; the log of its steps."""
    repository: Callable[[], Path]
    processes: Callable[[], Any]
    wait: Callable[[Callable[[], Any], str, float], Any]

    def converge(self, condition: Callable[[], Any], what: str, deadline: float = 0.0) -> None:
        """Wait for a condition; a controller that died is followed by an ordinary one."""

        def look() -> Any:
            if self.controller.poll() is not None:
                if self.crash_points:
                    point, *self.crash_points = self.crash_points
                    self.start_crashing(point)
                elif self.crash_at:
                    self.start_crashing(self.crash_at)
                else:
                    self.start()
            return condition()

        self.wait(look, what, deadline or self.patience)

    def state(self, kind: str, name: str) -> dict[str, Any]:
        """An object's status; empty while there is none."""
        return (self.find(kind, name) or {}).get("status") or {}

    def phase_of(self, kind: str, name: str) -> str:
        """An object's phase; empty while there is none."""
        return str(self.state(kind, name).get("phase") or "")

    def is_gone(self, kind: str, name: str) -> bool:
        """Whether there is no such object any more."""
        return self.find(kind, name) is None

    def attempts(self, name: str) -> Any:
        """A Task's attempts."""
        return [*(self.state("Task", name).get("attempts") or ())]

    def jobs(self, swarm: str) -> dict[str, dict[str, Any]]:
        """The swarm's table of workers by job."""
        return {row["job"]: row for row in self.state("Swarm", swarm).get("workers") or ()}

    def job_dir(self, job: str) -> Path:
        """A job's folder."""
        (found,) = self.workspaces.glob(f"*/*/{job}")
        return found

    def workers(self) -> dict[str, Any]:
        """Running worker processes (not their descendants) by job."""
        found: dict[str, Any] = {}
        for process in self.processes():
            try:
                if any(_WORKER.fullmatch(word) for word in process.cmdline()[1:5]):
                    job = process.environ()["CODESWARM_JOB_ID"]
                    found.setdefault(job, []).append(process)
            except (psutil.Error, OSError):
                continue
        return found


class FaultLab(Mortal, Lab):
    """A lab that starts its controller again when it has died."""

    _reader: threading.Thread | None = None

    def start_crashing(self, at: int | str) -> Path:
        """Start a controller that kills itself at a step; the log of its steps."""
        steps = self.path / f"steps-{at}"
        self.start_special(crashing, **{crashing.AT: str(at), crashing.LOG: str(steps)})
        return steps

    def start_skewed(self, seconds: float) -> Path:
        """Start a controller whose clock is off; the file that says by how much."""
        skew = self.path / "skew"
        skew.write_text(str(seconds))
        self.start_special(skewed, **{skewed.SKEW: str(skew)})
        return skew

    def start_special(self, module: ModuleType, **variables: str) -> None:
        """Start a controller by way of one of this folder's modules."""
        with self.log.open("ab") as log:
            self._spawn(module.__name__, log, variables)

    def start_in_a_pipe(self) -> None:
        """Start a controller whose log no limit of its files concerns."""
        process = self._spawn("controller.runtime.local", subprocess.PIPE, {})
        self._reader = threading.Thread(target=self._copy, args=(process,))
        self._reader.start()

    def _spawn(
        self, module: str, stderr: IO[bytes] | int, variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        process = self._controller = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env={**os.environ, "CODESWARM_HOME": str(self.home.root), **variables},
            stderr=stderr,
            stdin=subprocess.DEVNULL,
        )
        self.wait(lambda: process.poll() is not None or self._up(), "the controller to be up")
        return process

    def _copy(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr, self.log.open("ab", buffering=0) as log:
            for line in process.stderr:
                log.write(line)

    def close(self) -> None:
        """End every process, and whoever reads what they say."""
        super().close()
        if self._reader is not None:
            self._reader.join(10)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        return self.db.get(Key(kind, "default", name))

    def list(self, kind: str) -> Any:
        """All objects of a kind."""
        return self.db.list(kind)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object as a client does."""
        self.db.delete(Key(kind, "default", name))

    def touch(self, kind: str, name: str) -> None:
        """Have an object looked at now: a client changes an annotation."""
        word = str(time.monotonic_ns())
        self.patch(
            kind, name, lambda o: o["metadata"].setdefault("annotations", {}).update(touched=word)
        )


def daemons(lab: Lab, mark: str, *, nameless: bool) -> Path:
    """A shell program that leaves daemons behind, each made in another way.

    A ``nameless`` one has no environment: once its worker was killed, nothing tells whose it was.
    """
    commands = [
        f"setsid sh -c 'sleep 300; echo {mark}'",
        f"setsid sh -c 'setsid sh -c \"sleep 301; echo {mark}\" & exit 0'",
    ]
    if nameless:
        commands.append(f"env -i setsid /bin/sh -c '/bin/sleep 302; echo {mark}'")
    program = lab.path / "daemons.sh"
    program.write_text("".join(f"{one} </dev/null >/dev/null 2>&1 &\n" for one in commands))
    return program


def marked(mark: str) -> list[psutil.Process]:
    """Processes whose command line holds a text that only one test uses."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(mark in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


# --- what the outboxes say -----------------------------------------------------------------------


@dataclass(slots=True)
class Turn:
    """One injection, as its worker's outbox tells."""

    injection: str
    job: str
    started: float
    ended: float
    """The last record's time."""
    complete: bool = False
    sessions: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """The task's."""
        return self.injection.rpartition(".")[0]

    def used(self, kind: str) -> int:
        """Tokens of a kind."""
        return sum(tokens.get(kind, 0) for tokens in self.sessions.values())


def mail(lab: Mortal) -> dict[str, bytes]:
    """What came out of every job: its outbox, or what is kept of it."""
    found = {path.stem: path.read_bytes() for path in lab.home.transcripts.rglob("*.jsonl")}
    for path in lab.workspaces.glob("*/*/*/mailbox/outbox/*.jsonl"):
        found[path.stem.rpartition("_")[0]] = path.read_bytes()
    return found


def records(data: bytes) -> Iterable[dict[str, Any]]:
    """The records of an outbox; what is none is left out."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record


def turns(lab: Mortal) -> dict[str, Turn]:
    """All turns by injection, from whole records of the job itself, each taken once.

    Raises: AssertionError if a turn was started twice.
    """
    starts: Counter[str] = Counter()
    found: dict[str, Turn] = {}
    for job, data in mail(lab).items():
        own = {r["seq"]: r for r in records(data) if r.get("job_id") == job}
        for _, record in sorted(own.items()):
            injection, event = record.get("injection_id"), record["event"]
            if not injection or injection.endswith(".system"):
                continue
            if event == "turn_started":
                starts[injection] += 1
                found.setdefault(injection, Turn(injection, job, record["ts"], record["ts"]))
            turn = found[injection]
            turn.ended = max(turn.ended, record["ts"])
            turn.complete = turn.complete or event == "turn_complete"
            if event == "usage":
                turn.sessions[record["data"]["session"]] = record["data"]["total"]
    assert not [i for i, number in starts.items() if number > 1], "started twice"
    return found


# --- what must hold ------------------------------------------------------------------------------


def check_turns(lab: Mortal) -> dict[str, Turn]:
    """Every turn is an attempt, started once; no task had two at the same time."""
    found = turns(lab)
    known = {
        attempt["injectionId"]: attempt
        for task in lab.list("Task")
        for attempt in (task.get("status") or {}).get("attempts") or ()
    }
    assert set(found) <= set(known), "turns that no task knows"
    for injection, attempt in known.items():
        if attempt.get("class") != "Infrastructure":
            assert injection in found, f"{attempt} never ran"
            assert found[injection].job == attempt["job"]
    by_task: dict[str, list[Turn]] = {}
    for turn in found.values():
        by_task.setdefault(turn.uid, []).append(turn)
    for spans in by_task.values():
        spans.sort(key=lambda turn: turn.started)
        for before, after in itertools.pairwise(spans):
            assert before.ended <= after.started, f"{before} and {after} at the same time"
    return found


def check_usage(lab: Mortal, *projects: str, swarm: str = "builders") -> None:
    """Every token is counted once: in its task, its project and its swarm."""
    by_uid: dict[str, dict[str, int]] = {}
    for turn in turns(lab).values():
        sums = by_uid.setdefault(turn.uid, dict.fromkeys(TOKENS, 0))
        for kind in TOKENS:
            sums[kind] += turn.used(kind)
    for task in lab.list("Task"):
        used = (task.get("status") or {}).get("usage")
        assert tokens(used) == by_uid.get(task["metadata"]["uid"], dict.fromkeys(TOKENS, 0)), (
            f"usage of {task['metadata']['name']}"
        )
        check_cost(task.get("status") or {}, task["metadata"]["name"])
    for name in projects:
        mine = [t for t in lab.list("Task") if t["spec"].get("project") == name]
        expected = total(by_uid.get(t["metadata"]["uid"], {}) for t in mine)
        lab.converge(
            lambda name=name, expected=expected: (
                tokens(lab.state("Project", name).get("usage")) == expected
            ),
            f"project {name}'s usage to be {expected}, {lab.state('Project', name).get('usage')}",
        )
        check_cost(lab.state("Project", name), name)
    if not lab.state("Swarm", swarm):
        return
    everything = total(by_uid.values())
    lab.touch("Swarm", swarm)
    lab.converge(
        lambda: tokens(lab.state("Swarm", swarm).get("usage")) == everything,
        f"the swarm's usage to be {everything}, {lab.state('Swarm', swarm).get('usage')}",
    )
    check_cost(lab.state("Swarm", swarm), swarm)


def check_cost(of: dict[str, Any], name: str) -> None:
    """A status's cost is that of its tokens; the agents of these tests use one model.

    Machines have no price there.
    """
    used = tokens(of.get("usage"))
    if not any(used.values()):
        return
    if of.get("pricingModel") == "unpriced":
        assert of["costUsd"] == "unpriced", f"cost of {name}"
        return
    spent = Usage(used["input"], used["cached_input"], 0, used["output"])
    true = text(cost_of(spent, built_in()["gpt54"]))
    true += " + unpriced" if of.get("machines") else ""
    assert (of.get("costUsd"), of.get("pricingModel")) == (true, "gpt-5.4"), f"cost of {name}"


def tokens(usage: dict[str, int] | None) -> dict[str, int]:
    """Usage of a status in the worker's words."""
    names = {"input": "inputTokens", "cached_input": "cachedInputTokens", "output": "outputTokens"}
    return {kind: (usage or {}).get(name, 0) for kind, name in names.items()}


def total(usages: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum."""
    result = dict.fromkeys(TOKENS, 0)
    for usage in usages:
        for kind in TOKENS:
            result[kind] += usage.get(kind, 0)
    return result


def check_workers(lab: Mortal, swarm: str = "builders") -> None:
    """Exactly the workers of the swarm's table run, each once."""

    def agree() -> bool:
        running = lab.workers()
        return all(len(found) == 1 for found in running.values()) and set(running) == set(
            lab.jobs(swarm)
        )

    lab.converge(agree, f"the workers to be {sorted(lab.jobs(swarm))}, there are {lab.workers()}")


def check_branches(lab: Mortal, repository: Path, project: str, tasks: Iterable[str]) -> None:
    """Every task's branch and the integration hold what they should."""
    there = refs(repository)
    names = list(tasks)
    for name in names:
        done = lab.state("Task", f"{project}.{name}")
        branch = f"codeswarm/{project}/{name}"
        assert there[f"refs/heads/{branch}"] == done["headCommit"]
        assert there[done["headRef"]] == done["headCommit"]
        assert git("-C", str(repository), "show", f"{branch}:{name}.txt") == name
    tree = git("-C", str(repository), "ls-tree", "--name-only", f"codeswarm/{project}/integration")
    assert {f"{name}.txt" for name in names} <= set(tree.splitlines())


def check_nothing_left(lab: Mortal, swarm: str = "builders") -> None:
    """No process and no folder of a deleted swarm."""
    lab.converge(lambda: not lab.processes(), f"no process: {lab.processes()}", 10)
    left = list(lab.workspaces.glob(f"*/{swarm}-*"))
    assert not left
