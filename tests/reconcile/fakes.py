"""Scripted workers, a repository that is a dict of refs, and a clock that is the loop's."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.repository.problems import RepositoryProblem
from controller.repository.pushes import PushResult
from controller.repository.remote import RemoteState
from providers.base import (
    Ended,
    JobState,
    JobStatus,
    LaunchRequest,
    Machine,
    ProviderError,
    ProviderUnreachable,
    RecordBatch,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from worker.report import task_result

BASE = "b" * 40
Record = dict[str, Any]


class FakeClock:
    """Wall-clock time that follows the loop's; ``jump`` is what a person does to the clock."""

    def __init__(self) -> None:
        self.offset = 1_760_000_000.0
        self.loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> float:
        return self.offset + (self.loop.time() if self.loop else 0.0)

    def not_before(self, seconds: float) -> None:
        self.offset += max(0.0, seconds - self.now())


@dataclass
class FakeJob:
    """One worker: its mail, its state, and what it does with a prompt."""

    request: LaunchRequest
    provider: FakeProvider
    state: JobState = JobState.PENDING
    reason: str = ""
    inbox: list[Record] = field(default_factory=list)
    outbox: bytearray = field(default_factory=bytearray)
    frozen: bool = False
    suspended: bool = False
    message: str = ""
    """Of a job that waits: what to do about it."""
    """By its provider's will: it does nothing, and is not to blame."""
    beat: float = 0.0
    running: str = ""
    draining: bool = False
    accepted: set[str] = field(default_factory=set)
    cancelled: dict[str, str] = field(default_factory=dict)
    seq: int = 0

    @property
    def name(self) -> str:
        return self.request.job

    @property
    def alive(self) -> bool:
        return self.state in (JobState.RUNNING, JobState.PENDING)

    def heartbeat(self) -> float:
        if self.alive and not (self.frozen or self.suspended):
            self.beat = asyncio.get_running_loop().time()
        return self.beat

    # --- what it says ------------------------------------------------------------------------

    def emit(self, event: str, data: Record | None = None, injection: str | None = None) -> None:
        self.seq += 1
        ts = asyncio.get_running_loop().time()
        record = {"seq": self.seq, "ts": ts, "job_id": self.name, "node_id": "n",
                  "injection_id": injection, "event": event, "data": data or {}}  # fmt: skip
        self.outbox += json.dumps(record).encode() + b"\n"
        asyncio.get_running_loop().call_soon(self.provider.follow_up, self.name)

    # --- its life ----------------------------------------------------------------------------

    async def live(self) -> None:
        await asyncio.sleep(self.provider.boot_seconds)
        if not self.alive:
            return
        self.state = JobState.RUNNING
        self.emit("thread_status", {"status": "starting"})
        if self.provider.unusable is not None:
            reason, message = self.provider.unusable
            error = {"class": "runtime", "reason": reason, "message": message}
            self.emit("agent_error", {**error, "will_retry": False})
            self.emit("thread_status", {"status": "stopped", "reason": reason})
            self.end("exit 1")
            return
        if self.request.config.get("systemPrompt"):
            injection = f"{self.name}.system"
            self.running = injection
            self.emit("turn_started", {"attempt": 1}, injection)
            if not await self.provider.system_prompt(self, injection):
                if self.provider.system_error is not None:
                    error = self.provider.system_error
                    self.emit("turn_complete", {"status": "failed", "error": error}, injection)
                    stopped = {"status": "stopped", "reason": "SystemPromptFailed"}
                    self.emit("thread_status", stopped)
                self.end("exit 1")
                return
            self.emit("turn_complete", {"status": "completed", "answer": "ok"}, injection)
            self.running = ""
        self.emit("thread_status", {"status": "idle"})

    def end(self, reason: str = "exit 0") -> None:
        if self.alive:
            self.state, self.reason = JobState.ENDED, reason
            if self.provider.ended is not None and self.provider.hints:
                asyncio.get_running_loop().call_soon(self.provider.ended, self.name)

    # --- its mail ----------------------------------------------------------------------------

    def receive(self, record: Record) -> None:
        self.inbox.append(record)
        if not self.alive or self.frozen:
            return
        if record["type"] == "user":
            self._user(record)
        elif record["payload"]["action"] == "interrupt":
            self._interrupt(record["payload"])
        elif record["payload"]["action"] == "drain":
            self.draining = True
            self._rest()

    def _user(self, record: Record) -> None:
        injection = record["injection_id"]
        if injection in self.accepted:
            return
        self.accepted.add(injection)
        if not self.draining:
            self.provider.turns.append(injection)
            self.provider.spawn(self._turn(record))

    def _interrupt(self, payload: Record) -> None:
        injection, reason = payload["injection_id"], payload["reason"]
        self.cancelled[injection] = reason
        if self.running == injection and not self.provider.stubborn:
            self.finish(injection, {"status": "interrupted", "answer": "", "reason": reason})

    async def _turn(self, record: Record) -> None:
        while self.running:  # noqa: ASYNC110 (time is virtual)
            await asyncio.sleep(0.01)
        injection = record["injection_id"]
        self.running = injection
        self.emit("turn_started", {"attempt": record["task"]["attempt"]}, injection)
        if injection in self.cancelled:
            reason = self.cancelled[injection]
            self.finish(injection, {"status": "interrupted", "answer": "", "reason": reason})
            return
        self.emit("task_started", {}, injection)
        await self.provider.work(self, record)

    def leave(self, reason: str, *, keep: bool = True) -> None:
        """It is told to leave from outside: it pushes what it has done, says so, and ends."""
        self.emit("thread_status", {"status": "draining", "reason": reason})
        injection, record = self.running, {}
        for mail in self.inbox:
            if mail.get("injection_id") == injection:
                record = mail
        repository = record.get("repository")
        if injection and repository is not None and keep:
            head = self.provider.remote.push({**repository, "branch": ""})
            self.emit("task_complete", {
                "base_commit": repository["base_commit"], "head_commit": head, "pushed": True,
                "attempt_ref": repository["attempt_ref"]}, injection)  # fmt: skip
        if injection:
            self.finish(injection, {"status": "interrupted", "answer": "", "reason": reason})
        self.emit("thread_status", {"status": "stopped", "reason": reason})
        self.end("exit 0")

    def finish(self, injection: str, data: Record) -> None:
        """The end of the running turn, once."""
        if self.running != injection or not self.alive:
            return
        self.emit("turn_complete", data, injection)
        self.running = ""
        self._rest()

    def _rest(self) -> None:
        if self.draining and not self.running:
            self.emit("thread_status", {"status": "stopped"})
            self.end()


