"""What ``doctor`` says of agents: which of them are here, and which credentials there are, by name.

A value is never read further than that it is not empty, and never shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.checks import Check
from controller.resources.conditions import find
from controller.resources.environment import PROVIDER_VARIABLES, is_credential
from worker.errors import RuntimeUnusable
from worker.runtimes import claude_cli, claude_sandbox, codex_program

if TYPE_CHECKING:
    from controller.store.base import Resource


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of an agent."""

    version: str = ""
    """Empty: it is not here."""
    trouble: str = ""
    """Why it cannot be used, though it is here."""


@dataclass(frozen=True, slots=True)
class Agent:
    """How an agent is found."""

    runtime: str
    find: Callable[[Mapping[str, str], str], Found]
    """Its version, by the environment and the path that a swarm names, if one does."""
    install: str
    """What installs it."""
    login: Callable[[Mapping[str, str]], Path | None]
    """The file of a login that its own program keeps."""


def of_home(environ: Mapping[str, str], swarms: Iterable[Resource]) -> Iterator[Check]:
    """One line for each agent, and one for each swarm that its provider refuses.

    Args:
        environ: the controller's variables if it runs, else this shell's.
        swarms: what is stored; an agent that none of them asks for may be missing.
    """
    swarms = list(swarms)
    wanted = {_runtime(swarm) for swarm in swarms}
    for agent in AGENTS:
        found = agent.find(environ, _named(agent.runtime, swarms))
        yield _agent(agent, found, environ, wanted=agent.runtime in wanted)
    for swarm in swarms:
        held = find((swarm.get("status") or {}).get("conditions") or [], "QuotaAvailable")
        if held is not None and held["status"] == "False":
            name = f"swarm/{swarm['metadata']['name']}"
            yield Check("WARN", "provider", f"{name}: {held['reason']}: {held['message']}")


def environment(pid: int | None) -> Mapping[str, str]:
    """The variables of a process of ours, or of this one where that cannot be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
    except OSError:
        data = b""
    pairs = (part.partition("=") for part in data.decode("utf-8", "replace").split("\0") if part)
    return {name: value for name, _, value in pairs} or os.environ


def _settings(swarm: Resource) -> Mapping[str, Any]:
    status, spec = swarm.get("status") or {}, swarm["spec"]
    found: Mapping[str, Any] = (status.get("effective") or {}).get("agent") or spec.get("agent")
    return found or {}


def _runtime(swarm: Resource) -> str:
    return str(_settings(swarm).get("runtime") or "codex")


def _named(runtime: str, swarms: Iterable[Resource]) -> str:
    """The program that a swarm names for its agent; empty if none does."""
    field = {"claude": "cliPath"}.get(runtime, "path")
    named = ((_settings(swarm).get(runtime) or {}).get(field) for swarm in swarms)
    return next((str(path) for path in named if path), "")


def _agent(agent: Agent, found: Found, environ: Mapping[str, str], *, wanted: bool) -> Check:
    version, names = found.version, credentials(agent, environ)
    if found.trouble:
        return Check("WARN" if wanted else "OK", agent.runtime, found.trouble, agent.install)
    if not version:
        if wanted:
            text = f"not installed, and a swarm asks for runtime: {agent.runtime}"
            return Check("WARN", agent.runtime, text, agent.install)
        return Check("OK", agent.runtime, "not installed; no swarm asks for it")
    if names:
        return Check("OK", agent.runtime, f"{version}, credentials: {', '.join(names)}")
    text = f"{version}, without a credential that is inherited"
    return Check("WARN" if wanted else "OK", agent.runtime, text, "or give one in agent.env")


def credentials(agent: Agent, environ: Mapping[str, str]) -> list[str]:
    """The names of the credentials that workers would inherit, never their values."""
    names = sorted(PROVIDER_VARIABLES[agent.runtime])
    found = [name for name in names if environ.get(name) and is_credential(name)]
    login = agent.login(environ)
    return [*found, *([f"login in {login}"] if login is not None and login.is_file() else [])]


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    own = environ.get(variable)
    return Path(own) if own else Path(environ.get("HOME") or Path.home()) / default


def _codex(environ: Mapping[str, str], named: str) -> Found:
    try:
        program = codex_program.locate(named, environ)
    except RuntimeUnusable as error:
        return Found(trouble=error.message if named else "")
    version = program.version(environ)
    if not version:
        return Found(trouble=f"{program.path} does not run")
    try:
        codex_program.check_version(version)
    except RuntimeUnusable as error:
        return Found(trouble=error.message)
    return Found(version)


def _claude(environ: Mapping[str, str], named: str) -> Found:
    try:
        cli = claude_cli.find(named, environ)
    except RuntimeUnusable as error:
        missing = error.reason == "AgentNotInstalled" and not named
        return Found(trouble="" if missing else error.message)
    hindrance = claude_sandbox.hindrance(environ)
    confined = f", its commands are not confined: {hindrance}" if hindrance else ""
    return Found(f"{cli.version}{confined}")


AGENTS = (
    Agent(
        "codex",
        _codex,
        "npm install -g @openai/codex",
        lambda environ: _home(environ, "CODEX_HOME", ".codex") / "auth.json",
    ),
    Agent(
        "claude",
        _claude,
        "pip install 'codeswarm[claude]'",
        lambda environ: None,  # a login of `claude` is not taken over
    ),
)
"""The agents that somebody has to install; the scripted one is always there."""
