"""What Claude Code may do by itself, what it has to ask for, and what is refused: pure decisions.

``sandboxMode`` says what the agent may touch, ``approvalPolicy`` who is asked about the rest.
Claude Code asks about every call that it does not know as mere reading; so a command that gets
here (see ``docs/agents.md``) is one that may write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ALLOW, ASK, DENY = "allow", "ask", "deny"

COMMAND_TOOLS = frozenset({"Bash"})
EDIT_TOOLS = frozenset({"Edit", "MultiEdit", "NotebookEdit", "Write"})
NETWORK_TOOLS = frozenset({"WebFetch", "WebSearch"})
HARMLESS_TOOLS = frozenset(
    {
        "Agent", "BashOutput", "Glob", "Grep", "KillShell", "LS", "NotebookRead", "Read", "Skill",
        "Task", "TaskCreate", "TaskGet", "TaskList", "TaskOutput", "TaskStop", "TaskUpdate",
        "TodoRead", "TodoWrite", "ToolSearch",
    }
)  # fmt: skip
"""Reading, notes, and delegating: what a subagent does is decided call by call."""


@dataclass(frozen=True)
class Verdict:
    """What is to become of one call of a tool."""

    action: str
    """allow, ask or deny."""
    reason: str = ""
    """Why it is not simply allowed; for the model and for people."""


@dataclass(frozen=True)
class Policy:
    """The agent's settings, and what the node offers."""

    approval: str
    """never, on-request, untrusted or on-failure."""
    sandbox: str
    """read-only, workspace-write or danger-full-access."""
    network: bool
    root: Path
    """The checkout."""
    confined: bool = False
    """Whether commands run in Claude Code's own sandbox, which keeps them to the checkout."""

    @property
    def online(self) -> bool:
        """Whether the tools that fetch from the network may be used."""
        return self.network or self.sandbox == "danger-full-access"

    def verdict(self, tool: str, arguments: Mapping[str, Any]) -> Verdict:
        """Decide on a call.

        Args:
            tool: its name.
            arguments: as the model gave them.
        """
        if tool in HARMLESS_TOOLS:
            return Verdict(ALLOW)
        if tool in NETWORK_TOOLS and not self.online:
            return Verdict(DENY, "networkAccess is false")
        beyond = self._beyond(tool, arguments)
        if not beyond:
            trusted = self.approval != "untrusted"
            return Verdict(ALLOW) if trusted else Verdict(ASK, "approvalPolicy is untrusted")
        if self.approval == "never":
            return Verdict(DENY, f"{beyond}, and approvalPolicy never means that nobody is asked")
        return Verdict(ASK, beyond)

    def _beyond(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Why a call goes beyond what the sandbox mode allows; empty: it does not."""
        if self.sandbox == "danger-full-access" or tool in NETWORK_TOOLS:
            return ""
        if tool in COMMAND_TOOLS:
            return self._command_beyond(arguments)
        if tool not in EDIT_TOOLS:
            return f"the tool {tool} is not known to keep to the checkout"
        if self.sandbox == "read-only":
            return "sandboxMode is read-only"
        path = edited_path(arguments)
        if path and inside(self.root, path):
            return ""
        return f"{path or 'the file'} is outside the checkout"

    def _command_beyond(self, arguments: Mapping[str, Any]) -> str:
        if arguments.get("dangerouslyDisableSandbox"):
            return "the command asks to run outside the sandbox"
        if self.confined:
            return ""
        if self.sandbox == "read-only":
            return "sandboxMode is read-only, and the command is not known to only read"
        if self.approval in ("never", "on-failure"):
            return ""  # nobody to ask, or not before something failed: see docs/agents.md
        return "nothing on this node keeps the command to the checkout"


def edited_path(arguments: Mapping[str, Any]) -> str:
    """The file that an editing tool names."""
    path = arguments.get("file_path") or arguments.get("notebook_path") or ""
    return path if isinstance(path, str) else ""


def inside(root: Path, path: str) -> bool:
    """Whether a path, symlinks followed, lies below the checkout."""
    try:
        real = (root / path).resolve()
        return root.resolve() in real.parents
    except (OSError, RuntimeError, ValueError):  # a loop of symlinks; a null byte
        return False
