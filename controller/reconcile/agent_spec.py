"""What a swarm's agent is told and given: its prompt, its persona, its environment.

Three things come of it.  What ``worker.json`` says, without any secret; the environment, which
travels apart from it; and the identity, a change of which makes running workers out of date.
Inherited values and what ``${VAR}`` stands for are not part of the identity: a controller that is
started again from another shell must not replace every worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from controller.reconcile.agent_settings import BadSettings, readable_settings
from controller.reconcile.context import Context
from controller.resources import environment, personas
from controller.resources.settings import EnvProfile
from controller.resources.texts import Unresolved
from controller.store.base import Resource

_APART = frozenset({"env", "envProfile", "persona", "runtime"})
"""Fields of ``agent`` that the worker gets in another form."""
_SCRYPT = {"n": 2**13, "r": 8, "p": 1, "dklen": 16}  # 20 ms and 8 MiB, once for each value


@dataclass(frozen=True, slots=True)
class Agent:
    """A swarm's agent, resolved."""

    config: Mapping[str, Any]
    """For ``worker.json``."""
    env: Mapping[str, str] = field(repr=False)
    identity: Mapping[str, Any]
    """Says whether workers are out of date; from it no secret can be found out."""
    model: str
    """As the manifest names it, else the profile; empty: the runtime's own."""


@dataclass(frozen=True, slots=True)
class _Environment:
    """Variables, and which of them must not be told."""

    values: Mapping[str, str] = field(repr=False)
    secrets: frozenset[str]
    identity: Mapping[str, Any]


def resolve_agent(ctx: Context, obj: Resource, result: Mapping[str, Any]) -> Agent | Unresolved:
    """The agent of effective settings, or what of it cannot be had."""
    agent = result["agent"]
    prompt = ctx.text(obj, result, "systemPrompt")
    if isinstance(prompt, Unresolved):
        return prompt
    persona = personas.resolve_persona(obj, agent.get("persona"), ctx.store.get, ctx.sources)
    if isinstance(persona, Unresolved):
        return persona
    profile = _profile(ctx, agent)
    if isinstance(profile, Unresolved):
        return profile
    env = _environment(ctx, obj, agent, profile)
    if isinstance(env, Unresolved):
        return env
    model = agent.get("model") or (profile.model if profile else "")
    try:
        told = readable_settings({k: v for k, v in agent.items() if k not in _APART})
    except BadSettings as error:
        return Unresolved("AgentConfigInvalid", str(error))
    own = {
        "runtime": agent["runtime"],
        "agent": {**told, "model": model} if model else told,
        "systemPrompt": prompt or "",
    }
    standing = {
        "instructions": personas.with_baseline(persona),
        "skills": dict(persona.skills),
    }
    identity: dict[str, Any] = {"config": own, **env.identity}
    if persona.instructions or persona.skills:
        identity["persona"] = [persona.instructions, dict(persona.skills)]
    return Agent(
        config={**own, "persona": standing, "secretNames": sorted(env.secrets)},
        env=env.values,
        identity=identity,
        model=model,
    )


def _profile(ctx: Context, agent: Mapping[str, Any]) -> EnvProfile | Unresolved | None:
    name = agent.get("envProfile")
    if name is None:
        return None
    found = ctx.settings.env_profiles.get(name)
    if found is None:
        there = ", ".join(sorted(ctx.settings.env_profiles)) or "none"
        message = (
            f"agent.envProfile: the controller's settings have no profile {name!r} "
            f"under envProfiles (there is: {there})"
        )
        return Unresolved("EnvProfileNotFound", message)
    return found


def _environment(
    ctx: Context, obj: Resource, agent: Mapping[str, Any], profile: EnvProfile | None
) -> _Environment | Unresolved:
    """Explicit variables over those of the profile, or over what is inherited."""
    items = agent.get("env") or ()
    explicit = ctx.environment(obj, items)
    if isinstance(explicit, Unresolved):
        return explicit
    given: dict[str, str]
    needed: dict[str, list[str]] = {}
    if profile is None:
        given = environment.inherited(agent["runtime"], ctx.environ)
    else:
        missing = environment.missing(profile.env, ctx.environ)
        if missing:
            return _not_set(agent["envProfile"], missing)
        given = {name: environment.fill(text, ctx.environ) for name, text in profile.env.items()}
        needed = {name: environment.variables(text) for name, text in profile.env.items()}
    values = {**given, **explicit}
    for name, value in values.items():
        if "\0" in value:
            message = f"env {name}: has a zero byte, which no environment can hold"
            return Unresolved("EnvironmentInvalid", message)
    referenced = {item["name"] for item in items if "valueFrom" in item}
    secrets = {
        name
        for name, value in values.items()
        if name in referenced
        or environment.is_credential(
            name, value, needed.get(name, ()) if name not in explicit else ()
        )
    }
    uid = obj["metadata"]["uid"]
    identity: dict[str, Any] = {
        "env": {
            name: _digest(uid, value) if name in referenced else value
            for name, value in explicit.items()
        }
    }
    if profile is not None:
        identity["profile"] = {
            name: _digest(uid, text) if _literal_secret(name, text) else text
            for name, text in profile.env.items()
        }
    return _Environment(values, frozenset(secrets), identity)


def _literal_secret(name: str, template: str) -> bool:
    """Whether a profile's value is a secret itself, and not only where one is taken from."""
    taken = [f"${{{needed}}}" for needed in environment.variables(template)]
    return environment.is_credential(name, template) and [template] != taken


def _not_set(profile: str, missing: list[tuple[str, str]]) -> Unresolved:
    listed = ", ".join(f"{needed} (for {name})" for name, needed in missing[:10])
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    message = (
        f"agent.envProfile {profile}: not set in the environment of the controller: {listed}{more}"
    )
    return Unresolved("EnvironmentVariableNotSet", message)


@lru_cache(maxsize=4096)
def _digest(salt: str, value: str) -> str:
    """What tells that a secret has changed.

    The hash of a worker's spec is in status, where more people look than may read Secrets: one
    who tries candidates pays for each.
    """
    return hashlib.scrypt(
        value.encode("utf-8", "surrogatepass"),
        salt=salt.encode(),
        n=_SCRYPT["n"],
        r=_SCRYPT["r"],
        p=_SCRYPT["p"],
        dklen=_SCRYPT["dklen"],
    ).hex()
