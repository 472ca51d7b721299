"""What the mailboxes have said so far: facts about turns and workers, merged without order.

Records may be torn, repeated, out of order or forged by an agent; every merge here gives the
same result for any such arrival of the same records.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.domain.questions import question
from controller.domain.usage import Entry, entry, merge
from worker import records as rec

MAX_MERGES = 1000
MAX_PARTING = 500
MAX_SESSIONS = 100
MAX_ANSWER = 4 << 20
"""Characters: a planner's answer has its whole graph in it."""
SETTLED = 64
LATE = 0.2
"""Of its worker's time: a turn that had less than the rest may need no more than a worker has."""
_REASON = re.compile(r"[A-Z][A-Za-z0-9]*")
MAX_QUESTIONS = 5000
"""Of one turn."""
MAX_OPEN = 100
"""Of them at once: no agent asks so much, unless it wants to fill the controller's memory."""
SYSTEM_PROMPT_FAILED = "SystemPromptFailed"
"""With this a worker stops whose first turn did not complete."""


@dataclass(slots=True)
class Since:
    """When a worker became ready, by its own clock; its turns know it too when it is gone."""

    at: float | None = None


@dataclass(slots=True)
class TurnFacts:
    """One injection, as far as its worker has told. Times are the controller's clock, seconds."""

    injection: str
    job: str
    accepted_at: float | None = None
    working_at: float | None = None
    last_activity: float = 0.0
    base_commit: str = ""
    usage: tuple[Entry, ...] = ()
    """The largest totals seen, one entry a session."""
    merges: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer: str = ""
    kept: dict[str, int] = field(default_factory=dict)
    """The ``seq`` of the record that a fact of which there is only one comes from."""
    task_complete: dict[str, Any] | None = None
    complete: dict[str, Any] | None = None
    approvals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the agent asked, as an Approval shows it; empty once it was answered."""
    resolved: dict[str, str] = field(default_factory=dict)
    """The decision that the agent was told."""
    noted: set[str] = field(default_factory=set)
    """Answers whose confirmation is in status."""
    frozen: float = 0.0
    """Seconds for which its worker stood still by its provider's will; not counted as its own."""
    worker_ready: Since = field(default_factory=Since)
    begun: float | None = None
    ended: float | None = None
    """When it began and ended, by the worker's clock."""

    @property
    def began_late(self) -> bool:
        """Whether more than a fifth of its worker's time was over when it began."""
        ready = self.worker_ready.at
        if ready is None or self.begun is None or self.ended is None:
            return False
        return self.begun - ready > LATE * (self.ended - ready)

    @property
    def asks(self) -> bool:
        """Whether the agent waits for an answer."""
        return any(request not in self.resolved for request in self.approvals)


@dataclass(slots=True)
class WorkerFacts:
    """One job, as far as it has told."""

    job: str
    ready: bool = False
    ready_since: Since = field(default_factory=Since)
    stopped: bool = False
    leaving: str = ""
    """Why it leaves, told so by somebody else than us: ``TimeLimit``, ``SpotInterruption``,
    ``Stopped``."""
    frozen_since: float | None = None
    """Since when it stands still by its provider's will."""
    parting: tuple[str, str] = ("", "")
    """Reason and message with which it gave itself up, if it did."""
    running: dict[str, None] = field(default_factory=dict)
    """Injections whose beginning is known and whose end is not; one at a time, read in order."""
    last_event: str = ""
    seq: int = 0
    """The highest number that a record has had: only a higher one can tell of a new turn."""
    settled: deque[str] = field(default_factory=lambda: deque(maxlen=SETTLED))
    """Injections whose outcome is in status: what still comes of them says nothing new."""

    @property
    def active(self) -> str:
        """Injection of the turn that runs now, if any."""
        return next(iter(self.running), "")

    def take(self, seq: Any) -> bool:
        """Whether a record of this number is newer than all before."""
        newer = isinstance(seq, int) and seq > self.seq
        if newer:
            self.seq = seq
        return newer


