"""Which credential an agent uses with its model's provider: swarms of the same one pause together.

The identity is a digest that stays in memory.  What status shows of it is too short to confirm a
guess of the secret, and long enough to see that it is another one.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from controller.resources.environment import is_credential

SHOWN = 4
"""Hexadecimal digits of a digest that are shown: 16 bits of what has 128 or more."""
VARIABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "codex": (
            "AZURE_OPENAI_API_KEY",
            "CODEX_API_KEY",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "OPENAI_ORGANIZATION",
            "OPENAI_PROJECT",
        ),
        "claude": (
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_BEDROCK_BASE_URL",
            "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_FOUNDRY_API_KEY",
            "ANTHROPIC_FOUNDRY_BASE_URL",
            "ANTHROPIC_FOUNDRY_RESOURCE",
            "ANTHROPIC_VERTEX_BASE_URL",
            "ANTHROPIC_VERTEX_PROJECT_ID",
            "AWS_ACCESS_KEY_ID",
            "AWS_BEARER_TOKEN_BEDROCK",
            "AWS_PROFILE",
            "AWS_REGION",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_FOUNDRY",
            "CLAUDE_CODE_USE_VERTEX",
            "CLOUD_ML_REGION",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        "mock": ("MOCK_API_KEY", "MOCK_BASE_URL"),
    }
)
"""By runtime: variables that say with what, and where, the agent is known to its provider."""


def credential_of(
    runtime: str, agent: Mapping[str, Any], env: Mapping[str, str], *, place: str, own: str
) -> str:
    """The identity of a swarm's credential, to be kept in memory only.

    Args:
        runtime: ``codex``, ``claude`` or ``mock``.
        agent: its settings.
        env: the variables that its workers get, with their values.
        place: where its workers run: a login is that of a machine.
        own: the swarm's uid; without a key the scripted agent has an account for each swarm.
    """
    names = [*VARIABLES.get(runtime, ()), *_named_by_codex(runtime, agent)]
    known = {name: env[name] for name in sorted(set(names)) if env.get(name)}
    parts: dict[str, Any] = {"runtime": runtime, "known": known}
    if runtime == "codex":
        parts["providers"] = _providers(agent)
    if not any(is_credential(name) for name in known):
        parts["login"] = own if runtime == "mock" else place
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(f"codeswarm credential\0{text}".encode()).hexdigest()


def shown(credential: str) -> str:
    """What may be seen of an identity."""
    return credential[:SHOWN]


def _config(agent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Codex's own configuration; what it will refuse itself says nothing here."""
    try:
        return tomllib.loads(str((agent.get("codex") or {}).get("config") or ""))
    except tomllib.TOMLDecodeError:
        return {}


def _providers(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The provider that is chosen, and the addresses of those that are described."""
    config = _config(agent)
    tables = config.get("model_providers")
    urls = {
        str(name): table.get("base_url")
        for name, table in (tables.items() if isinstance(tables, dict) else ())
        if isinstance(table, dict) and isinstance(table.get("base_url"), str)
    }
    return {"chosen": str(config.get("model_provider") or ""), "urls": urls}


def _named_by_codex(runtime: str, agent: Mapping[str, Any]) -> Iterator[str]:
    """Variables that Codex's configuration takes keys from (``env_key``)."""
    tables = _config(agent).get("model_providers") if runtime == "codex" else None
    for table in tables.values() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and isinstance(table.get("env_key"), str):
            yield table["env_key"]
