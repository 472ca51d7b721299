"""Typed, frozen views of admitted specs: what the controller reads.

A field is named as in the CRD, in snake case; a test holds every one against the CRDs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Obj = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Retry:
    """Retries after a task's own failures; None: the next level decides."""

    limit: int | None = None
    backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None

    @staticmethod
    def from_object(raw: Obj) -> Retry:
        """Decode a ``retry`` block."""
        get = raw.get
        return Retry(get("limit"), get("backoffSeconds"), get("maxBackoffSeconds"))

    def over(self, other: Retry) -> Retry:
        """This block, with what it does not say from another."""
        return Retry(
            other.limit if self.limit is None else self.limit,
            other.backoff_seconds if self.backoff_seconds is None else self.backoff_seconds,
            other.max_backoff_seconds
            if self.max_backoff_seconds is None
            else self.max_backoff_seconds,
        )


NO_RETRY_GIVEN = Retry()
DEFAULT_RETRY = Retry(1, 10.0, 300.0)
"""What holds where neither task nor project says otherwise."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits on usage; None: no limit."""

    max_cost_usd: str | None = None
    max_tokens: int | None = None

    @staticmethod
    def from_object(raw: Obj | None) -> Budget:
        """Decode a ``budget`` block."""
        raw = raw or {}
        return Budget(raw.get("maxCostUsd"), raw.get("maxTokens"))


@dataclass(frozen=True, slots=True)
class Target:
    """Workers that a prompt goes to."""

    swarm: str
    workers: int | str


@dataclass(frozen=True, slots=True)
class Head:
    """One head to be integrated."""

    task: str
    commit: str
    ref: str


@dataclass(frozen=True, slots=True)
class IntegrationWork:
    """What an integration task brings together (``Task.spec.integration``)."""

    base_commit: str
    heads: tuple[Head, ...]
    verify: tuple[str, ...] | None
    """None: an agent finds the verification."""

    @staticmethod
    def from_object(raw: Obj) -> IntegrationWork:
        """Decode a ``Task.spec.integration`` block."""
        heads = tuple(Head(h["task"], h["commit"], h["ref"]) for h in raw["heads"])
        return IntegrationWork(raw["baseCommit"], heads, _verify(raw))


def _verify(raw: Obj) -> tuple[str, ...] | None:
    return tuple(raw["verify"]) if "verify" in raw else None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """``Task.spec``."""

    project: str
    target: Target | None
    type: str
    """Never empty: ``work`` with a project, ``prompt`` without, unless it says otherwise."""
    task_id: str
    title: str
    revision: int
    prompt: str | None
    prompt_from: Obj | None
    acceptance_criteria: tuple[str, ...]
    depends_on: tuple[str, ...]
    owned_paths: tuple[str, ...]
    priority: int
    timeout_seconds: float | None
    stall_timeout_seconds: float | None
    retry: Retry
    suspend: bool
    cancel: bool
    ttl_seconds_after_finished: float | None
    when_busy: str
    hops: int
    integration: IntegrationWork | None

    @staticmethod
    def from_object(obj: Obj) -> TaskSpec:
        """Decode an admitted Task."""
        spec = obj["spec"]
        get = spec.get
        target, retry, integration = get("target"), get("retry"), get("integration")
        project = get("project", "")
        return TaskSpec(
            project,
            Target(target["swarm"], target["workers"]) if target else None,
            get("type") or ("work" if project else "prompt"),
            get("taskId", ""),
            get("title", ""),
            get("revision", 1),
            get("prompt"),
            get("promptFrom"),
            tuple(get("acceptanceCriteria", ())),
            tuple(get("dependsOn", ())),
            tuple(get("ownedPaths", ())),
            get("priority", 0),
            get("timeoutSeconds"),
            get("stallTimeoutSeconds"),
            Retry.from_object(retry) if retry else NO_RETRY_GIVEN,
            get("suspend", False),
            get("cancel", False),
            get("ttlSecondsAfterFinished"),
            get("whenBusy", "queue"),
            get("hops", 0),
            IntegrationWork.from_object(integration) if integration else None,
        )


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """One item of ``Project.spec.tasks``."""

    name: str
    title: str
    prompt: str | None
    prompt_from: Obj | None
    acceptance_criteria: tuple[str, ...]
    depends_on: tuple[str, ...]
    owned_paths: tuple[str, ...]
    priority: int
    timeout_seconds: float | None
    stall_timeout_seconds: float | None
    retry: Retry

    @staticmethod
    def from_object(raw: Obj) -> TaskTemplate:
        """Decode one task of a Project."""
        get = raw.get
        return TaskTemplate(
            raw["name"],
            get("title", ""),
            get("prompt"),
            get("promptFrom"),
            tuple(get("acceptanceCriteria", ())),
            tuple(get("dependsOn", ())),
            tuple(get("ownedPaths", ())),
            get("priority", 0),
            get("timeoutSeconds"),
            get("stallTimeoutSeconds"),
            Retry.from_object(get("retry", {})),
        )


