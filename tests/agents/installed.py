"""The agents' programs that `make dev` installs for the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv" / "agents"


def codex() -> Path:
    """The Codex CLI; without it the test is skipped, but never in CI."""
    named = os.environ.get("CODESWARM_TEST_CODEX")
    path = Path(named) if named else FOLDER / "node_modules" / ".bin" / "codex"
    if not path.exists():
        missing(f"the Codex CLI is not in {path}: install npm, then run `make dev`")
    return path


def missing(message: str) -> None:
    """Skip for want of a program; in CI fail instead."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
