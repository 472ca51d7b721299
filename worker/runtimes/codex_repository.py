"""The instructions that a repository has for agents, handed to Codex with the prompt.

Codex reads a checkout's ``AGENTS.md`` by itself only if it trusts the checkout, and then it also
runs what ``.codex/`` there tells it to: hooks, tool servers, without a sandbox.  So it is told to
trust none, and gets the instructions from the worker.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

NAME = "AGENTS.md"
MAX_BYTES = 32 << 10
"""As Codex's own ``project_doc_max_bytes``; what goes beyond is cut off."""


def instructions_of(checkout: Path) -> str:
    """What the checkout's ``AGENTS.md`` says, as Codex puts it to the model; empty: nothing."""
    text = _read(checkout / NAME).strip()
    if not text:
        return ""
    return f"# {NAME} instructions for {checkout}\n\n<INSTRUCTIONS>\n{text}\n</INSTRUCTIONS>"


def _read(path: Path) -> str:
    """A plain file's text: no link is followed, nothing is waited for."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)
    except OSError:
        return ""
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        return file.read(MAX_BYTES).decode("utf-8", "replace")
