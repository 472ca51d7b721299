"""How Codex is found, given its login, and how it is told when it cannot be started."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agents.codex_worker import CodexWorker
from tests.agents.no_network import NoNetwork
from tests.agents.openai_server import OpenAIServer
from tests.agents.script import prompt
from tests.worker.harness import PATIENCE

Make = Callable[..., CodexWorker]
KEY = "sk-of-the-user-0123456789"


def login(codex: CodexWorker, auth: dict[str, Any], config: str = "") -> Path:
    """Give the worker's user a login of their own."""
    folder = Path(codex.env["HOME"]) / ".codex"
    folder.mkdir()
    (folder / "auth.json").write_text(json.dumps(auth))
    (folder / "config.toml").write_text(config)
    codex.secrets = {}
    return folder


def test_a_key_of_the_environment_is_used(make_codex: Make, openai: OpenAIServer) -> None:
    codex = make_codex(codex={"config": ""})
    codex.secrets = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": openai.base_url}
    codex.start()
    injection = codex.prompt(prompt({"run": "env | grep -c sk-of"}, {"say": "hello"}))
    assert codex.outcome(injection)["answer"] == "hello"
    assert openai.asked()[-1].headers["authorization"] == f"Bearer {KEY}"
    assert codex.events("command_completed", injection)[0]["data"]["output"] == "0\n"
    assert stat.S_IMODE((codex.base / "codex" / "auth.json").stat().st_mode) == 0o600


def test_the_users_own_login_is_taken_over(
    make_codex: Make, openai: OpenAIServer, tmp_path: Path
) -> None:
    codex = make_codex(codex={"config": "", "inheritLogin": True}, model="")
    config = (
        f'model = "gpt-5.5"\nmodel_provider = "mine"\nnotify = ["touch", "{tmp_path}/notified"]\n'
        f'[model_providers.mine]\nname = "mine"\nbase_url = "{openai.base_url}"\n'
        'wire_api = "responses"\nrequires_openai_auth = true\n'
    )
    folder = login(codex, {"OPENAI_API_KEY": KEY}, config)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    codex.start()
    assert codex.ask(prompt({"say": "hello"}))["answer"] == "hello"
    asked = openai.asked()[-1]
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body["model"] == "gpt-5.5"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "notified").exists()
    assert stat.S_IMODE((codex.base / "codex" / "auth.json").stat().st_mode) == 0o600


def test_a_login_that_is_refused_is_taken_over_anew(make_codex: Make, openai: OpenAIServer) -> None:
    codex = make_codex(codex={"config": "", "inheritLogin": True})
    provider = (
        'model_provider = "mine"\n[model_providers.mine]\nname = "mine"\nwire_api = "responses"\n'
        f'base_url = "{openai.base_url}"\nrequires_openai_auth = true\n'
        "request_max_retries = 0\nstream_max_retries = 0\n"
    )
    folder = login(codex, {"OPENAI_API_KEY": "sk-outdated"}, provider)
    codex.start()
    assert codex.ask(prompt({"fail": 401}))["error"]["class"] == "auth"
    (folder / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": KEY}))
    assert codex.ask(prompt({"say": "hello"}))["answer"] == "hello"
    assert openai.asked()[-1].headers["authorization"] == f"Bearer {KEY}"


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def too_old(folder: Path) -> dict[str, Any]:
    text = '[ "$1" = --version ] && echo codex-cli 0.42.0 && exit; echo unknown command >&2; exit 2'
    return {"path": program(folder / "old", text)}


Case = tuple[Callable[[Path], dict[str, Any]], str, str]

UNUSABLE = {
    "no-such-program": (
        lambda folder: {"path": str(folder / "nowhere")},
        "AgentNotInstalled",
        "agent.codex.path",
    ),
    "too-old": (too_old, "AgentTooOld", "0.42.0 is too old"),
    "toml": (lambda _: {"config": "model = "}, "AgentConfigInvalid", "agent.codex.config"),
    "not-codexs-settings": (
        lambda _: {"config": 'approval_policy = "sometimes"\nmodel_provider = "ollama"'},
        "AgentConfigInvalid",
        "approval_policy",
    ),
    "no-such-provider": (
        lambda _: {"config": 'model_provider = "nope"'},
        "AgentConfigInvalid",
        "Model provider `nope` not found",
    ),
    "no-credential": (lambda _: {"config": ""}, "CredentialMissing", "OPENAI_API_KEY"),
    "no-login": (
        lambda _: {"config": "", "inheritLogin": True},
        "CredentialMissing",
        "codex login",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_agent_that_cannot_be_used_says_why(
    make_codex: Make,
    tmp_path: Path,
    no_network: NoNetwork,
    case: Case,
) -> None:
    settings, reason, text = case
    codex = make_codex(codex=settings(tmp_path))
    if reason == "CredentialMissing":
        codex.secrets = {}
    process = codex.spawn()
    assert process.wait(PATIENCE) == 1
    (told,) = codex.events("agent_error")
    assert (told["data"]["class"], told["data"]["reason"]) == ("runtime", reason)
    assert text in told["data"]["message"]
    assert codex.events("thread_status")[-1]["data"] == {"status": "stopped", "reason": reason}
    if reason == "AgentConfigInvalid":
        no_network.wanted.clear()  # with its defaults, which it falls back to, Codex is not quiet


def test_the_program_is_found_on_the_path(make_codex: Make, tmp_path: Path) -> None:
    codex = make_codex()
    installed = codex.config["agent"]["codex"].pop("path")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(installed)
    (codex.base / "worker.json").write_text(json.dumps(codex.config))
    codex.env = {**codex.env, "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    codex.start()
    assert codex.ask(prompt({"say": "found"}))["answer"] == "found"
    # npm's starter script is not one more process.
    assert Path(f"/proc/{codex.agent_pid}/exe").readlink().name == "codex"