@dataclass(frozen=True, slots=True)
class Credentials:
    """How git proves who it is; the sources are those of ``texts.resolve_secret``."""

    username: str
    token_from: Obj | None
    ssh_key_from: Obj | None
    known_hosts: str

    @staticmethod
    def from_object(raw: Obj) -> Credentials:
        """Decode a ``credentials`` block."""
        return Credentials(
            raw.get("username", "x-access-token"),
            raw.get("tokenFrom"),
            raw.get("sshKeyFrom"),
            raw.get("knownHosts", ""),
        )


@dataclass(frozen=True, slots=True)
class Repository:
    """``Project.spec.repository``."""

    url: str
    base_branch: str
    """Empty: the repository's own default."""
    credentials: Credentials | None
    push: str

    @staticmethod
    def from_object(raw: Obj) -> Repository:
        """Decode a ``repository`` block."""
        credentials = raw.get("credentials")
        return Repository(
            raw["url"],
            raw.get("baseBranch", ""),
            Credentials.from_object(credentials) if credentials else None,
            raw.get("push", "auto"),
        )


@dataclass(frozen=True, slots=True)
class Planner:
    """``Project.spec.planner``."""

    swarm: str
    specification: str | None
    specification_from: Obj | None
    timeout_seconds: float | None
    stall_timeout_seconds: float | None
    retry: Retry

    @staticmethod
    def from_object(raw: Obj) -> Planner:
        """Decode a ``planner`` block."""
        return Planner(
            raw["swarm"],
            raw.get("specification"),
            raw.get("specificationFrom"),
            raw.get("timeoutSeconds"),
            raw.get("stallTimeoutSeconds"),
            Retry.from_object(raw.get("retry", {})),
        )


@dataclass(frozen=True, slots=True)
class Integration:
    """``Project.spec.integration``."""

    verify: tuple[str, ...] | None = None
    """None: an agent finds the verification; empty: none."""
    follow_base: bool = False
    timeout_seconds: float | None = None

    @staticmethod
    def from_object(raw: Obj | None) -> Integration:
        """Decode an ``integration`` block."""
        raw = raw or {}
        follow = raw.get("followBase", False)
        return Integration(_verify(raw), follow, raw.get("timeoutSeconds"))


@dataclass(frozen=True, slots=True)
class ProjectSpec:
    """``Project.spec``."""

    title: str
    repository: Repository
    tasks: tuple[TaskTemplate, ...]
    planner: Planner | None
    workers: tuple[str, ...]
    """Names of swarms."""
    integration: Integration
    retry: Retry
    """Complete."""
    task_timeout_seconds: float | None
    stall_timeout_seconds: float | None
    budget: Budget
    max_parallel: int | None
    suspend: bool

    @staticmethod
    def from_object(obj: Obj) -> ProjectSpec:
        """Decode an admitted Project."""
        spec = obj["spec"]
        get = spec.get
        planner = get("planner")
        return ProjectSpec(
            get("title", ""),
            Repository.from_object(spec["repository"]),
            tuple(map(TaskTemplate.from_object, get("tasks", ()))),
            Planner.from_object(planner) if planner else None,
            tuple(w["swarm"] for w in spec["workers"]),
            Integration.from_object(get("integration")),
            Retry.from_object(get("retry", {})).over(DEFAULT_RETRY),
            get("taskTimeoutSeconds"),
            get("stallTimeoutSeconds"),
            Budget.from_object(get("budget")),
            get("maxParallel"),
            get("suspend", False),
        )
