"""The parts of the Claude runtime that need no Claude Code: its SDK's import, its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from worker.config import Config
from worker.runtimes.claude import ClaudeRuntime
from worker.runtimes.claude_cli import Cli

ROOT = Path(__file__).parents[2]


def python(code: str, *folders: Path) -> str:
    """What a Python of its own prints."""
    path = os.pathsep.join(map(str, (*folders, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_sdk_is_imported_without_what_only_tool_servers_need() -> None:
    pytest.importorskip("claude_agent_sdk")
    code = (
        "import sys; from worker.runtimes import claude_sdk; claude_sdk.load();"
        "import worker.runtimes.claude_session as session;"
        "print(session.ClaudeSDKClient.__name__, {'mcp', 'pydantic'} & set(sys.modules));"
        "import mcp; print(mcp.__file__ is not None)"  # nobody else gets the hollow one
    )
    assert python(code) == "ClaudeSDKClient set()\nTrue"


def test_an_sdk_that_cannot_do_without_gets_all(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("LIMIT = 1\n")
    (tmp_path / "claude_agent_sdk").mkdir()
    (tmp_path / "claude_agent_sdk" / "part.py").write_text("")
    (tmp_path / "claude_agent_sdk" / "__init__.py").write_text(
        "import mcp\nfrom . import part\nTWICE = mcp.LIMIT * 2\n"
    )
    code = (
        "from worker.runtimes import claude_sdk; claude_sdk.load();"
        "import claude_agent_sdk, mcp; print(claude_agent_sdk.TWICE, mcp.LIMIT)"
    )
    assert python(code, tmp_path) == "2 1"


def test_what_lies_beside_the_program_is_not_the_agents_own(tmp_path: Path) -> None:
    config = Config(
        base=tmp_path, job="j", node="n", index=0, runtime="claude", workspace=tmp_path / "repo",
        stores=tmp_path / "s",
    )  # fmt: skip
    runtime: Any = ClaudeRuntime(config, {})
    runtime._cli = Cli(tmp_path / "bin" / "claude", "2.1.330")
    runtime._session = SimpleNamespace(pid=os.getpid())
    assert {one.folder for one in runtime.processes()} == {tmp_path / "bin" / "claude"}


def test_nothing_is_told_of_a_turn_that_is_over(tmp_path: Path) -> None:
    pytest.importorskip("claude_agent_sdk")
    from worker.runtimes.claude_session import Session

    told: list[tuple[str, str]] = []
    session: Any = Session("id", ["claude"], tmp_path, {}, new=True)
    session._trace_of_turn = lambda *message: told.append(message)
    session._trace("<-", "now")
    session.leave()
    session._trace("<-", "late")
    assert told == [("<-", "now")]
