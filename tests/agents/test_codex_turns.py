"""Turns of the real Codex CLI: what is told of them, and how they end."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agents.codex_worker import KEY, MODEL, CodexWorker
from tests.agents.openai_server import OpenAIServer
from tests.agents.script import prompt
from tests.worker.harness import until

Make = Callable[..., CodexWorker]


def runs(pid: int | str) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        text = Path(f"/proc/{str(pid).strip()}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def test_a_turn_is_told_in_the_common_vocabulary(codex: CodexWorker) -> None:
    injection = codex.prompt(
        prompt(
            {"think": "first look", "run": "echo hello; pwd"},
            {"write": {"path": "docs/a.txt", "content": "one\ntwo\n"}},
            {"say": "All is done now."},
        )
    )
    assert codex.outcome(injection) == {"status": "completed", "answer": "All is done now."}
    told = [e for e in codex.events(None, injection) if e["event"] != "usage"]
    assert [name for name, _ in itertools.groupby(told, key=lambda e: e["event"])] == [
        "turn_started", "task_started", "reasoning_delta", "reasoning",
        "command_started", "command_completed", "filechange_started", "filechange_completed",
        "assistant_delta", "assistant", "turn_complete",
    ]  # fmt: skip
    by_event = {record["event"]: record["data"] for record in told}
    assert by_event["reasoning"]["text"] == "first look"
    assert codex.texts("reasoning_delta", injection) == "first look"
    assert by_event["command_started"]["command"] == "echo hello; pwd"
    done = by_event["command_completed"]
    assert (done["exit_code"], done["output"]) == (0, f"hello\n{codex.repo}\n")
    change = by_event["filechange_completed"]
    assert (change["path"], change["kind"], change["status"]) == ("docs/a.txt", "add", "completed")
    assert by_event["assistant"]["text"] == codex.texts("assistant_delta", injection)
    assert (codex.repo / "docs" / "a.txt").read_text() == "one\ntwo\n"


def test_usage_counts_from_the_attempts_beginning(codex: CodexWorker) -> None:
    first = codex.prompt(prompt({"run": "true"}, {"say": "a", "usage": {"input": 3000}}))
    codex.outcome(first)
    second = codex.prompt(prompt({"say": "b", "usage": {"cached": 900, "reasoning": 0}}))
    codex.outcome(second)
    totals = [e["data"] for e in codex.events("usage", first)]
    assert totals[-1]["total"] == {
        "total": 4100, "input": 4000, "cached_input": 400, "cache_write": 0, "output": 100,
        "reasoning_output": 20,
    }  # fmt: skip
    assert totals[-1]["last"]["input"] == 3000
    assert totals[-1]["model"] == MODEL
    assert totals[-1]["context_window"] > 100_000
    (only,) = [e["data"] for e in codex.events("usage", second)]
    assert only["total"] == only["last"]
    assert (only["total"]["input"], only["total"]["cached_input"]) == (1000, 900)
    assert only["session"] == totals[-1]["session"]


def test_the_conversation_is_kept(codex: CodexWorker, openai: OpenAIServer) -> None:
    codex.ask(prompt({"say": "I remember the sparrow."}))
    codex.ask(prompt({"say": "still there"}))
    assert "sparrow" in str(openai.asked()[-1].body["input"])


def test_or_begun_anew_with_every_prompt(make_codex: Make, openai: OpenAIServer) -> None:
    codex = make_codex(freshThreadPerPrompt=True, system_prompt=prompt({"say": "Ready."})).start()
    codex.ask(prompt({"say": "I remember the sparrow."}))
    assert codex.ask(prompt({"say": "What sparrow?"}))["answer"] == "What sparrow?"
    asked = str(openai.asked()[-1].body["input"])
    assert "sparrow." not in asked
    assert "Ready." in asked  # the system prompt went first
    assert len({e["data"]["session"] for e in codex.events("usage")}) == 2
    assert not list((codex.base / "codex").glob("sessions/**/*.jsonl"))


def test_pieces_are_told_while_the_model_still_speaks(
    codex: CodexWorker, openai: OpenAIServer
) -> None:
    injection = codex.prompt(prompt({"say": "Slowly now.", "hold": True}))
    until(lambda: "Slowly now." in codex.texts("assistant_delta", injection), "for pieces")
    assert not codex.events("turn_complete", injection)
    openai.release()
    assert codex.outcome(injection)["answer"] == "Slowly now."


def test_a_text_is_steered_into_the_running_turn(make_codex: Make, openai: OpenAIServer) -> None:
    codex = make_codex()
    codex.env = {**codex.env, "CODESWARM_CAPTURE_ALL_SESSION": "1"}
    codex.start()
    injection = codex.prompt(prompt({"say": "Working.", "hold": True}, {"say": "Never."}))
    codex.wait("assistant_delta", injection)
    codex.control("steer", injection_id=injection, content=prompt({"say": "Steered."}))
    until(lambda: '"result":{"turnId"' in codex.texts("session_trace", injection), "to be taken")
    openai.release()
    assert codex.outcome(injection)["answer"] == "Steered."
    assert not codex.events("agent_error", injection)


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([{"say": "Speaking.", "hold": True}], id="while-the-model-speaks"),
        pytest.param([{"run": "echo $$ > ../pid; exec sleep 300"}], id="while-a-command-runs"),
    ],
)
def test_an_interruption_ends_the_turn_and_what_it_runs(
    codex: CodexWorker, openai: OpenAIServer, replies: list[dict[str, object]]
) -> None:
    injection = codex.prompt(prompt(*replies))
    speaking = "hold" in replies[0]
    pid = codex.base / "pid"
    if speaking:
        codex.wait("assistant_delta", injection)
    else:
        until(lambda: pid.exists() and pid.read_text().strip(), "for the command")
    agent = codex.agent_pid
    codex.control("interrupt", injection_id=injection, reason="Cancelled")
    began = time.monotonic()
    done = codex.outcome(injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Cancelled")
    assert time.monotonic() - began < 5
    if speaking:
        openai.release()
    else:
        assert not runs(pid.read_text())
    assert codex.ask(prompt({"say": "Going on."}))["answer"] == "Going on."
    assert codex.agent_pid == agent


def test_background_processes_end_with_the_turn_but_the_agent_stays(codex: CodexWorker) -> None:
    command = "nohup setsid sleep 300 >/dev/null 2>&1 & echo $! > ../pid"
    codex.ask(prompt({"run": command}, {"say": "left something"}))
    assert not runs((codex.base / "pid").read_text())
    agent = codex.agent_pid
    codex.ask(prompt({"say": "again"}))
    assert codex.agent_pid == agent


FAILURES = [
    pytest.param({"fail": 429}, "quota", "429", id="429"),
    pytest.param({"fail": 500}, "overloaded", "high demand", id="500"),
    pytest.param({"fail": 503}, "overloaded", "503", id="503"),
    pytest.param({"fail": 401}, "auth", "refused the credential", id="401"),
    pytest.param({"say": "half", "drop": True}, "overloaded", "stream", id="dropped"),
    pytest.param({"error": "context_length_exceeded"}, "task", "context window", id="overflow"),
    pytest.param(
        {"fail": 404, "code": "model_not_found", "message": "The model `x` does not exist."},
        "task",
        f"does not serve the model {MODEL} (agent.model)",
        id="no-such-model",
    ),
    pytest.param({"fail": 400, "message": "bad thing"}, "task", "bad thing", id="400"),
]


@pytest.fixture(scope="module")
def failing(
    tmp_path_factory: pytest.TempPathFactory, openai: OpenAIServer, proxy: object
) -> object:
    """One worker for all failures: each leaves it usable."""
    worker = CodexWorker(tmp_path_factory.mktemp("failing") / "c0", openai, proxy)  # type: ignore[arg-type]
    worker.start()
    yield worker
    worker.close()


@pytest.mark.parametrize(("reply", "kind", "text"), FAILURES)
def test_a_providers_failure_has_its_class(
    failing: CodexWorker, reply: dict[str, object], kind: str, text: str
) -> None:
    done = failing.ask(prompt(reply))
    assert (done["status"], done["error"]["class"]) == ("failed", kind)
    assert text in done["error"]["message"]
    assert failing.ask(prompt({"say": "fine"}))["answer"] == "fine"


def test_a_quota_names_when_it_ends(failing: CodexWorker) -> None:
    message = "Rate limit reached for gpt-5.5. Please try again in 1m30.5s."
    done = failing.ask(prompt({"error": "rate_limit_exceeded", "message": message}))
    assert done["error"]["retry_after_seconds"] == 90.5
    headers = {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": str(int(time.time()) + 777),
    }
    reached = {"fail": 429, "type": "usage_limit_reached", "headers": headers}
    done = failing.ask(prompt(reached))
    assert done["error"]["class"] == "quota"
    assert 700 < done["error"]["retry_after_seconds"] <= 777


def test_a_killed_agent_is_resumed(codex: CodexWorker, openai: OpenAIServer) -> None:
    codex.ask(prompt({"say": "I remember the sparrow."}))
    injection = codex.prompt(prompt({"run": "true"}, {"say": "Speaking.", "hold": True}))
    codex.wait("assistant_delta", injection)
    os.kill(codex.agent_pid, signal.SIGKILL)
    done = codex.outcome(injection)
    assert done["error"]["class"] == "infrastructure"
    assert "signal 9" in done["error"]["message"]
    openai.release()
    again = codex.prompt(prompt({"say": "There again."}))
    assert codex.outcome(again)["answer"] == "There again."
    assert "sparrow" in str(openai.asked()[-1].body["input"])
    assert [e["data"]["total"]["input"] for e in codex.events("usage", again)] == [1000]
    os.kill(codex.agent_pid, signal.SIGKILL)  # between two turns
    assert codex.ask(prompt({"say": "And again."}))["answer"] == "And again."
    assert not codex.events("agent_error")


def test_a_killed_worker_goes_on_with_the_conversation(
    codex: CodexWorker, openai: OpenAIServer
) -> None:
    codex.ask(prompt({"say": "I remember the sparrow."}))
    injection = codex.prompt(prompt({"run": "true"}, {"say": "Speaking.", "hold": True}))
    codex.wait("assistant_delta", injection)
    agent = codex.agent_pid
    codex.end(signal.SIGKILL)
    openai.release()
    codex.start()
    assert codex.outcome(injection)["error"]["class"] == "infrastructure"
    assert not runs(agent)
    again = codex.prompt(prompt({"say": "There again."}))
    assert codex.outcome(again)["answer"] == "There again."
    assert "sparrow" in str(openai.asked()[-1].body["input"])
    assert [e["data"]["total"]["input"] for e in codex.events("usage", again)] == [1000]


def test_a_conversation_that_is_lost_is_begun_anew_and_told(
    make_codex: Make, openai: OpenAIServer
) -> None:
    codex = make_codex(system_prompt=prompt({"say": "I am the sparrow."})).start()
    kept = codex.base / "codex" / "thread.json"
    kept.write_text('{"thread": "01a00000-0000-7000-8000-000000000000"}')
    os.kill(codex.agent_pid, signal.SIGKILL)
    injection = codex.prompt(prompt({"say": "Anew."}))
    assert codex.outcome(injection)["answer"] == "Anew."
    (told,) = codex.events("agent_error", injection)
    assert told["data"]["class"] == "session"
    assert "a new one is begun" in told["data"]["message"]
    assert "I am the sparrow." in str(openai.asked()[-1].body["input"])  # told once more
    assert "01a00000" not in kept.read_text()


def test_no_secret_is_on_a_command_line_or_in_a_record(codex: CodexWorker) -> None:
    injection = codex.prompt(prompt({"run": "env; cat /proc/$PPID/environ"}, {"say": "seen"}))
    codex.outcome(injection)
    assert KEY not in codex.outbox.read_text()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert KEY.encode() not in process.read_bytes()
        except OSError:
            continue
