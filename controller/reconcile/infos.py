"""Objects in a compact form: what the decisions about others need of each one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.domain.cost import NOTHING, Spent, spent_of_row, spent_of_rows, total
from controller.domain.fleet import LOST, waiting_note
from controller.domain.machines import NO_BILL, Bill
from controller.domain.usage import ZERO, Usage, from_status, to_status
from controller.reconcile.clock import seconds_of
from controller.resources.conditions import find
from controller.store.base import Key, Resource
from providers.base import SwarmHandle

FINISHED = frozenset({"Succeeded", "Failed", "Cancelled"})
RETRY_ANNOTATION = "codeswarm.dev/retry"
OPEN_STATES = frozenset({"Assigned", "Running", "Interrupting"})


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker's turns of a Task have used."""

    swarm: str
    job: str
    """Empty where the rows of several workers were added up."""
    spent: Spent


@dataclass(slots=True)
class TaskInfo:
    """One Task, as far as others depend on it."""

    key: Key
    uid: str
    version: str
    created: str
    kind: str
    project: str
    name: str
    """Within the project; the object's name for a prompt."""
    priority: int
    depends_on: tuple[str, ...]
    owned_paths: tuple[str, ...]
    swarm: str
    """The target's swarm; empty for a project's task."""
    worker: int | None
    """A fixed worker index."""
    expands: bool
    parent: str
    """The prompt to several workers that this is a part of, by name; empty for none."""
    parent_uid: str
    revision: int
    hash: str
    suspend: bool
    cancel: bool
    retry: str
    """The token of a retry that a person has asked for and not got yet."""
    deleting: bool
    accepted: bool
    phase: str
    reason: str
    attempt: int
    attempt_revision: int
    open_job: str
    open_injection: str
    open_swarm: str
    open_state: str
    open_worker: int
    head: str
    head_ref: str
    inputs: dict[str, str]
    next_at: float
    shares: tuple[Share, ...]
    """What it has used, by worker; sorted."""

    @property
    def settled_phase(self) -> str:
        """The phase, but for a finished task that was edited since: that one is pending again."""
        edited = self.attempt_revision not in (0, self.revision) and not self.cancel
        return "Pending" if self.finished and edited else self.phase or "Pending"

    @property
    def finished(self) -> bool:
        """No attempt will follow by itself."""
        return self.phase in FINISHED


@dataclass(slots=True)
class WorkerInfo:
    """One worker that may be given tasks."""

    swarm: Key
    index: int
    job: str
    ready: bool
    credential: str = ""
    """What it was started with (see ``domain.credential``); empty if the swarm has another now."""


UNKNOWN_AFTER_SECONDS = 120.0
"""After so long without contact, what depends on a provider is ``Unknown``."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A swarm's provider cannot be asked."""

    since: float
    reason: str
    message: str

    def is_long(self, now: float) -> bool:
        """Whether what depends on it is unknown by now."""
        return now - self.since > UNKNOWN_AFTER_SECONDS


@dataclass(frozen=True, slots=True)
class Folded:
    """What counts for a budget besides the present tasks."""

    spent: Spent = NOTHING
    uids: tuple[str, ...] = ()
    """Deleted Tasks of which it is a part already."""


NOTHING_FOLDED = Folded()


@dataclass(slots=True)
class SwarmInfo:
    """One Swarm, as far as tasks depend on it."""

    key: Key
    uid: str
    version: str
    deleting: bool
    accepted: bool
    reason: str
    handle: SwarmHandle
    provider: str
    replicas: int = 0
    """Workers in its table as it is stored."""
    states: Mapping[str, int] = field(default_factory=dict)
    """How many of them are in which phase."""
    used: Usage = ZERO
    """As its status says."""
    cost: str = ""
    """In US dollars, as its status says; not a number where a price is missing."""
    agent: Mapping[str, Any] = field(default_factory=dict)
    """The effective ``agent`` block, as its last pass resolved it."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    folded: Folded = NOTHING_FOLDED
    machines: Bill = NO_BILL
    """What its machines have cost so far."""
    rented: int = 0
    """How many of them there are."""
    quota: Mapping[str, Any] = field(default_factory=dict)
    """``status.quota``: the pause of its credential, as it was written."""
    halted: str = ""
    """Its condition that a provider's refusal stops it: reason and message; empty if none does."""
    unusable: str = ""
    """Why its agent cannot be started, where a worker gave itself up."""
    credential: str = ""
    """With what its workers are known to their model's provider; empty before its first pass."""
    observed: bool = False
    """The provider was asked in this controller's life: a job not in ``workers`` is gone."""
    workers: dict[str, WorkerInfo] = field(default_factory=dict)
    """By job: all that live, ready or not."""
    queued: str = ""
    """How many workers wait for their place, and why; empty for none."""
    silence: Silence | None = None
    """That its provider cannot be asked now, if it cannot."""
    contact_since: float = 0.0
    """When its provider was heard of again for the last time, after a silence."""
    unknown_told: bool = False
    """Those whom a long silence concerns have been woken."""


