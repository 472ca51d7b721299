"""Claude Code that cannot be used here: each reason is told, and the worker leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents.drivers import ClaudeWorker
from tests.worker.harness import PATIENCE

Make = Callable[..., ClaudeWorker]


def program(folder: Path, prints: str) -> Path:
    """A program that prints this whatever it is asked."""
    path = folder / "other-claude"
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


def told(worker: ClaudeWorker) -> tuple[str, str]:
    """Reason and message of a worker that could not begin."""
    assert worker.spawn().wait(PATIENCE) == 1, worker.log()
    (error,) = worker.events("agent_error")
    assert error["data"]["class"] == "runtime" and error["data"]["will_retry"] is False
    status = worker.events("thread_status")[-1]["data"]
    assert status["status"] == "stopped" and status["reason"] == error["data"]["reason"]
    return error["data"]["reason"], error["data"]["message"]


def test_a_program_that_is_not_there_or_does_not_run(make_claude: Make, tmp_path: Path) -> None:
    worker = make_claude(claude={"cliPath": "/nowhere/claude"})
    reason, message = told(worker)
    assert reason == "AgentNotInstalled" and "'/nowhere/claude'" in message
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    reason, message = told(make_claude("w1", claude={"cliPath": str(broken)}))
    assert reason == "AgentNotInstalled" and "does not run" in message


@pytest.mark.parametrize("prints", ["1.9.9 (Claude Code)", "2.1.200 (Claude Code)", "hello"])
def test_a_program_that_is_too_old(make_claude: Make, tmp_path: Path, prints: str) -> None:
    path = program(tmp_path, prints)
    reason, message = told(make_claude(claude={"cliPath": str(path)}))
    assert reason == "AgentTooOld" and prints in message and "2.1.330" in message


def test_no_credential(make_claude: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "CLAUDE_"))]:
        monkeypatch.delenv(name)
    worker = make_claude()
    worker.secrets = {}
    reason, message = told(worker)
    assert reason == "CredentialMissing" and "ANTHROPIC_API_KEY" in message


@pytest.mark.parametrize(
    ("agent", "part"),
    [
        ({"sandboxMode": "workspace-write"}, "needs sandboxMode danger-full-access"),
        pytest.param(
            {"sandboxMode": "danger-full-access"},
            "refuses bypassPermissions to root",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused"),
        ),
    ],
)
def test_a_permission_mode_that_cannot_be(
    make_claude: Make, agent: dict[str, Any], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IS_SANDBOX", raising=False)
    settings = {**agent, "claude": {"permissionMode": "bypassPermissions"}}
    reason, message = told(make_claude(**settings))
    assert reason == "AgentConfigInvalid" and part in message


def test_a_python_without_the_sdk(make_claude: Make, tmp_path: Path) -> None:
    worker = make_claude()
    worker.argv = (sys.executable, "-S", "-m", "worker")  # without site-packages
    reason, message = told(worker)
    assert reason == "AgentNotInstalled" and "pip install 'codeswarm[claude]'" in message


def test_a_program_that_ends_at_once_says_why_in_the_turn(make_claude: Make) -> None:
    worker = make_claude(claude={"permissionMode": "nosuch"}).start()
    error = worker.ask("Hello.")["error"]
    assert error["class"] == "infrastructure" and "permission-mode" in error["message"]
    assert error["message"].count("nosuch") == 1
