"""Turns of the real Claude Code: what is its own, beside what all runtimes have in common."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.agents.anthropic_server import KEY, AnthropicServer
from tests.agents.drivers import ClaudeWorker
from tests.agents.script import prompt
from tests.worker.harness import until

Make = Callable[..., ClaudeWorker]

SKILL = "---\nname: marmalade\ndescription: How to cook marmalade.\n---\nBoil the oranges.\n"


def data(worker: ClaudeWorker, event: str, injection: str) -> list[dict[str, Any]]:
    return [record["data"] for record in worker.events(event, injection)]


def sent(server: AnthropicServer) -> str:
    """What the model was last told."""
    return json.dumps(server.asked()[-1].body)


def test_a_persona_its_skills_and_nothing_of_the_repositorys_settings(
    make_claude: Make, anthropic: AnthropicServer
) -> None:
    persona = {"instructions": "Speak like a quince.", "skills": {"marmalade/SKILL.md": SKILL}}
    worker = make_claude(persona=persona, model="claude-sonnet-5-5")
    hook = {"type": "command", "command": f"touch {worker.base}/hooked"}
    settings = {"hooks": {"PreToolUse": [{"hooks": [hook]}]}}
    (worker.repo / ".claude").mkdir(parents=True)
    (worker.repo / ".claude" / "settings.json").write_text(json.dumps(settings))
    worker.start()
    use = {"tool": {"name": "Skill", "arguments": {"skill": "marmalade"}}}
    injection = worker.prompt(prompt(use, {"run": "true"}, {"say": "Cooked."}))
    assert worker.outcome(injection)["answer"] == "Cooked."
    told = sent(anthropic)
    assert "Speak like a quince." in told and "AGENTS.md at its root" in told
    assert "How to cook marmalade." in told and "Boil the oranges." in told
    assert anthropic.asked()[-1].body["model"] == "claude-sonnet-5-5"
    used, ran = data(worker, "command_completed", injection)
    assert (used["command"], used["tool"], used["exit_code"]) == ("Skill marmalade", "Skill", 0)
    assert ran["exit_code"] == 0 and not (worker.base / "hooked").exists()
    assert data(worker, "usage", injection)[-1]["model"] == "claude-sonnet-5-5"
    assert data(worker, "usage", injection)[-1]["context_window"] > 100_000


def test_the_program_gets_the_agents_environment_and_no_secret_shows(
    make_claude: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    worker = make_claude()
    worker.secrets = {**worker.secrets, "MY_TOKEN": "tok-0123456789abcdef"}
    worker.start()
    injection = worker.prompt(prompt({"run": 'echo "$MY_TOKEN [$GIT_DIR]"'}, {"say": "ok"}))
    assert worker.outcome(injection)["status"] == "completed"
    assert data(worker, "command_completed", injection)[0]["output"] == "[masked] []"
    assert worker.process is not None
    below = psutil.Process(worker.process.pid).children(recursive=True)
    (agent,) = [one for one in below if "--input-format" in one.cmdline()]
    assert agent.environ()["CLAUDE_CONFIG_DIR"] == str(worker.base / "claude" / "config")
    shown = " ".join(agent.cmdline()) + worker.outbox.read_text() + worker.log()
    for secret in (KEY, "tok-0123456789abcdef"):
        assert secret not in shown
        files = [path for path in worker.base.rglob("*") if path.is_file()]
        holding = [path for path in files if secret.encode() in path.read_bytes()]
        # What the agent itself said is in its own conversation, and only there.
        assert (all("projects" in path.parts for path in holding) and secret != KEY) or not holding


def test_a_conversation_is_begun_anew_with_every_prompt(
    make_claude: Make, anthropic: AnthropicServer
) -> None:
    worker = make_claude(freshThreadPerPrompt=True, systemPrompt="Mind the gooseberries.").start()
    worker.ask(prompt({"say": "I remember the sparrow."}))
    first = len(anthropic.asked())
    assert worker.ask(prompt({"say": "Nothing before."}))["answer"] == "Nothing before."
    told = sent(anthropic)
    assert "sparrow" not in told and told.count("gooseberries") == 1
    assert len(anthropic.asked()) == first + 2
    sessions = {record["data"]["session"] for record in worker.events("usage")}
    assert len(sessions) == 2
    assert len(list((worker.base / "claude" / "config" / "projects").rglob("*.jsonl"))) == 1


def test_a_conversation_that_is_lost_is_begun_anew_and_told(
    make_claude: Make, anthropic: AnthropicServer
) -> None:
    worker = make_claude(systemPrompt="Mind the gooseberries.").start()
    worker.ask(prompt({"say": "I remember the sparrow."}))
    worker.end()
    shutil.rmtree(worker.base / "claude" / "config" / "projects")
    worker.config["systemPrompt"] = ""  # as after its turn was done: it is not repeated
    (worker.base / "worker.json").write_text(json.dumps(worker.config))
    worker.start()
    injection = worker.prompt(prompt({"say": "Who are you?"}))
    assert worker.outcome(injection)["answer"] == "Who are you?"
    (error,) = data(worker, "agent_error", injection)
    assert error["class"] == "session" and "a new one is begun" in error["message"]
    assert "sparrow" not in sent(anthropic)


def test_a_checkout_that_was_made_anew_is_worked_in(
    make_claude: Make, anthropic: AnthropicServer
) -> None:
    worker = make_claude().start()
    worker.ask(prompt({"say": "I remember the sparrow."}))
    shutil.rmtree(worker.repo)
    worker.repo.mkdir()
    injection = worker.prompt(prompt({"run": "echo err >&2; touch here; exit 3"}, {"say": "ok"}))
    assert worker.outcome(injection)["answer"] == "ok" and (worker.repo / "here").exists()
    (ended,) = data(worker, "command_completed", injection)
    assert ended["exit_code"] == 3 and "err" in ended["output"].split()
    assert "sparrow" in sent(anthropic)


def passed_on(worker: ClaudeWorker) -> str:
    """What Claude Code was told, as its raw traffic says."""
    traced = worker.events("session_trace")
    return "\n".join(e["data"]["text"] for e in traced if e["data"]["direction"] == "->")


def test_a_text_is_steered_into_the_running_turn(
    make_claude: Make, anthropic: AnthropicServer
) -> None:
    worker = make_claude()
    worker.env = {**worker.env, "CODESWARM_CAPTURE_ALL_SESSION": "1"}
    worker.start()
    wait = "while [ ! -e go ]; do :; done"
    injection = worker.prompt(prompt({"run": wait}, {"say": "ok", "hold": True}))
    worker.wait("command_started", injection)
    worker.control("steer", injection_id=injection, content="Mind the gooseberries.")
    until(lambda: "gooseberries" in passed_on(worker), "for the text to be passed on")
    (worker.repo / "go").touch()
    worker.wait("assistant_delta", injection)
    until(lambda: "gooseberries" in sent(anthropic), "for the steered text")
    late = prompt({"say": "A late answer."}, before="One more thing.")
    worker.control("steer", injection_id=injection, content=late)
    until(lambda: "A late answer." in passed_on(worker), "for the later text")
    anthropic.release()
    assert worker.outcome(injection)["answer"] == "A late answer."
    assert data(worker, "usage", injection)[-1]["total"]["input"] == 3000
    assert data(worker, "agent_error", injection) == []
    assert worker.process is not None
    injection = worker.prompt(prompt({"run": "echo $$ > pid; tail -f /dev/null"}))
    worker.wait("command_started", injection)
    until(lambda: (worker.repo / "pid").exists() and (worker.repo / "pid").read_text())
    below = psutil.Process(worker.process.pid).children(recursive=True)
    assert worker.end() == 0, "the end of a worker ends its agent and all commands"
    assert worker.outcome(injection)["status"] == "interrupted"
    until(lambda: not any(one.is_running() for one in below), "for all to end")


def test_a_providers_trouble_is_shown_repeated_and_explained(make_claude: Make) -> None:
    worker = make_claude(model="claude-nosuch-9")
    worker.secrets = {**worker.secrets, "CLAUDE_CODE_MAX_RETRIES": "1"}
    worker.start()
    injection = worker.prompt(prompt({"fail": 529, "type": "overloaded_error"}))
    assert worker.outcome(injection)["error"]["class"] == "overloaded"
    (told,) = data(worker, "agent_error", injection)
    assert told["class"] == "overloaded" and told["will_retry"] is True and "529" in told["message"]
    reply = {"fail": 404, "type": "not_found_error", "message": "model: claude-nosuch-9"}
    error = worker.ask(prompt(reply))["error"]
    assert error["class"] == "task" and "'claude-nosuch-9'" in error["message"]