@dataclass(slots=True)
class ProjectInfo:
    """One Project, as far as its tasks depend on it."""

    key: Key
    uid: str
    version: str
    generation: int
    deleting: bool
    accepted: bool
    suspended: bool
    swarms: tuple[str, ...]
    planner: str
    """The swarm that plans; empty where the tasks are given."""
    max_parallel: int | None
    url: str
    base_branch: str
    base_commit: str
    retry: Mapping[str, Any]
    timeout: float | None
    stall: float | None
    integrated: bool
    used: Usage = ZERO
    """As its status says."""
    cost: str = ""
    """In US dollars, as its status says; not a number where a price is missing."""
    lost: frozenset[str] = frozenset()
    """Heads of finished tasks that the remote no longer holds."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    folded: Folded = NOTHING_FOLDED
    order: dict[str, int] = field(default_factory=dict)
    cycles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By task name: the cycle of dependencies that it is part of."""
    refs: dict[str, str] = field(default_factory=dict)
    """The remote's refs that concern the project, as last seen."""
    looked: bool = False
    """The remote was seen in this controller's life: what is not in ``refs`` is not there."""
    tasks: dict[str, TaskInfo] = field(default_factory=dict)
    """By name within the project, owned or not, plan and integration included."""
    running: set[Key] = field(default_factory=set)


def project_key(info: TaskInfo) -> Key:
    """The key of the Project that a task names."""
    return Key("Project", info.key.namespace, info.project)


def swarm_key(info: TaskInfo) -> Key:
    """The key of the Swarm that a task targets."""
    return Key("Swarm", info.key.namespace, info.swarm)


def parent_key(info: TaskInfo) -> Key:
    return Key("Task", info.key.namespace, info.parent)


def is_accepted(obj: Resource) -> tuple[bool, str]:
    condition = find((obj.get("status") or {}).get("conditions") or [], "Accepted")
    if condition is None:
        return False, "NotSeen"
    return condition["status"] == "True", condition["reason"]


def shares_of(status: Mapping[str, Any]) -> tuple[Share, ...]:
    """A Task's usage, summed over its attempts, by the worker that ran them."""
    found: dict[tuple[str, str], Spent] = {}
    for row in (status.get("folded") or {}).get("usage") or ():
        _share(found, row["swarm"], row.get("job", ""), (row,))
    for attempt in status.get("attempts") or ():
        if attempt.get("usage"):
            _share(found, attempt["swarm"], attempt["job"], attempt["usage"])
    return tuple(Share(*who, found[who]) for who in sorted(found) if found[who])


def _share(
    found: dict[tuple[str, str], Spent], swarm: str, job: str, rows: Iterable[Mapping[str, Any]]
) -> None:
    known = found.get((swarm, job), NOTHING)
    found[swarm, job] = known + spent_of_rows(rows)


def wanted_retry(obj: Resource) -> str:
    """The token with which a person asks for another attempt; empty if nobody does (any more)."""
    token = str((obj["metadata"].get("annotations") or {}).get(RETRY_ANNOTATION, ""))
    return token if token != (obj.get("status") or {}).get("observedRetry", "") else ""


