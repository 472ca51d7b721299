"""What ``doctor`` says of agents: which of them are here, and which credentials there are, by name.

A value is never read further than that it is not empty, and never shown.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.checks import Check
from controller.domain.credential import VARIABLES
from controller.resources.conditions import find

if TYPE_CHECKING:
    from controller.store.base import Resource

VERSION_SECONDS = 10.0
SECRET = ("_KEY", "_TOKEN", "_CREDENTIALS", "_KEY_ID")
"""Ends of the names of variables that are a credential, and not an address or a switch."""


@dataclass(frozen=True, slots=True)
class Agent:
    """How an agent is found."""

    runtime: str
    find: Callable[[Mapping[str, str]], str]
    """Its version; empty if it is not here."""
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
        yield _agent(agent, environ, wanted=agent.runtime in wanted)
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


def _runtime(swarm: Resource) -> str:
    status, spec = swarm.get("status") or {}, swarm["spec"]
    agent = (status.get("effective") or {}).get("agent") or spec.get("agent") or {}
    return str(agent.get("runtime") or "codex")


def _agent(agent: Agent, environ: Mapping[str, str], *, wanted: bool) -> Check:
    version, names = agent.find(environ), credentials(agent, environ)
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
    found = [
        name for name in VARIABLES[agent.runtime] if environ.get(name) and name.endswith(SECRET)
    ]
    login = agent.login(environ)
    return [*found, *([f"login in {login}"] if login is not None and login.is_file() else [])]


def _home(environ: Mapping[str, str], variable: str, default: str) -> Path:
    own = environ.get(variable)
    return Path(own) if own else Path(environ.get("HOME") or Path.home()) / default


def _codex(environ: Mapping[str, str]) -> str:
    path = shutil.which("codex", path=environ.get("PATH"))
    if path is None:
        return ""
    try:
        done: Any = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{path} does not run: {error}"
    return str(done.stdout).strip().removeprefix("codex-cli ") or path


def _claude(environ: Mapping[str, str]) -> str:
    try:
        return f"claude-agent-sdk {metadata.version('claude-agent-sdk')}"
    except metadata.PackageNotFoundError:
        return ""


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
        lambda environ: _home(environ, "CLAUDE_CONFIG_DIR", ".claude") / ".credentials.json",
    ),
)
"""The agents that somebody has to install; the scripted one is always there."""
