"""What a Swarm comes to: its class, the built-in defaults and its references, resolved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.domain.rules import problem as rules_problem
from controller.reconcile.agent_spec import resolve_agent
from controller.reconcile.context import Context, secrets_of, sibling
from controller.resources import cloud_limits
from controller.resources.cloud_credentials import credentials_in
from controller.resources.effective import effective, for_status, missing_parameters
from controller.resources.texts import Unresolved
from controller.store.base import Resource

WAYS_IN = frozenset(
    {"port", "identityFile", "sshKeyFrom", "knownHostsFile", "knownHosts", "jumpHost", "retry"}
    | {"sshPort", "sshUser", "usePrivateIp"}
)
"""Parameters that say how workers are reached: another way to them gives nobody another worker."""
NOT_THEIRS = frozenset({"volume", "tags", "deviceName", "instanceCount", "workersPerInstance"})
"""Parameters that hold for what is rented from now on, and leave what is there as it is."""
LOOSE = WAYS_IN | NOT_THEIRS
"""Parameters that may change without another worker."""
NOT_YET = ("container",)
"""Settings of an agent that would be without effect in this version, and are refused instead."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a swarm cannot be started: a condition's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Launchable:
    """Everything needed to start the workers of a swarm."""

    effective: Mapping[str, Any]
    provider: str
    parameters: Mapping[str, Any]
    replicas: int
    allowed: int
    """How many of them the limits of this machine leave room for."""
    hash: str
    worker_config: Mapping[str, Any]
    env: Mapping[str, str] = field(repr=False)
    soft_timeout: float
    hard_timeout: float
    heartbeat_timeout: float
    startup_grace: float

    @property
    def begins_with_a_turn(self) -> bool:
        """Whether a worker asks its model as soon as it is started: for its system prompt."""
        agent = self.worker_config.get("agent") or {}
        return bool(self.worker_config.get("systemPrompt")) and not agent.get(
            "freshThreadPerPrompt"
        )


def resolve_swarm(ctx: Context, obj: Resource) -> Launchable | Problem:
    """Resolve a Swarm, or say exactly what is missing."""
    result = _settings(ctx, obj)
    if isinstance(result, Problem):
        return result
    providers = list((result.get("provider") or {}).items())
    if len(providers) != 1:
        return Problem("ProviderMissing", "neither spec.provider nor the class names a provider")
    missing = missing_parameters(result)
    if missing:
        return Problem("ParametersMissing", f"neither spec nor class gives {', '.join(missing)}")
    provider, parameters = providers[0]
    refused = _refused(ctx, parameters or {}) if provider == "aws" else None
    if refused is not None:
        return refused
    if provider not in ctx.providers:
        here = ", ".join(sorted(ctx.providers))
        return Problem(
            "ProviderNotAvailable",
            f"provider {provider!r} is not available here (there is: {here})",
        )
    return _launchable(ctx, obj, result, provider, parameters)


def _refused(ctx: Context, block: Mapping[str, Any]) -> Problem | None:
    """Why a swarm may not be on AWS like this."""
    leaked = credentials_in(block, "spec.provider.aws")
    if leaked:
        return Problem(
            "CredentialsInManifest",
            f"{', '.join(leaked)}: holds what looks like a credential. Take it out, and renew it, "
            "since it may have been read: the controller takes its own from its environment, and "
            "instances get theirs by iamInstanceProfile",
        )
    found = cloud_limits.refusal(block, ctx.settings.aws, trusted=ctx.sources.files)
    return Problem(*found) if found else None


def _settings(ctx: Context, obj: Resource) -> dict[str, Any] | Problem:
    """What the swarm, its class and the built-in defaults say."""
    class_spec = None
    name = obj["spec"].get("className")
    if name:
        found = ctx.store.get(sibling(obj, "SwarmClass", name))
        if found is None:
            return Problem("SwarmClassNotFound", f"there is no SwarmClass {name!r} here")
        class_spec = found["spec"]
    return effective(obj["spec"], class_spec)


def last_settings(ctx: Context, obj: Resource) -> Mapping[str, Any]:
    """What a swarm's manifest says now; where its class is gone, as it was last resolved.

    Who changes how it shall end and deletes it at once means what was said last.
    """
    found = _settings(ctx, obj)
    if not isinstance(found, Problem):
        return found
    return (obj.get("status") or {}).get("effective") or effective(obj["spec"], None)


