"""Claude Code's own sandbox for commands: whether this node has it, and how it is set.

On Linux it is made of bubblewrap and socat, which have to be installed.  Without them commands run
unconfined, and what they may do is a matter of permission alone (see claude_policy.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.config import AgentConfig
from worker.runtimes.claude_cli import CREDENTIALS

PROBE_SECONDS = 10.0

_KEPT_BACK = (
    *CREDENTIALS, "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_FOUNDRY_API_KEY",
    "AWS_BEARER_TOKEN_BEDROCK",
)  # fmt: skip
"""Variables that commands do not get."""

_PROBE = (
    "--new-session", "--die-with-parent", "--unshare-net", "--unshare-pid",
    "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "true",
)  # fmt: skip


def hindrance(environ: Mapping[str, str]) -> str:
    """Why commands cannot be confined on this node; empty: they can.

    Args:
        environ: the agent's environment.
    """
    if sys.platform != "linux":
        return "Codeswarm uses Claude Code's sandbox on Linux only"
    path = environ.get("PATH")
    missing = [name for name in ("bwrap", "socat") if shutil.which(name, path=path) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (packages bubblewrap and socat)"
    try:
        done = subprocess.run(
            ["bwrap", *_PROBE],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bwrap does not run: {error}"
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[:200]
        return f"bwrap may not make a sandbox here: {said}"
    return ""


def settings(agent: AgentConfig, root: Path, config: Path) -> dict[str, Any]:
    """The ``sandbox`` block of Claude Code's settings.

    Args:
        agent: its settings.
        root: the checkout.
        config: Claude Code's own folder, which commands are kept from.
    """
    readonly = agent.sandbox_mode == "read-only"
    return {
        "enabled": True,
        "failIfUnavailable": True,
        "autoAllowBashIfSandboxed": agent.approval_policy != "untrusted",
        "allowUnsandboxedCommands": agent.approval_policy != "never",
        "network": {
            "allowedDomains": ["*"] if agent.network_access else [],
            "strictAllowlist": True,
        },
        "filesystem": {
            "denyWrite": [str(config), *([str(root)] if readonly else [])],
        },
        "credentials": {
            "envVars": [{"name": name, "mode": "deny"} for name in _KEPT_BACK],
        },
    }