def task_info(obj: Resource) -> TaskInfo:
    """The compact form of a stored Task."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    attempts = status.get("attempts") or ()
    last = attempts[-1] if attempts else {}
    is_open = last.get("state") in OPEN_STATES
    target = spec.get("target") or {}
    workers = target.get("workers", "idle")
    fixed = workers if isinstance(workers, int) else None
    if fixed is None and isinstance(workers, str) and workers.isdigit():
        fixed = int(workers)
    project = spec.get("project", "")
    name = meta["name"]
    if project and name.startswith(project + "."):
        name = name[len(project) + 1 :]
    succeeded = status.get("phase") == "Succeeded"
    accepted = find(status.get("conditions") or [], "Accepted")
    owners = meta.get("ownerReferences") or ()
    parent: Mapping[str, str] = next((owner for owner in owners if owner["kind"] == "Task"), {})
    edited = bool(last) and last.get("revision", 0) != spec.get("revision", 1)
    return TaskInfo(
        key=Key("Task", meta["namespace"], meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        created=meta["creationTimestamp"],
        kind=spec.get("type") or ("work" if project else "prompt"),
        project=project,
        name=name,
        priority=spec.get("priority", 0),
        depends_on=tuple(spec.get("dependsOn") or ()),
        owned_paths=tuple(spec.get("ownedPaths") or ()),
        swarm=target.get("swarm", ""),
        worker=fixed,
        expands=bool(target) and fixed is None and workers != "idle",
        parent=parent.get("name", ""),
        parent_uid=parent.get("uid", ""),
        revision=spec.get("revision", 1),
        hash=(meta.get("annotations") or {}).get("codeswarm.dev/task-hash", ""),
        suspend=bool(spec.get("suspend")),
        cancel=bool(spec.get("cancel")),
        retry=wanted_retry(obj),
        deleting="deletionTimestamp" in meta,
        accepted=accepted is None or accepted["status"] != "False",
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        attempt=last.get("number", 0),
        attempt_revision=last.get("revision", 0),
        open_job=last["job"] if is_open else "",
        open_injection=last["injectionId"] if is_open else "",
        open_swarm=last["swarm"] if is_open else "",
        open_state=last["state"] if is_open else "",
        open_worker=last["worker"] if is_open else 0,
        head=status.get("headCommit", "") if succeeded else "",
        head_ref=status.get("headRef", "") if succeeded else "",
        inputs={d["task"]: d["commit"] for d in last.get("dependencies") or ()},
        next_at=0.0 if edited else seconds_of(status.get("nextAttemptAt")) or 0.0,
        shares=shares_of(status),
    )


def project_info(obj: Resource) -> ProjectInfo:
    """The compact form of a stored Project."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    repository = status.get("repository") or {}
    return ProjectInfo(
        key=Key("Project", meta["namespace"], meta["name"]),
        uid=meta["uid"],
        version=meta["resourceVersion"],
        generation=meta["generation"],
        deleting="deletionTimestamp" in meta,
        accepted=is_accepted(obj)[0],
        suspended=bool(spec.get("suspend")),
        swarms=tuple(w["swarm"] for w in spec.get("workers") or ()),
        planner=(spec.get("planner") or {}).get("swarm", ""),
        order={t["name"]: n for n, t in enumerate(spec.get("tasks") or ())},
        max_parallel=spec.get("maxParallel"),
        url=repository.get("url", ""),
        base_branch=repository.get("baseBranch", ""),
        base_commit=repository.get("baseCommit", ""),
        retry=spec.get("retry") or {},
        timeout=spec.get("taskTimeoutSeconds"),
        stall=spec.get("stallTimeoutSeconds"),
        integrated=(status.get("integration") or {}).get("state") == "Succeeded",
        used=from_status(status.get("usage")),
        cost=status.get("costUsd", ""),
        budget=spec.get("budget") or {},
        folded=folded_of(obj),
    )


def halted_by(status: Mapping[str, Any]) -> str:
    """What a provider's refusal says to a swarm, as its condition has it; empty for nothing."""
    found = find(status.get("conditions") or [], "QuotaAvailable") or {}
    return f"{found['reason']}: {found['message']}" if found.get("status") == "False" else ""


def unusable_by(status: Mapping[str, Any]) -> str:
    """What the first worker said that gave itself up; empty for nothing."""
    lost = [row for row in status.get("workers") or () if row["phase"] == LOST]
    return str(lost[0].get("message") or lost[0].get("reason", "")) if lost else ""


def queued_by(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many of a table's workers wait for their place, and why; empty for none."""
    waiting = [r for r in rows if r["phase"] == "Starting" and r.get("reason")]
    hints = {r["reason"]: str(r["message"]) for r in waiting if r.get("message")}
    return waiting_note((r["reason"] for r in waiting), hints)


def folded_of(obj: Resource) -> Folded:
    """What counts for a budget besides the present tasks; nothing where there is none."""
    if not obj["spec"].get("budget"):
        return NOTHING_FOLDED
    status = obj.get("status") or {}
    return Folded(everything_folded(obj), tuple(status.get("foldedUids") or ()))


def everything_folded(obj: Resource) -> Spent:
    """What a Project's or Swarm's status says was used, but for what its present tasks say."""
    status = obj.get("status") or {}
    system = (spent_of_rows(row.get("systemUsage")) for row in status.get("workers") or ())
    return total([folded_spent(status), *system])


def folded_spent(status: Mapping[str, Any]) -> Spent:
    """What a status has folded, by model; what is known only as a sum has no model."""
    spent = spent_of_rows(status.get("foldedByModel"))
    rest = from_status(status.get("foldedUsage")) - spent.usage
    rest = ZERO.merge(rest)
    return spent + spent_of_row(to_status(rest)) if rest else spent