def _launchable(
    ctx: Context, obj: Resource, result: Mapping[str, Any], provider: str, parameters: Any
) -> Launchable | Problem:
    agent = result["agent"]
    unknown = [name for name in NOT_YET if name in agent]
    if unknown:
        fields = ", ".join(f"agent.{name}" for name in unknown)
        return Problem("FieldNotAvailable", f"{fields}: not available in this version")
    wrong = rules_problem((result.get("approvals") or {}).get("rules") or ())
    if wrong:
        return Problem("ApprovalRulesInvalid", wrong)
    resolved = resolve_agent(ctx, obj, result)
    if isinstance(resolved, Unresolved):
        return Problem(resolved.reason, resolved.message)
    secrets = secrets_of(ctx, obj["metadata"]["namespace"], parameters or {})
    if isinstance(secrets, Unresolved):
        return Problem(secrets.reason, secrets.message)
    place = {"workspaceSubdir": result["workspaceSubdir"]}
    if provider == "local":  # elsewhere no path of ours means anything
        place |= {"stores": str(ctx.stores), "node": provider}
    identity = {
        **resolved.identity,
        "place": place,
        "provider": provider,
        "parameters": parameters
        and {name: value for name, value in parameters.items() if name not in LOOSE},
    }
    if resolved.model:
        result = {**result, "agent": {**agent, "model": resolved.model}}
    return Launchable(
        effective=for_status(result),
        provider=provider,
        parameters=parameters or {},
        replicas=obj["spec"].get("replicas", 1),
        allowed=allowed(ctx, obj, provider),
        hash=_digest(identity),
        worker_config={**resolved.config, **place},
        env=resolved.env,
        soft_timeout=float(result["launch"]["softTimeoutSeconds"]),
        hard_timeout=float(result["launch"]["hardTimeoutSeconds"]),
        heartbeat_timeout=float(result["heartbeatTimeoutSeconds"]),
        startup_grace=float(result["startupGraceSeconds"]),
    )


def held(ctx: Context, obj: Resource) -> Launchable | None:
    """A swarm as it was last resolved: enough to mind its workers, not to start any."""
    status = obj.get("status") or {}
    provider, parameters = place_of(ctx, obj)
    if not provider:
        return None
    known = {**status["effective"], "provider": {provider: dict(parameters)}}
    return Launchable(
        effective=known,
        provider=provider,
        parameters=parameters,
        replicas=obj["spec"].get("replicas", 1),
        allowed=obj["spec"].get("replicas", 1),
        hash="",
        worker_config={},
        env={},
        soft_timeout=float(known["launch"]["softTimeoutSeconds"]),
        hard_timeout=float(known["launch"]["hardTimeoutSeconds"]),
        heartbeat_timeout=float(known["heartbeatTimeoutSeconds"]),
        startup_grace=float(known["startupGraceSeconds"]),
    )


HOST = ("loginHost", "user", "region", "endpointUrl")
PLACE = (*HOST, "workspaceRoot")
"""Parameters that say where workers live: with others, those that run would not be found."""


def place_of(ctx: Context, obj: Resource) -> tuple[str, Mapping[str, Any]]:
    """The provider, and its parameters, with which the swarm's workers are found.

    Where they live is what they were started with.  How that is reached, and what becomes of a
    volume, is what spec and class say now, as long as they speak of the same host: its key may be
    another one since.

    Returns: an empty name for a swarm that has not been resolved yet.
    """
    kind, known = _provider_of((obj.get("status") or {}).get("effective") or {})
    settings = _settings(ctx, obj)
    now_kind, now = ("", {}) if isinstance(settings, Problem) else _provider_of(settings)
    if now_kind != kind or any(known.get(name) != now.get(name) for name in HOST):
        return kind, known
    there = {name: value for name, value in known.items() if name not in LOOSE}
    return kind, there | {name: value for name, value in now.items() if name in LOOSE}


def _provider_of(settings: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    kind, parameters = next(iter((settings.get("provider") or {}).items()), ("", {}))
    return kind, parameters or {}


def placed_elsewhere(obj: Resource, want: Launchable) -> bool:
    """Whether workers may live where ``want`` does not look for them."""
    kind, old = _provider_of((obj.get("status") or {}).get("effective") or {})
    if not kind:
        return False
    return kind != want.provider or any(old.get(n) != want.parameters.get(n) for n in PLACE)


def allowed(ctx: Context, obj: Resource, provider: str) -> int:
    """How many workers the limits of this machine leave room for, as things stand now.

    They keep swarms from growing, and end no worker that is there already.
    """
    replicas = int(obj["spec"].get("replicas", 1))
    if provider != "local":
        return replicas
    uid, mine = obj["metadata"]["uid"], len((obj.get("status") or {}).get("workers") or ())
    others = sum(
        max(len(s.workers), s.replicas)
        for s in ctx.world.swarms.values()
        if s.provider == provider and s.uid != uid
    )
    return min(replicas, max(ctx.settings.limits.local_workers - others, mine, 0))


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
