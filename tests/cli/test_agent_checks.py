"""``doctor`` on agents: what is here, what is missing, which credentials there are: names only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli import agent_checks
from cli.checks import Check

SECRET = "sk-very-secret"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine with a Codex of our own making, and nothing else."""
    program = tmp_path / "bin" / "codex"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho codex-cli 0.169.0\n")
    program.chmod(0o755)
    return {"PATH": str(program.parent), "HOME": str(tmp_path)}


def swarm(runtime: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "team"},
        "spec": {"agent": {"runtime": runtime}},
        "status": status,
    }


def lines(environ: dict[str, str], *swarms: dict[str, Any]) -> dict[str, Check]:
    return {check.name: check for check in agent_checks.of_home(environ, swarms)}


def test_an_agent_with_its_version_and_the_names_of_credentials(environ: dict[str, str]) -> None:
    environ |= {"OPENAI_API_KEY": SECRET, "OPENAI_BASE_URL": "https://x.example"}
    login = Path(environ["HOME"], ".codex", "auth.json")
    login.parent.mkdir()
    login.write_text(SECRET)
    found = lines(environ, swarm("codex"))["codex"]
    assert found.level == "OK"
    assert found.text == f"0.169.0, credentials: OPENAI_API_KEY, login in {login}"


def test_credentials_are_those_that_workers_inherit(environ: dict[str, str]) -> None:
    claude = next(agent for agent in agent_checks.AGENTS if agent.runtime == "claude")
    own = {"AWS_ACCESS_KEY_ID": "x", "AWS_REGION": "x", "ANTHROPIC_BASE_URL": "x"}
    assert agent_checks.credentials(claude, environ | own) == []
    known = environ | own | {"AWS_BEARER_TOKEN_BEDROCK": SECRET, "ANTHROPIC_API_KEY": ""}
    assert agent_checks.credentials(claude, known) == ["AWS_BEARER_TOKEN_BEDROCK"]


def test_what_a_swarm_asks_for_and_is_not_here(environ: dict[str, str]) -> None:
    without = {"PATH": environ["HOME"], "HOME": environ["HOME"]}
    found = lines(without, swarm("codex"))["codex"]
    assert (found.level, found.advice) == ("WARN", "npm install -g @openai/codex")
    assert "a swarm asks for runtime: codex" in found.text
    assert lines(without, swarm("mock"))["codex"].level == "OK"


def test_an_agent_without_a_credential(environ: dict[str, str]) -> None:
    assert lines(environ, swarm("codex"))["codex"].level == "WARN"
    assert lines(environ, swarm("mock"))["codex"].level == "OK"


def test_a_program_that_does_not_run(environ: dict[str, str]) -> None:
    Path(environ["PATH"], "codex").write_text("#!/bin/sh\nexit 3\n")
    assert "does not run" in lines(environ, swarm("codex"))["codex"].text


def test_claude_code_and_whether_its_commands_are_confined(environ: dict[str, str]) -> None:
    found = lines(environ | {"ANTHROPIC_API_KEY": SECRET}, swarm("claude"))["claude"]
    assert found.level == "OK" and "credentials: ANTHROPIC_API_KEY" in found.text
    assert "commands are not confined: bwrap and socat not installed" in found.text


def test_the_program_that_a_swarm_names_for_claude_code(environ: dict[str, str]) -> None:
    program = Path(environ["PATH"], "my-claude")
    program.write_text("#!/bin/sh\necho '2.0.1 (Claude Code)'\n")
    program.chmod(0o755)
    team = swarm("claude")
    team["spec"]["agent"]["claude"] = {"cliPath": str(program)}
    found = lines(environ, team)["claude"]
    assert found.level == "WARN" and f"{program} is Claude Code 2.0.1" in found.text


def test_a_provider_that_refuses(environ: dict[str, str]) -> None:
    held = {"type": "QuotaAvailable", "status": "False", "reason": "QuotaExhausted"}
    team = swarm("codex", conditions=[{**held, "message": "before 5"}])
    assert lines(environ, team)["provider"].text == "swarm/team: QuotaExhausted: before 5"
    assert "provider" not in lines(environ, swarm("codex"))


def test_the_controllers_own_variables_count() -> None:
    import os

    assert agent_checks.environment(os.getpid())["PATH"]
    assert agent_checks.environment(None) is os.environ
    assert agent_checks.environment(2**30) is os.environ


def test_a_codex_that_is_too_old_or_does_not_run(environ: dict[str, str]) -> None:
    program = Path(environ["PATH"], "codex")
    for text, said in (("echo codex-cli 0.42.0", "0.42.0 is too old"), ("exit 1", "does not run")):
        program.write_text(f"#!/bin/sh\n{text}\n")
        found = lines(environ, swarm("codex"))["codex"]
        assert found.level == "WARN"
        assert said in found.text


def test_a_program_that_a_swarm_names(environ: dict[str, str]) -> None:
    named = swarm("codex")
    named["spec"]["agent"]["codex"] = {"path": f"{environ['PATH']}/codex"}
    elsewhere = {"PATH": "/nowhere", "HOME": environ["HOME"], "OPENAI_API_KEY": SECRET}
    assert lines(elsewhere, named)["codex"].text == "0.169.0, credentials: OPENAI_API_KEY"
    named["spec"]["agent"]["codex"] = {"path": "/nowhere/codex"}
    found = lines(elsewhere, named)["codex"]
    assert (found.level, "agent.codex.path: /nowhere/codex" in found.text) == ("WARN", True)
