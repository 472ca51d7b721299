"""Settings of an agent that are checked before any worker begins, and made easy to read for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.runtimes import codex_toml


class BadSettings(Exception):
    """Settings that no worker could begin with; the text names the field."""


def readable_settings(agent: Mapping[str, Any]) -> dict[str, Any]:
    """The ``agent`` block of ``worker.json``, with Codex's configuration as a table.

    So nodes need not read TOML, which old Pythons cannot.

    Raises: BadSettings.
    """
    codex = agent.get("codex") or {}
    if "config" not in codex:
        return dict(agent)
    try:
        table = codex_toml.loads(codex["config"])
        codex_toml.dumps(table)
    except codex_toml.TomlError as error:
        raise BadSettings(f"agent.codex.config is not valid TOML: {error}") from None
    return {**agent, "codex": {**codex, "config": table}}
