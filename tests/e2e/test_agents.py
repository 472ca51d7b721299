"""One project with two runtimes: Claude Code plans, Codex and Claude Code each do a task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.agents import installed
from tests.agents.anthropic_server import AnthropicServer
from tests.agents.codex_worker import MODEL, provider
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer
from tests.agents.script import USAGE, Reply
from tests.agents.script import prompt as scripted
from tests.lab import Lab, git, project, prompt, swarm

CLAUDE = "claude-sonnet-5-5"


def task(name: str) -> dict[str, Any]:
    """A task of the plan: a command, a file of the agent's own making, a commit, a report."""
    commit = f"git add -A && git -c user.name=a -c user.email=b commit -qm {name}"
    steps: list[Reply] = [
        {"run": f"echo {name} > {name}.txt && {commit}"},
        {"write": {"path": f"{name}.md", "content": f"{name}\n"}},
        {"say": f"{{report:{name}}}"},
    ]
    return {
        "task_id": name,
        "title": f"The {name}",
        "prompt": scripted(*steps),
        "acceptance_criteria": ["it is there"],
        "depends_on": [],
    }


@pytest.fixture
def swarms(tmp_path: Path) -> Any:
    """Two swarms with real agents, whose models are scripted; nobody else is asked."""
    codex = str(installed.codex())
    with AnthropicServer() as anthropic, OpenAIServer() as openai, NoNetwork() as network:

        def env(values: dict[str, str]) -> list[dict[str, str]]:
            home = {"HOME": str(tmp_path)}
            return [{"name": n, "value": v} for n, v in {**network.env, **home, **values}.items()]

        settings = {"path": codex, "inheritLogin": False, "config": provider(openai)}
        agents = {
            "codex": {"model": MODEL, "env": env({"SCRIPTED_KEY": "k"}), "codex": settings},
            "claude": {"model": CLAUDE, "env": env(anthropic.env)},
        }
        yield [
            swarm(name, replicas=1, agent={"runtime": name, **agent})
            for name, agent in agents.items()
        ]
        assert network.wanted == []


def test_a_plan_and_its_tasks_by_two_runtimes(lab: Lab, swarms: list[dict[str, Any]]) -> None:
    repository = lab.repository()
    lab.start()
    plan = {"tasks": [task("lexer"), task("parser")]}
    # The colon is spelled so that the planner's model does not report the tasks itself.
    answer = f"TASK_GRAPH_JSON\n{json.dumps(plan)}".replace("{report:", "{report\\u003a")
    planner = {"swarm": "claude", "specification": scripted({"say": answer})}
    workers = [{"swarm": "codex"}, {"swarm": "claude"}]
    lab.apply(*swarms, project(planner=planner, workers=workers))
    lab.wait_phase("Project", "demo", "Completed", "Failed", "Attention", deadline=90)
    status = lab.project("demo")
    assert (status["phase"], status["progress"]) == ("Completed", "2/2"), lab.picture()
    tree = git("-C", str(repository), "ls-tree", "--name-only", status["branch"]).split()
    assert tree == ["README.md", "lexer.md", "lexer.txt", "parser.md", "parser.txt"]
    found = [lab.task(f"demo.{name}") for name in ("lexer", "parser")]
    assert {attempts[0]["swarm"] for attempts in (t["attempts"] for t in found)} == {
        "codex", "claude"
    }  # fmt: skip
    each = 3 * (USAGE["input"] + USAGE["output"])
    assert [t["usage"]["totalTokens"] for t in found] == [each, each]
    assert float(status["costUsd"]) > 0
    lab.apply(*[prompt(f"ask-{s['metadata']['name']}", scripted({"say": "Here."}),
                       s["metadata"]["name"]) for s in swarms])  # fmt: skip
    for name in ("ask-codex", "ask-claude"):
        lab.wait_phase("Task", name, "Succeeded", "Failed")
        assert lab.task(name)["answer"] == "Here."
    shutil.rmtree(repository)