def parse(line: bytes) -> dict[str, Any] | None:
    """An outbox line as a record, or None for what is not one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("event") not in rec.EVENTS:
        return None
    if not isinstance(record.get("data"), dict):
        return None
    if not isinstance(record.get("injection_id"), str | None):
        return None
    return record


class Turns:
    """The facts of all open turns and live workers."""

    def __init__(self) -> None:
        self.turns: dict[str, TurnFacts] = {}
        self.workers: dict[str, WorkerFacts] = {}
        self.merges: dict[str, dict[str, dict[str, Any]]] = {}
        """By integration task's uid: what its last settled turn said of each merge."""

    def worker(self, job: str) -> WorkerFacts:
        """Facts of a job, made at first sight."""
        found = self.workers.get(job)
        if found is None:
            found = self.workers[job] = WorkerFacts(job)
        return found

    def stand_still(self, job: str, frozen: bool, now: float) -> None:
        """Take over whether a worker stands still: the time of its turn does so too."""
        worker = self.worker(job)
        since = worker.frozen_since
        if frozen and since is None:
            worker.frozen_since = now
        elif not frozen and since is not None:
            worker.frozen_since = None
            for turn in (self.turns[name] for name in worker.running if name in self.turns):
                turn.frozen += now - max(since, turn.accepted_at or since)
                turn.last_activity = max(turn.last_activity, now)

    def forget_worker(self, job: str) -> None:
        """Drop a job that is gone."""
        self.workers.pop(job, None)
        self.turns.pop(f"{job}.system", None)

    def forget(self, injection: str) -> None:
        """Drop a turn whose outcome is in status."""
        turn = self.turns.pop(injection, None)
        worker = self.workers.get(turn.job) if turn is not None else None
        if worker is not None:
            worker.settled.append(injection)
            worker.running.pop(injection, None)
        if turn is not None and turn.merges:
            self.merges[injection.rpartition(".")[0]] = turn.merges

    def apply(self, job: str, record: Mapping[str, Any], now: float) -> TurnFacts | None:
        """Merge one record; the turn it belongs to, if any."""
        if record.get("job_id", job) != job:
            return None
        event, data = record["event"], record["data"]
        worker = self.worker(job)
        if event == rec.THREAD_STATUS:
            self._thread_status(worker, data, _time(record))
        elif event == rec.AGENT_ERROR and data.get("class") == "runtime":
            reason = _text(data.get("reason"), 64)
            if _REASON.fullmatch(reason):
                worker.parting = reason, _text(data.get("message"), MAX_PARTING)
        injection = record.get("injection_id")
        if not injection:
            return None
        if injection in worker.settled:
            return None
        worker.last_event = event
        newer = worker.take(record.get("seq"))
        turn = self.turns.get(injection)
        if turn is None:
            turn = TurnFacts(injection, job, worker_ready=worker.ready_since)
            self.turns[injection] = turn
        if turn.job != job:
            return None
        turn.last_activity = max(turn.last_activity, now)
        if turn.accepted_at is None:
            turn.accepted_at = now
            worker.ready = worker.ready or injection != f"{job}.system"
            if newer:
                worker.running[injection] = None
        if event == rec.TURN_STARTED and _keeps(turn, "begun", record, first=True):
            turn.begun = _time(record)
        _MERGE.get(event, _nothing)(turn, data, record, now)
        if turn.complete is not None:
            worker.running.pop(injection, None)
        return turn

    @staticmethod
    def _thread_status(worker: WorkerFacts, data: Mapping[str, Any], ts: float | None) -> None:
        status = data.get("status")
        if status == "idle":
            worker.ready = True
            times = [t for t in (worker.ready_since.at, ts) if t is not None]
            worker.ready_since.at = min(times, default=None)
        elif status == "draining":
            reason = _text(data.get("reason"), 64)
            if _REASON.fullmatch(reason):
                worker.leaving = reason
        elif status == "stopped":
            worker.stopped = True
            if data.get("reason") == SYSTEM_PROMPT_FAILED and not worker.parting[0]:
                worker.parting = SYSTEM_PROMPT_FAILED, ""


def _nothing(turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float) -> None:
    """Events that only prove activity."""


def _keeps(turn: TurnFacts, fact: str, record: Mapping[str, Any], *, first: bool = False) -> bool:
    """Whether this record, in the worker's own order, has the last (or ``first``) word."""
    seq = record.get("seq")
    number = seq if isinstance(seq, int) and not isinstance(seq, bool) else -1
    known = turn.kept.get(fact)
    if known is not None and (number >= known if first else number <= known):
        return False
    turn.kept[fact] = number
    return True


def _task_started(
    turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float
) -> None:
    if turn.working_at is None:
        turn.working_at = now
    base = _text(data.get("base_commit"), 64)
    if base and _keeps(turn, "base", record):
        turn.base_commit = base


def _assistant(
    turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float
) -> None:
    if _keeps(turn, "answer", record):
        turn.answer = _text(data.get("text"), MAX_ANSWER)


def _usage(turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float) -> None:
    turn.usage = merge(turn.usage, (entry(0, turn.job, data),))[:MAX_SESSIONS]


def _command(turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float) -> None:
    task = data.get("task")
    if data.get("source") != "merge" or not isinstance(task, str):
        return
    name = task[:63]
    room = name in turn.merges or len(turn.merges) < MAX_MERGES
    if room and _keeps(turn, f"merge {name}", record):
        turn.merges[name] = {
            "task": name,
            "commit": _text(data.get("commit"), 64),
            "state": _text(data.get("state"), 20),
        }


def _approval(turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float) -> None:
    request = _request(data)
    if not request or request in turn.approvals or len(turn.approvals) >= MAX_QUESTIONS:
        return
    if request in turn.resolved:
        turn.approvals[request] = {}
    elif sum(map(bool, turn.approvals.values())) < MAX_OPEN:
        turn.approvals[request] = question(data)


def _resolved(turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float) -> None:
    request = _request(data)
    if request and len(turn.resolved) < MAX_QUESTIONS:
        turn.resolved.setdefault(request, _text(data.get("decision"), 40))
        if request in turn.approvals:
            turn.approvals[request] = {}


def _request(data: Mapping[str, Any]) -> str:
    """A question's id; empty if it is none that can be stored."""
    request = _text(data.get("request_id"), 200)
    return request if request.isprintable() else ""


def _task_complete(
    turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float
) -> None:
    if _keeps(turn, "task", record):
        turn.task_complete = data


def _turn_complete(
    turn: TurnFacts, data: dict[str, Any], record: Mapping[str, Any], now: float
) -> None:
    if _keeps(turn, "end", record, first=True):
        turn.complete = data
        turn.ended = _time(record)


_MERGE = {
    rec.TASK_STARTED: _task_started,
    rec.ASSISTANT: _assistant,
    rec.USAGE: _usage,
    rec.COMMAND_COMPLETED: _command,
    rec.EXEC_APPROVAL_REQUIRED: _approval,
    rec.EXEC_APPROVAL_RESOLVED: _resolved,
    rec.TASK_COMPLETE: _task_complete,
    rec.TURN_COMPLETE: _turn_complete,
}


def _time(record: Mapping[str, Any]) -> float | None:
    """A record's time by the worker's clock, if it says one."""
    ts = record.get("ts")
    if isinstance(ts, bool) or not isinstance(ts, int | float):
        return None
    return float(ts) if 0 <= ts < 2**53 else None


def _text(value: Any, limit: int) -> str:
    return value[:limit] if isinstance(value, str) else ""
