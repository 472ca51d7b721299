"""Whole runs with the real Codex CLI: a project; what is seen where Codex cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import installed, script
from tests.agents.codex_worker import KEY, MODEL, provider
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer
from tests.lab import Lab, git, project, swarm

pytestmark = pytest.mark.e2e


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as made:
        yield made
    assert not made.processes()


@pytest.fixture
def agent(openai: OpenAIServer, no_network: NoNetwork) -> dict[str, Any]:
    """The ``agent`` block of a Swarm with Codex and a scripted model."""
    secret = {"secretKeyRef": {"name": "model", "key": "key"}}
    return {
        "runtime": "codex",
        "model": MODEL,
        "sandboxMode": "workspace-write",
        "env": [
            {"name": "SCRIPTED_KEY", "valueFrom": secret},
            *({"name": name, "value": value} for name, value in no_network.env.items()),
        ],
        "codex": {"path": str(installed.codex()), "config": provider(openai)},
    }


def secret() -> dict[str, Any]:
    data = {"key": KEY}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "model"}, "stringData": data}


def task(name: str, *replies: script.Reply, **spec: Any) -> dict[str, Any]:
    said = {"say": f"Done.\n\n{{report:{name}}}"}
    return {"name": name, "prompt": script.prompt(*replies, said, before=f"Do {name}."), **spec}


def test_a_project_is_done_by_codex(lab: Lab, agent: dict[str, Any]) -> None:
    repository = lab.repository()
    lab.start()
    commit = {"run": "echo b > b.txt && git add b.txt && git commit -qm 'Add b'"}
    lab.apply(
        secret(),
        swarm(agent=agent),
        project(
            tasks=[
                task("first", {"write": {"path": "a.txt", "content": "a\n"}}),
                task("second", commit, dependsOn=["first"]),
            ],
            integration={"verify": ["cat a.txt b.txt"]},
        ),
    )
    lab.wait_phase("Project", "demo", "Completed", "Failed", deadline=100)
    status = lab.project("demo")
    assert status["phase"] == "Completed", lab.picture()
    result = "codeswarm/demo/integration"
    assert git("-C", str(repository), "show", f"{result}:a.txt") == "a"
    assert git("-C", str(repository), "show", f"{result}:b.txt") == "b"
    used = status["usage"]
    assert used["inputTokens"] == 4 * script.USAGE["input"]  # two tasks of two calls each
    assert float(status["costUsd"]) > 0
    for path in lab.home.root.rglob("*"):
        if path.is_file() and path.name != "auth.json" and not path.name.startswith("state.db"):
            assert KEY.encode() not in path.read_bytes(), path


def test_what_keeps_codex_from_being_used_is_said_and_heals(
    lab: Lab, agent: dict[str, Any], tmp_path: Path
) -> None:
    lab.start()
    path = agent["codex"]["path"]
    agent["codex"]["path"] = str(tmp_path / "nowhere")
    lab.apply(secret(), swarm(replicas=1, agent=agent))

    def says(reason: str, text: str) -> Callable[[], bool]:
        def found() -> bool:
            held = lab.swarm("builders").get("conditions") or []
            told = [(c.get("reason"), c.get("message", "")) for c in held]
            return any(reason == r and text in m for r, m in told)

        return found

    lab.wait(says("AgentNotInstalled", "agent.codex.path"), "the missing program to be told")
    agent["codex"]["path"] = path
    agent["codex"]["config"] = "model = "
    lab.apply(swarm(replicas=1, agent=agent))
    lab.wait(says("AgentConfigInvalid", "agent.codex.config"), "the bad text to be told")
    agent["codex"]["config"] = 'model_provider = "ollama"'
    lab.apply(swarm(replicas=1, agent=agent))
    lab.wait_phase("Swarm", "builders", "Running")