class FakeProvider:
    """``providers.base.Provider`` whose workers do what the test says."""

    stores: RemoteStores | None = None
    rents = False

    def __init__(self, remote: FakeRepositories, name: str = "local") -> None:
        self.name = name
        self.remote = remote
        self.jobs: dict[tuple[str, str], FakeJob] = {}
        """By (swarm uid, job)."""
        self.sink: Sink | None = None
        self.ended: Ended | None = None
        self.hints = True
        self.followed: dict[str, int] = {}
        self.boot_seconds = 0.05
        self.turn_seconds = 0.05
        self.stubborn = False
        self.turns: list[str] = []
        """Injections in the order in which workers took them."""
        self.calls: list[str] = []
        self.observe_error: ProviderError | None = None
        self.observe_seconds = 0.0
        self.cut = False
        """No contact: nothing can be asked, told or heard; workers go on."""
        self.handles: list[SwarmHandle] = []
        """Those with which it was asked, in order."""
        self.launch_error: ProviderError | None = None
        self.deliver_error: ProviderError | None = None
        self.discard_error: ProviderError | None = None
        self.system_ok = True
        self.system_error: Record | None = None
        """What its turn says, where it is not ``system_ok``."""
        self.unusable: tuple[str, str] | None = None
        """Why agents cannot be started: reason and message."""
        self.script: Callable[[FakeJob, Record], Record | None] = lambda job, record: None
        """Replaces parts of ``turn_complete``'s data; None: success."""
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def job(self, name: str) -> FakeJob:
        return next(job for (_, n), job in self.jobs.items() if n == name)

    def live(self) -> list[FakeJob]:
        return [job for job in self.jobs.values() if job.alive]

    def kill(self, name: str) -> None:
        self.job(name).end("signal 9")

    # --- what workers do -----------------------------------------------------------------------

    async def system_prompt(self, job: FakeJob, injection: str) -> bool:
        await asyncio.sleep(self.turn_seconds)
        tokens = {"input": 10, "output": 1, "total": 11}
        job.emit("usage", {"session": "s", "model": "m", "total": tokens}, injection)
        return self.system_ok

    async def work(self, job: FakeJob, record: Record) -> None:
        await asyncio.sleep(self.turn_seconds)
        injection, task = record["injection_id"], record["task"]
        if job.running != injection or not job.alive:
            return
        data: Record = {"status": "completed", "answer": "done"}
        repository = record.get("repository")
        if repository is not None and task["kind"] != "plan":
            head = self.remote.push(repository)
            job.emit("task_complete", {
                "base_commit": repository["base_commit"], "head_commit": head, "pushed": True,
                "attempt_ref": repository["attempt_ref"], "branch": repository["branch"],
                "files_changed": ["a.txt"], "files_changed_count": 1}, injection)  # fmt: skip
            data["answer"] = task_result(task_id=task["task_id"], head_commit=head)
        data.update(self.script(job, record) or {})
        job.finish(injection, data)

    # --- the port ------------------------------------------------------------------------------

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        self.sink, self.ended = sink, ended

    async def close(self) -> None:
        self.sink, self.ended = None, None
        self.followed.clear()

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        for request in requests:
            self.calls.append(f"launch {request.job}")
            if self.launch_error is not None:
                raise self.launch_error
            key = (request.swarm.uid, request.job)
            if key not in self.jobs:
                self.jobs[key] = FakeJob(request, self)
                self.spawn(self.jobs[key].live())

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        await asyncio.sleep(self.observe_seconds)
        self.handles.append(swarm)
        self._reach()
        if self.observe_error is not None:
            raise self.observe_error
        return [
            JobStatus(
                job.name,
                job.state,
                job.reason,
                job.heartbeat(),
                f"pid {job.name[-1]}",
                frozen=job.suspended,
                message=job.message,
            )
            for (uid, _), job in sorted(self.jobs.items(), key=lambda item: item[0])
            if uid == swarm.uid
            and job.request.swarm.parameters.get("workspaceRoot")
            == swarm.parameters.get("workspaceRoot")
        ]

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """None: what workers run on here is not this provider's to pay for."""
        return []

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        self.followed[job] = offset
        asyncio.get_running_loop().call_soon(self.follow_up, job)

    def unfollow(self, job: str) -> None:
        self.followed.pop(job, None)

    def follow_up(self, name: str) -> None:
        """Hand on what is new."""
        offset = self.followed.get(name)
        if offset is None or self.sink is None or self.cut:
            return
        data = bytes(self.job(name).outbox[offset:])
        end = data.rfind(b"\n") + 1
        if end:
            self.followed[name] = offset + end
            self.sink(RecordBatch(name, data[: end - 1].split(b"\n"), offset + end))

    async def flush(self, job: str) -> None:
        self._reach()
        self.follow_up(job)

    def _reach(self) -> None:
        if self.cut:
            raise ProviderUnreachable("ConnectionLost", "the login host does not answer")

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._reach()
        if self.deliver_error is not None:
            raise self.deliver_error
        found = self.jobs.get((swarm.uid, job))
        if found is None:
            raise ProviderError("WorkerGone", f"{job} is gone")
        self.calls.append(f"deliver {job} {record['type']}")
        found.receive(dict(record))

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        self._reach()
        for name in jobs:
            self.calls.append(f"stop {name}{' force' if force else ''}")
            found = self.jobs.get((swarm.uid, name))
            if found is not None and (force or not found.frozen):
                found.end("signal 9" if force else "exit 0")

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        self.calls.append("archive")
        return destination / f"{swarm.name}.tar.gz"

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        names = {name for uid, name in self.jobs if uid == swarm.uid}
        for name in names if jobs is None else set(jobs) & names:
            self.calls.append(f"remove {name}")
            del self.jobs[swarm.uid, name]

    async def discard_store(self, name: str) -> None:
        self.calls.append(f"discard {name}")
        if self.discard_error is not None:
            raise self.discard_error


