"""Typed, frozen views of Swarms and Approvals; those of Projects and Tasks are in ``views``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controller.resources.views import Budget, Obj


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """``agent`` of effective settings: everything that has a default is there."""

    runtime: str
    model: str
    pricing_model: str
    approval_policy: str
    sandbox_mode: str
    network_access: bool
    fresh_thread_per_prompt: bool
    env: tuple[Obj, ...]
    env_profile: str
    persona: Obj | None
    codex: Obj
    claude: Obj
    container: Obj | None
    mock: Obj

    @staticmethod
    def from_object(raw: Obj) -> AgentSpec:
        """Decode the ``agent`` of effective settings."""
        get = raw.get
        return AgentSpec(
            raw["runtime"],
            get("model", ""),
            get("pricingModel", ""),
            raw["approvalPolicy"],
            raw["sandboxMode"],
            raw["networkAccess"],
            raw["freshThreadPerPrompt"],
            tuple(get("env", ())),
            get("envProfile", ""),
            get("persona"),
            get("codex", {}),
            get("claude", {}),
            get("container"),
            get("mock", {}),
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """Deadlines of a launch, seconds."""

    soft_timeout_seconds: float
    hard_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Termination:
    """How workers end."""

    grace_period_seconds: float
    archive: bool
    archive_path: str


@dataclass(frozen=True, slots=True)
class Approvals:
    """Who answers when an agent asks."""

    timeout_seconds: float
    default_decision: str
    rules: tuple[Obj, ...]


@dataclass(frozen=True, slots=True)
class Routing:
    """Which swarms final answers may be sent to."""

    allow_to: tuple[str, ...] = ()
    max_hops: int = 3

    @staticmethod
    def from_object(raw: Obj | None) -> Routing:
        """Decode a ``routing`` block."""
        raw = raw or {}
        return Routing(tuple(raw.get("allowTo", ())), raw.get("maxHops", 3))


@dataclass(frozen=True, slots=True)
class SwarmSpec:
    """``Swarm.spec``, what a class can give in its effective form."""

    replicas: int
    class_name: str
    provider: str
    """``local``, ``slurm`` or ``aws``."""
    parameters: Obj
    """What stands under the provider."""
    agent: AgentSpec
    system_prompt: str | None
    system_prompt_from: Obj | None
    launch: Launch
    termination: Termination
    heartbeat_timeout_seconds: float
    startup_grace_seconds: float
    approvals: Approvals
    workspace_subdir: str
    routing: Routing
    budget: Budget

    @staticmethod
    def from_object(obj: Obj, effective: Mapping[str, Any]) -> SwarmSpec:
        """Decode an admitted Swarm and what ``effective.effective`` made of it and its class.

        Raises: ValueError (no provider, or several).
        """
        spec = obj["spec"]
        ((provider, parameters),) = effective.get("provider", {}).items()
        launch, termination = effective["launch"], effective["termination"]
        approvals = effective["approvals"]
        return SwarmSpec(
            spec.get("replicas", 1),
            spec.get("className", ""),
            provider,
            parameters,
            AgentSpec.from_object(effective["agent"]),
            effective.get("systemPrompt"),
            effective.get("systemPromptFrom"),
            Launch(launch["softTimeoutSeconds"], launch["hardTimeoutSeconds"]),
            Termination(
                termination["gracePeriodSeconds"],
                termination["archive"],
                termination.get("archivePath", ""),
            ),
            effective["heartbeatTimeoutSeconds"],
            effective["startupGraceSeconds"],
            Approvals(
                approvals["timeoutSeconds"],
                approvals["defaultDecision"],
                tuple(approvals.get("rules", ())),
            ),
            effective["workspaceSubdir"],
            Routing.from_object(spec.get("routing")),
            Budget.from_object(spec.get("budget")),
        )


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """``Approval.spec.request``."""

    id: str
    kind: str
    command: str
    tool: str
    arguments_digest: str
    directory: str
    reason: str
    diff: str
    paths: tuple[str, ...]
    decisions: tuple[str, ...]
    amendments: tuple[str, ...]
    truncated: bool
    swarm: str
    worker: int
    job: str
    task: str
    task_uid: str
    attempt: int
    injection_id: str
    asked_at: str
    expires_at: str
    default_decision: str

    @staticmethod
    def from_object(raw: Obj) -> ApprovalRequest:
        """Decode a ``request`` block."""
        get = raw.get
        return ApprovalRequest(
            raw["id"],
            raw["kind"],
            get("command", ""),
            get("tool", ""),
            get("argumentsDigest", ""),
            get("directory", ""),
            get("reason", ""),
            get("diff", ""),
            tuple(get("paths", ())),
            tuple(raw["decisions"]),
            tuple(get("amendments", ())),
            get("truncated", False),
            raw["swarm"],
            get("worker", 0),
            raw["job"],
            get("task", ""),
            get("taskUid", ""),
            get("attempt", 0),
            get("injectionId", ""),
            get("askedAt", ""),
            get("expiresAt", ""),
            get("defaultDecision", ""),
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """``Approval.spec.decision``."""

    value: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ApprovalSpec:
    """``Approval.spec``."""

    request: ApprovalRequest
    decision: Decision | None

    @staticmethod
    def from_object(obj: Obj) -> ApprovalSpec:
        """Decode an admitted Approval."""
        spec = obj["spec"]
        raw = spec.get("decision")
        decision = Decision(raw["value"], raw.get("by", ""), raw.get("reason", "")) if raw else None
        return ApprovalSpec(ApprovalRequest.from_object(spec["request"]), decision)
