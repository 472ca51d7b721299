"""What Codex asks before it acts, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.agents.codex_worker import CodexWorker
from tests.agents.openai_server import OpenAIServer
from tests.agents.script import prompt
from tests.worker.harness import until

Make = Callable[..., CodexWorker]
OUTSIDE = {"run": "touch ../outside && echo made", "escalate": "it has to be outside"}


def asking(make_codex: Make, **agent: Any) -> CodexWorker:
    settings = {"approvalPolicy": "on-request", "sandboxMode": "workspace-write", **agent}
    codex = make_codex(**settings)
    codex.start()
    return codex


def question(codex: CodexWorker, injection: str, number: int = 1) -> dict[str, Any]:
    """The data of a turn's question of this number."""
    found = until(
        lambda: codex.events("exec_approval_required", injection)[number - 1 :],
        f"for question {number}; {codex.events(None, injection)[-3:]}",
    )
    data: dict[str, Any] = found[0]["data"]
    return data


def answer(codex: CodexWorker, asked: dict[str, Any], decision: str, reason: str = "") -> None:
    codex.control(
        "approval", request_id=asked["request_id"], decision=decision, by="ada", reason=reason
    )


def test_a_command_is_asked_for_granted_and_refused(make_codex: Make, openai: OpenAIServer) -> None:
    codex = asking(make_codex)
    injection = codex.prompt(prompt(OUTSIDE, {**OUTSIDE, "run": "touch ../never"}, {"say": "ok"}))
    first = question(codex, injection)
    assert first["kind"] == "command"
    assert first["command"] == f"/bin/bash -lc '{OUTSIDE['run']}'"
    assert first["reason"] == OUTSIDE["escalate"]
    assert first["cwd"] == str(codex.repo)
    assert set(first["decisions"]) >= {"approve", "deny", "cancel"}
    assert not (codex.base / "outside").exists()
    assert codex.events("thread_status")[-1]["data"]["status"] == "waiting_approval"
    answer(codex, first, "approve")
    second = question(codex, injection, 2)
    assert second["arguments_digest"] != first["arguments_digest"]
    answer(codex, second, "deny", "the neighbours sleep")
    assert codex.outcome(injection)["answer"] == "ok"
    assert (codex.base / "outside").exists()
    assert not (codex.base / "never").exists()
    resolved = [e["data"] for e in codex.events("exec_approval_resolved", injection)]
    assert [(r["decision"], r["by"]) for r in resolved] == [("approve", "ada"), ("deny", "ada")]
    ran = [e["data"] for e in codex.events("command_completed", injection)]
    assert (ran[0]["exit_code"], ran[0]["output"]) == (0, "made\n")
    assert ran[1]["status"] == "declined"
    assert "the neighbours sleep" in str(openai.asked()[-1].body["input"])


def test_always_is_for_commands_that_begin_alike(make_codex: Make) -> None:
    codex = asking(make_codex)
    more = {"run": "touch ../outside ../more", "escalate": "again"}
    injection = codex.prompt(prompt({**OUTSIDE, "run": "touch ../outside"}, more, {"say": "ok"}))
    asked = question(codex, injection)
    assert "approve-always" in asked["decisions"]
    assert asked["amendments"] == ["commands that begin with: touch ../outside"]
    answer(codex, asked, "approve-always")
    assert codex.outcome(injection)["answer"] == "ok"
    assert (codex.base / "more").exists()
    assert len(codex.events("exec_approval_required", injection)) == 1


def test_a_change_of_files_shows_its_diff(make_codex: Make) -> None:
    codex = asking(make_codex)
    write = {"write": {"path": "../outside.txt", "content": "one\ntwo\n"}}
    injection = codex.prompt(prompt(write, write, {"say": "ok"}))
    asked = question(codex, injection)
    path = str(codex.base / "outside.txt")
    assert (asked["kind"], asked["paths"]) == ("file-change", [path])
    assert asked["diff"] == f"--- /dev/null\n+++ {path}\n+one\n+two\n"
    answer(codex, asked, "deny")
    answer(codex, question(codex, injection, 2), "approve")
    assert codex.outcome(injection)["answer"] == "ok"
    assert (codex.base / "outside.txt").read_text() == "one\ntwo\n"
    done = [e["data"]["status"] for e in codex.events("filechange_completed", injection)]
    assert done == ["declined", "completed"]


def test_cancel_ends_the_turn_as_refused(make_codex: Make) -> None:
    codex = asking(make_codex)
    injection = codex.prompt(prompt(OUTSIDE, {"say": "ok"}))
    answer(codex, question(codex, injection), "cancel")
    done = codex.outcome(injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Refused")
    assert codex.events("exec_approval_resolved", injection)
    assert codex.ask(prompt({"say": "on we go"}))["answer"] == "on we go"


def test_a_question_left_open_ends_with_the_interrupted_turn(make_codex: Make) -> None:
    codex = asking(make_codex)
    injection = codex.prompt(prompt(OUTSIDE, {"say": "ok"}))
    asked = question(codex, injection)
    codex.control("interrupt", injection_id=injection, reason="Timeout")
    assert codex.outcome(injection)["reason"] == "Timeout"
    answer(codex, asked, "approve")
    assert codex.ask(prompt({"say": "on we go"}))["answer"] == "on we go"
    assert not codex.events("exec_approval_resolved")
    assert not (codex.base / "outside").exists()


def test_untrusted_asks_before_each_command(make_codex: Make) -> None:
    codex = asking(make_codex, approvalPolicy="untrusted")
    injection = codex.prompt(prompt({"run": "ls"}, {"say": "ok"}))
    asked = question(codex, injection)
    assert asked["command"] == "/bin/bash -lc ls"
    answer(codex, asked, "approve")
    assert codex.outcome(injection)["answer"] == "ok"


def test_never_asks_nobody(make_codex: Make) -> None:
    codex = asking(make_codex, approvalPolicy="never")
    write = {"write": {"path": "../outside.txt", "content": "x\n"}}
    injection = codex.prompt(prompt(OUTSIDE, write, {"say": "ok"}))
    assert codex.outcome(injection)["answer"] == "ok"
    assert not codex.events("exec_approval_required")
    assert not (codex.base / "outside").exists()
    assert not (codex.base / "outside.txt").exists()