class FakeRepositories:
    """What reconcilers ask of git: one remote for all, kept as a dict of refs."""

    def __init__(self) -> None:
        self.refs: dict[str, str] = {"refs/heads/main": BASE}
        self.problem: RepositoryProblem | None = None
        self.look_seconds = 0.01
        self.looks = 0
        self._commits = itertools.count(1)

    def push(self, repository: Record) -> str:
        """As a worker does: the attempt's ref first, then the branch."""
        head = f"{next(self._commits):040x}"
        self.refs[repository["attempt_ref"]] = head
        if repository["branch"]:
            self.refs[f"refs/heads/{repository['branch']}"] = head
        return head

    async def inspect(
        self, url: str, branch: str | None, project: str, credentials: Any = None, *,
        fresh: bool = False,
    ) -> RemoteState:  # fmt: skip
        self.looks += 1
        refs = dict(self.refs)  # as they are when the look begins
        await asyncio.sleep(self.look_seconds)
        if self.problem is not None:
            raise self.problem
        base = refs.get(f"refs/heads/{branch or 'main'}")
        return RemoteState(url, "main", branch or "main", base, refs)

    async def ref_value(self, url: str, ref: str, credentials: Any = None) -> str:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        return self.refs.get(ref, "")

    def store(self, path: Path) -> FakeRepositories:
        return self

    async def fetch(self, url: str, refs: Iterable[str], credentials: Any = None) -> None:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem

    async def reachable(self, heads: Iterable[str], tips: Iterable[str]) -> set[str]:
        return set(heads) & set(tips)

    async def put(
        self, url: str, refs: Mapping[str, str], expected: Mapping[str, str],
        credentials: Any = None,
    ) -> dict[str, PushResult]:  # fmt: skip
        self.refs.update(refs)
        return {ref: PushResult(ref, accepted=True) for ref in refs}

    async def delete(
        self, path: Path, url: str, expected: Mapping[str, str], credentials: Any = None
    ) -> dict[str, PushResult]:
        for ref in expected:
            self.refs.pop(ref, None)
        return {ref: PushResult(ref, accepted=True) for ref in expected}

    async def discard(self, path: Path) -> None:
        await asyncio.sleep(0)

    async def push_to_origin(self, *_: Any) -> None:
        return None
