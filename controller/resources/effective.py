"""What a Swarm comes to: its own spec over that of its class over the built-in defaults.

Objects merge by field, ``env`` by name, other lists replace.  Fields of which only one of
several may be set (``systemPrompt`` and ``systemPromptFrom``, a persona, a source of a value)
go together: the Swarm's choice replaces that of the class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

FIELDS = (
    "provider",
    "agent",
    "systemPrompt",
    "systemPromptFrom",
    "launch",
    "termination",
    "heartbeatTimeoutSeconds",
    "startupGraceSeconds",
    "approvals",
    "workspaceSubdir",
)
"""What a class can give."""

PROVIDERS = ("local", "slurm", "aws")
SOFT_HARD_SECONDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"local": (120, 480), "slurm": (900, 2700), "aws": (900, 2700)}
)
"""Launch deadlines by kind of provider."""

_WHOLE = frozenset({"persona", "sshKeyFrom", "valueFrom", "match"})
_MAX_STATUS_TEXT = 1024
_RETRY = {"attempts": 4, "delaySeconds": 1.5}
_AGENT = {
    "runtime": "codex",
    "approvalPolicy": "never",
    "sandboxMode": "workspace-write",
    "networkAccess": False,
    "freshThreadPerPrompt": False,
}
_COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "heartbeatTimeoutSeconds": 30,
        "startupGraceSeconds": 10,
        "termination": {"gracePeriodSeconds": 45, "archive": False},
        "approvals": {"timeoutSeconds": 86400, "defaultDecision": "deny"},
        "workspaceSubdir": "repo",
    }
)
_PARAMETERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "local": {},
        "slurm": {"retry": _RETRY, "tools": {"install": False}},
        "aws": {
            "workersPerInstance": 1,
            "spot": False,
            "sshUser": "ubuntu",
            "sshPort": 22,
            "usePrivateIp": False,
            "deviceName": "/dev/sdf",
            "volume": {"sizeGib": 100, "type": "gp3", "deleteOnTermination": False},
            "tools": {"install": False},
            "retry": _RETRY,
        },
    }
)
_RUNTIMES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"codex": {}, "claude": {}, "mock": {"mock": {"delaySeconds": 0}}}
)


def effective(
    swarm_spec: Mapping[str, Any], class_spec: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The effective settings; ``provider`` is missing where neither names one.

    A class of another kind of provider than the Swarm's own gives no provider parameters.
    """
    own = {k: swarm_spec[k] for k in FIELDS if k in swarm_spec}
    given = {k: v for k, v in (class_spec or {}).items() if k in FIELDS}
    if "systemPrompt" in own or "systemPromptFrom" in own:
        given = {k: v for k, v in given.items() if not k.startswith("systemPrompt")}
    kind = provider_kind(own) or provider_kind(given)
    if "provider" in given and provider_kind(given) != kind:
        del given["provider"]
    named = merge(given, own)
    result = merge(_built_in(named, kind), named)
    if swarm_spec.get("className"):
        result["className"] = swarm_spec["className"]
    return result


def provider_kind(spec: Mapping[str, Any]) -> str:
    """``local``, ``slurm`` or ``aws``: the key under ``provider``; empty where there is none."""
    return next((kind for kind in PROVIDERS if kind in (spec.get("provider") or {})), "")


def _built_in(named: Mapping[str, Any], kind: str) -> dict[str, Any]:
    agent = named.get("agent") or {}
    runtime = agent.get("runtime", _AGENT["runtime"])
    defaults = {**_AGENT, **_RUNTIMES.get(runtime, {})}
    if runtime == "codex":
        defaults["codex"] = {"inheritLogin": kind == "local"}
    if "container" in agent:
        defaults["container"] = {"engine": "docker", "pullPolicy": "IfNotPresent"}
    soft, hard = SOFT_HARD_SECONDS.get(kind, SOFT_HARD_SECONDS["local"])
    result: dict[str, Any] = {**_COMMON, "agent": defaults, "launch": _deadlines(named, soft, hard)}
    if kind:
        result["provider"] = {kind: dict(_PARAMETERS[kind])}
    return result


def _deadlines(named: Mapping[str, Any], soft: float, hard: float) -> dict[str, float]:
    """Built-in deadlines that do not contradict the one that is given."""
    given = named.get("launch") or {}
    if "hardTimeoutSeconds" in given:
        soft = min(soft, given["hardTimeoutSeconds"])
    if "softTimeoutSeconds" in given:
        hard = max(hard, given["softTimeoutSeconds"])
    return {"softTimeoutSeconds": soft, "hardTimeoutSeconds": hard}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``under``: by field, ``env`` by name, other lists as a whole."""
    result = {name: _copy(value) for name, value in under.items()}
    for name, value in over.items():
        below = result.get(name)
        if name == "env" and isinstance(value, list) and isinstance(below, list):
            by_name = {item["name"]: item for item in below}
            by_name.update((item["name"], _copy(item)) for item in value)
            result[name] = list(by_name.values())
        elif isinstance(value, Mapping) and isinstance(below, Mapping) and name not in _WHOLE:
            result[name] = merge(below, value)
        else:
            result[name] = _copy(value)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def for_status(result: Mapping[str, Any]) -> dict[str, Any]:
    """Effective settings as ``status.effective`` may show them.

    Of ``env`` the names and sources, never a value; long texts are cut, but for the provider's:
    workers are reached by them (``knownHosts``).
    """
    shown: dict[str, Any] = _shortened(result)
    if "provider" in result:
        shown["provider"] = copy.deepcopy(result["provider"])
    agent = shown.get("agent", {})
    if "env" in agent:
        agent["env"] = [{k: v for k, v in item.items() if k != "value"} for item in agent["env"]]
    return shown


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and len(value) > _MAX_STATUS_TEXT:
        return value[: _MAX_STATUS_TEXT - 3] + "..."
    return value


def missing_parameters(result: Mapping[str, Any]) -> list[str]:
    """Fields that the provider cannot do without and that nobody gave, as paths."""
    kind = provider_kind(result)
    needed = {
        "slurm": ("loginHost", "workspaceRoot"),
        "aws": ("region", "amiId", "instanceType", "workspaceRoot"),
    }.get(kind, ())
    given = (result.get("provider") or {}).get(kind) or {}
    return [f"provider.{kind}.{name}" for name in needed if name not in given]
