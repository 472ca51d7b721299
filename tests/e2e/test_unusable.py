"""Agents that cannot be started: the swarm says which and why, and goes on once they can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.lab import Lab, prompt, swarm


def agent(path: Path | str) -> dict[str, Any]:
    """A Codex of this path, without any login."""
    return {"runtime": "codex", "codex": {"path": str(path), "inheritLogin": False}}


def program(folder: Path) -> Path:
    """A program that says that it is a Codex."""
    path = folder / "codex"
    path.write_text("#!/bin/sh\necho codex-cli 0.169.0\n")
    path.chmod(0o755)
    return path


def test_the_swarm_says_why_its_agent_cannot_be_started(lab: Lab, tmp_path: Path) -> None:
    lab.start(OPENAI_API_KEY="", CODEX_API_KEY="")
    lab.apply(swarm(replicas=1, agent=agent("/nowhere/codex")), prompt("p"))
    for path, reason, message in (
        ("/nowhere/codex", "AgentNotInstalled", "/nowhere/codex"),
        (program(tmp_path), "CredentialMissing", "OPENAI_API_KEY"),
    ):
        lab.patch("Swarm", "builders", lambda o, p=path: o["spec"].update(agent=agent(p)))
        lab.wait(lambda r=reason: lab.swarm("builders").get("reason") == r, reason)
        for type in ("Available", "Ready"):
            assert message in lab.condition("Swarm", "builders", type)["message"]
        (row,) = lab.swarm("builders")["workers"]
        assert (row["phase"], row["reason"]) == ("Lost", reason)
        lab.wait(lambda m=message: m in str(lab.task("p").get("blocker")), "what the task says")
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(agent={"runtime": "mock"}))
    lab.wait_phase("Task", "p", "Succeeded")
    lab.wait(lambda: "reason" not in lab.swarm("builders"), "all to be well")
