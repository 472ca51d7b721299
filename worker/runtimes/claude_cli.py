"""Claude Code's program: where it is, whether it can be used, how it is started."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from worker.config import AgentConfig
from worker.errors import RuntimeUnusable
from worker.runtimes.claude_policy import NETWORK_TOOLS

MIN_VERSION = (2, 1, 330)
"""Results of older ones do not say what was used since the last, which resuming makes needed."""
MIN_SDK = (0, 2, 187)
VERSION_SECONDS = 30.0

CREDENTIALS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
)
"""Variables of which Claude Code needs one."""

TOOLS = (
    "Bash", "Read", "Edit", "Write", "NotebookEdit", "Glob", "Grep", "WebFetch", "WebSearch",
    "Agent", "Task", "Skill", "TodoWrite", "TaskCreate", "TaskGet", "TaskList", "TaskUpdate",
)  # fmt: skip
"""What the agent is offered: nothing that outlives its turn or waits for a person's typing."""

RETRIES_VARIABLE = "CLAUDE_CODE_MAX_RETRIES"
RETRIES = 2
"""Calls to the provider are repeated so often within a turn; then the controller decides."""

_VERSION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})")


@dataclass(frozen=True)
class Cli:
    """The program that was found."""

    path: Path
    version: str


def find(configured: str, environ: Mapping[str, str]) -> Cli:
    """The program that a swarm is to use: ``agent.claude.cliPath``, else what the SDK brings.

    Args:
        configured: the setting; empty: none. Without a slash it is looked for on the path.
        environ: the agent's environment.

    Raises: RuntimeUnusable.
    """
    package = _package()
    if configured:
        path = shutil.which(configured, path=environ.get("PATH"))
        if path is None:
            raise RuntimeUnusable(
                "AgentNotInstalled",
                f"agent.claude.cliPath: there is no program {configured!r} on this node",
            )
        found = Path(path).absolute()
    else:
        found = package / "_bundled" / "claude"
        if not found.is_file():
            path = shutil.which("claude", path=environ.get("PATH"))
            if path is None:
                raise RuntimeUnusable(
                    "AgentNotInstalled",
                    "Claude Code is not installed on this node: claude-agent-sdk has brought no "
                    "program for it, and there is none on the path; install Claude Code, or name "
                    "it in agent.claude.cliPath",
                )
            found = Path(path).absolute()
    return Cli(found, _checked_version(found, environ))


def _package() -> Path:
    """The folder of the installed SDK."""
    try:
        spec = importlib.util.find_spec("claude_agent_sdk")
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise RuntimeUnusable(
            "AgentNotInstalled",
            "claude-agent-sdk is not installed for the Python that runs this worker; install it "
            "with: pip install 'codeswarm[claude]'",
        )
    try:
        version = metadata.version("claude-agent-sdk")
    except metadata.PackageNotFoundError:
        version = ""
    match = _VERSION.match(version)
    if match is None or tuple(map(int, match.groups())) < MIN_SDK:
        least = ".".join(map(str, MIN_SDK))
        raise RuntimeUnusable(
            "AgentTooOld",
            f"claude-agent-sdk is {version or 'of an unknown version'}, and {least} or newer is "
            "needed: pip install -U 'codeswarm[claude]'",
        )
    return Path(spec.origin).parent


def _checked_version(path: Path, environ: Mapping[str, str]) -> str:
    version = version_of(path, environ)
    match = _VERSION.search(version)
    if match is None or tuple(map(int, match.groups())) < MIN_VERSION:
        least = ".".join(map(str, MIN_VERSION))
        raise RuntimeUnusable(
            "AgentTooOld",
            f"{path} is Claude Code {version or 'of an unknown version'}, and {least} or newer "
            "is needed; run `claude update`, or: pip install -U 'codeswarm[claude]'",
        )
    return match.group(0)


def version_of(path: Path, environ: Mapping[str, str]) -> str:
    """What the program says of its version.

    Raises: RuntimeUnusable if it does not run.
    """
    beside = path.with_name("claude.version")  # what the SDK notes beside the one it brings
    try:
        return beside.read_text().strip()
    except (OSError, UnicodeDecodeError):
        pass
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_SECONDS,
            env=dict(environ),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeUnusable("AgentNotInstalled", f"{path} does not run: {error}") from None
    return done.stdout.decode("utf-8", "replace").strip()[:200]


def check_credential(environ: Mapping[str, str]) -> None:
    """Raises: RuntimeUnusable, if nothing says how to sign in with the model's provider."""
    if any(environ.get(name) for name in CREDENTIALS):
        return
    raise RuntimeUnusable(
        "CredentialMissing",
        "Claude Code has no credential: give ANTHROPIC_API_KEY (or another of "
        f"{', '.join(CREDENTIALS[1:])}) in agent.env or an envProfile; "
        "a login of `claude` is not taken over (`claude setup-token` makes a token for "
        "CLAUDE_CODE_OAUTH_TOKEN)",
    )


def check_mode(agent: AgentConfig, environ: Mapping[str, str]) -> None:
    """Raises: RuntimeUnusable, if the permission mode cannot be used here."""
    mode = permission_mode(agent)
    if mode != "bypassPermissions":
        return
    if agent.sandbox_mode != "danger-full-access":
        raise RuntimeUnusable(
            "AgentConfigInvalid",
            "agent.claude.permissionMode bypassPermissions needs sandboxMode danger-full-access "
            f"(it is {agent.sandbox_mode})",
        )
    if os.geteuid() == 0 and not environ.get("IS_SANDBOX"):
        raise RuntimeUnusable(
            "AgentConfigInvalid",
            "agent.claude.permissionMode: Claude Code refuses bypassPermissions to root; leave "
            "permissionMode away (approvalPolicy never with sandboxMode danger-full-access "
            "allows the same), or set IS_SANDBOX=1 in agent.env where the worker really runs in "
            "a sandbox",
        )


def permission_mode(agent: AgentConfig) -> str:
    """The mode that Claude Code runs in."""
    mode = agent.claude.get("permissionMode")
    return mode if isinstance(mode, str) and mode else "default"


def environment(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """All variables of the program.

    Args:
        environ: the agent's environment.
        folder: the worker's own for Claude Code's configuration and conversations.
    """
    kept = {name: value for name, value in environ.items() if name != "CLAUDECODE"}
    return {
        RETRIES_VARIABLE: str(RETRIES),
        "CLAUDE_CODE_DISABLE_BUNDLED_SKILLS": "1",
        **kept,
        "CLAUDE_CONFIG_DIR": str(folder),
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        # It then says how long the provider asks to wait, also where that is long; it would wait
        # itself, which ``TurnEvents`` does not let it.
        "CLAUDE_CODE_RETRY_WATCHDOG": "1",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_SHELL_HEAD_START": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def retries(environ: Mapping[str, str]) -> int:
    """How often a call to the provider is repeated within a turn."""
    text = environ.get(RETRIES_VARIABLE, "")
    return int(text) if text.isdecimal() else RETRIES


def command_line(
    cli: Cli,
    agent: AgentConfig,
    *,
    session: str,
    resume: bool,
    settings: Path,
    instructions: Path,
    online: bool,
) -> list[str]:
    """The program's arguments; no secret is among them.

    Args:
        session: the conversation's id.
        resume: whether it is there already.
        settings, instructions: files with Claude Code's settings and the text to be added to
            its system prompt.
        online: whether the tools that fetch from the network are offered.
    """
    tools = [name for name in TOOLS if online or name not in NETWORK_TOOLS]
    argv = [
        str(cli.path), "--output-format", "stream-json", "--verbose",
        "--input-format", "stream-json", "--include-partial-messages",
        "--permission-prompt-tool", "stdio", "--permission-mode", permission_mode(agent),
        "--setting-sources=user", "--strict-mcp-config", "--tools", ",".join(tools),
        "--settings", str(settings), "--append-system-prompt-file", str(instructions),
    ]  # fmt: skip
    if agent.model:
        argv += ["--model", agent.model]
    return [*argv, f"--resume={session}" if resume else f"--session-id={session}"]


def settings_text(sandbox: Mapping[str, Any] | None) -> str:
    """Claude Code's settings file."""
    settings: dict[str, Any] = {"includeCoAuthoredBy": False}
    if sandbox is not None:
        settings["sandbox"] = sandbox
    return json.dumps(settings)
