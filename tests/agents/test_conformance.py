"""One vocabulary: the same scenarios for every runtime, each in a real worker process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from controller.domain.shell import inner
from tests.agents.drivers import Driver
from tests.agents.script import USAGE
from tests.worker.harness import Event, Repository, Worker, until
from worker import records

LONG = "A sentence that is long enough to come in several pieces, as answers do. " * 3
CALL = {
    "input": USAGE["input"],
    "cached_input": USAGE["cached"],
    "cache_write": 0,
    "output": USAGE["output"],
    "reasoning_output": USAGE["reasoning"],
    "total": USAGE["input"] + USAGE["output"],
}
"""Tokens of one call to the model."""


@pytest.fixture(scope="module")
def worker(driver: Driver) -> Worker:
    """A worker that asks nobody, shared by the scenarios of this module."""
    return driver.make("plain", approvalPolicy="never").start()


@pytest.fixture(scope="module")
def asking(driver: Driver) -> Worker:
    """A worker that asks about everything but reading."""
    return driver.make("asking", approvalPolicy="untrusted").start()


def data(worker: Worker, event: str, injection: str) -> list[dict[str, Any]]:
    return [record["data"] for record in worker.events(event, injection)]


def times(counts: dict[str, int], factor: int) -> dict[str, int]:
    return {name: count * factor for name, count in counts.items()}


def total(worker: Worker, injection: str) -> dict[str, int]:
    """The sum over the sessions of what was last told of each."""
    latest = {told["session"]: told["total"] for told in data(worker, "usage", injection)}
    found: dict[str, int] = dict.fromkeys(CALL, 0)
    for counts in latest.values():
        for name in found:
            found[name] += counts.get(name, 0)
    return found


def said(events: list[Event]) -> dict[str, str]:
    """What deltas add up to, by item."""
    texts: dict[str, str] = {}
    for event in events:
        texts[event["data"]["item"]] = texts.get(event["data"]["item"], "") + event["data"]["text"]
    return texts


# --- answers, commands, files -----------------------------------------------------------------


def test_an_answer_is_streamed_and_its_usage_is_exact(driver: Driver, worker: Worker) -> None:
    usage = {"cached": 600, "output": 80, "reasoning": 30, **driver.usage_extra}
    reply = {"think": "Let me see. " * 4, "say": LONG, "usage": usage}
    injection = worker.prompt(driver.prompt(reply))
    done = worker.outcome(injection)
    assert done == {"status": "completed", "answer": LONG}
    events = [e["event"] for e in worker.events(injection=injection)]
    assert events[:2] == ["turn_started", "task_started"] and events[-1] == "turn_complete"
    assert set(events) <= records.EVENTS
    for whole, delta in (("assistant", "assistant_delta"), ("reasoning", "reasoning_delta")):
        (told,) = data(worker, whole, injection)
        assert said(worker.events(delta, injection)) == {told["item"]: told["text"]}
    assert data(worker, "reasoning", injection)[0]["text"] == "Let me see. " * 4
    assert total(worker, injection) == {
        "input": 1000, "cached_input": 600, "cache_write": usage.get("written", 0),
        "output": 80, "reasoning_output": 30, "total": 1080,
    }  # fmt: skip
    told = data(worker, "usage", injection)[-1]
    assert told["last"] == told["total"] and told["model"] and told["session"]


def test_a_command_and_a_file_change_are_told(driver: Driver, worker: Worker) -> None:
    steps = [
        {"run": "echo one > made.txt; cat made.txt; pwd"},
        {"write": {"path": "sub/new.txt", "content": "two\n"}},
        {"say": "Both are there."},
    ]
    injection = worker.prompt(driver.prompt(*steps))
    assert worker.outcome(injection) == {"status": "completed", "answer": "Both are there."}
    (begun,), (ended,) = (
        data(worker, f"command_{how}", injection) for how in ("started", "completed")
    )
    assert begun["command"] == steps[0]["run"] and begun["source"] == "agent"
    assert begun.items() <= ended.items()
    assert ended["exit_code"] == 0 and ended["seconds"] >= 0
    assert ended["output"].split() == ["one", str(worker.repo)]
    (changed,) = data(worker, "filechange_completed", injection)
    assert (changed["path"], changed["kind"]) == ("sub/new.txt", "add")
    assert changed["status"] == "completed"
    assert data(worker, "filechange_started", injection)[0]["item"] == changed["item"]
    assert (worker.repo / "made.txt").read_text() == "one\n"
    assert (worker.repo / "sub" / "new.txt").read_text() == "two\n"
    assert total(worker, injection) == times(CALL, 3)


def test_what_a_command_left_running_ends_with_the_turn(driver: Driver, worker: Worker) -> None:
    command = "nohup sleep 297 > /dev/null 2>&1 & echo $!"
    injection = worker.prompt(driver.prompt({"run": command}, {"say": "Started."}))
    assert worker.outcome(injection)["status"] == "completed"
    pid = int(data(worker, "command_completed", injection)[0]["output"])
    assert not psutil.pid_exists(pid)


# --- failures of the provider -----------------------------------------------------------------

FAILURES = {
    "quota": {"fail": 429},
    "overloaded": {"fail": 500},
    "auth": {"fail": 401},
    "dropped": {"say": LONG, "drop": True},
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_providers_failure_has_its_class_and_the_next_turn_works(
    driver: Driver, worker: Worker, case: str
) -> None:
    done = worker.ask(driver.prompt(FAILURES[case]))
    assert done["status"] == "failed", done
    assert done["error"]["class"] == ("overloaded" if case == "dropped" else case)
    assert worker.ask(driver.prompt({"say": "Here."})) == {"status": "completed", "answer": "Here."}


def test_the_wait_that_a_provider_names_is_told(driver: Driver, worker: Worker) -> None:
    done = worker.ask(driver.prompt(driver.quota(90)))
    assert done["error"]["class"] == "quota"
    assert done["error"]["retry_after_seconds"] >= 90


def test_a_conversation_that_is_too_long_is_the_tasks_own_failure(
    driver: Driver, worker: Worker
) -> None:
    if driver.overflow is None:
        pytest.skip("it has no model")
    done = worker.ask(driver.prompt(driver.overflow))
    assert done["error"]["class"] == "task" and "context window" in done["error"]["message"]


# --- interruption, crashes ----------------------------------------------------------------------


def interrupt(worker: Worker, injection: str) -> dict[str, Any]:
    worker.control("interrupt", injection_id=injection, reason="Cancelled")
    return worker.outcome(injection)


def test_an_interrupted_turn_ends_at_once_and_the_next_one_works(
    driver: Driver, worker: Worker
) -> None:
    injection = worker.prompt(driver.prompt({"say": LONG, "hold": True}))
    worker.wait("assistant_delta", injection)
    done = interrupt(worker, injection)
    assert (done["status"], done["reason"]) == ("interrupted", "Cancelled")
    assert worker.ask(driver.prompt({"say": "Back."}))["answer"] == "Back."


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_one_that_must_leave_keeps_what_its_agent_has_done(
    driver: Driver, tmp_path: Path, number: signal.Signals
) -> None:
    remote = Repository(tmp_path / "remote.git")
    leaving = driver.make(f"leaving-{number.name}", approvalPolicy="never").start()
    command = "echo half > half.txt; echo $$ > pid; tail -f /dev/null"
    leaving.write(remote.work("u.1", driver.prompt({"run": command}, {"say": "Never said."})))
    written = leaving.repo / "pid"
    until(lambda: written.exists() and written.read_text(), "for the command")
    assert leaving.end(number) == 0, leaving.log()
    done = leaving.outcome("u.1")
    assert done["status"] == "interrupted" and done["reason"] in ("TimeLimit", "Stopped")
    refs = remote.refs()
    assert sorted(refs) == ["refs/codeswarm/uid-library/1", "refs/heads/main"]
    assert remote.show(refs["refs/codeswarm/uid-library/1"], "half.txt") == "half"


def test_an_interrupted_command_is_ended(driver: Driver, worker: Worker) -> None:
    command = "echo $$ > pid; tail -f /dev/null"
    injection = worker.prompt(driver.prompt({"run": command}, {"say": "Never said."}))
    worker.wait("command_started", injection)
    pid = int(until(lambda: (worker.repo / "pid").exists() and (worker.repo / "pid").read_text()))
    assert interrupt(worker, injection)["status"] == "interrupted"
    assert not psutil.pid_exists(pid)
    assert worker.ask(driver.prompt({"say": "Back."}))["answer"] == "Back."


def test_a_killed_agent_fails_the_turn_and_the_conversation_goes_on(
    driver: Driver, worker: Worker
) -> None:
    if not driver.agent:
        pytest.skip("its agent is the worker itself")
    assert worker.ask(driver.prompt({"say": "The word is marmalade."}))["status"] == "completed"
    injection = worker.prompt(driver.prompt({"say": LONG, "hold": True}))
    worker.wait("assistant_delta", injection)
    driver.process(worker).kill()
    done = worker.outcome(injection)
    assert (done["status"], done["error"]["class"]) == ("failed", "infrastructure")
    assert worker.ask(driver.prompt({"say": "Still here."}))["answer"] == "Still here."
    assert "marmalade" in driver.conversation()


def test_a_killed_worker_goes_on_with_its_conversation(driver: Driver) -> None:
    worker = driver.make("killed").start()
    assert worker.ask(driver.prompt({"say": "The word is rhubarb."}))["status"] == "completed"
    injection = worker.prompt(driver.prompt({"run": "tail -f /dev/null"}))
    worker.wait("command_started", injection)
    assert worker.process is not None
    below = psutil.Process(worker.process.pid).children(recursive=True)
    worker.end(signal.SIGKILL)
    worker.start()
    done = worker.outcome(injection)
    assert (done["status"], done["error"]["class"]) == ("failed", "infrastructure")
    until(lambda: not any(p.is_running() and p.status() != "zombie" for p in below), "for an end")
    injection = worker.prompt(driver.prompt({"say": "Back."}))
    assert worker.outcome(injection)["answer"] == "Back."
    assert total(worker, injection) == CALL
    if driver.agent:
        assert "rhubarb" in driver.conversation()


# --- approvals ----------------------------------------------------------------------------------


@pytest.fixture
def question(driver: Driver, asking: Worker) -> Iterator[tuple[str, dict[str, Any]]]:
    """A turn that waits for leave to run a command: its injection and the question."""
    steps = [{"run": "touch asked-for"}, {"say": "That was it."}]
    injection = asking.prompt(driver.prompt(*steps, asking=True))
    yield injection, asking.wait("exec_approval_required", injection)["data"]
    (asking.repo / "asked-for").unlink(missing_ok=True)


def test_a_question_says_what_is_asked(
    question: tuple[str, dict[str, Any]], asking: Worker
) -> None:
    injection, asked = question
    assert asked["kind"] == "command" and inner(asked["command"]) == "touch asked-for"
    assert asked["cwd"] == str(asking.repo) and len(asked["arguments_digest"]) == 64
    assert {"approve", "deny"} <= set(asked["decisions"]) <= {
        "approve", "approve-session", "approve-always", "deny", "cancel"
    }  # fmt: skip
    status = data(asking, "thread_status", injection)[-1]
    assert status["status"] == "waiting_approval"
    assert not (asking.repo / "asked-for").exists()
    assert interrupt(asking, injection)["status"] == "interrupted"


@pytest.mark.parametrize("decision", ["approve", "deny"])
def test_the_answer_reaches_the_agent_and_is_confirmed(
    question: tuple[str, dict[str, Any]], asking: Worker, decision: str
) -> None:
    injection, asked = question
    asking.control(
        "approval", request_id=asked["request_id"], decision=decision, by="ada", reason="because"
    )
    assert asking.outcome(injection)["status"] == "completed"
    (told,) = data(asking, "exec_approval_resolved", injection)
    assert told == {"request_id": asked["request_id"], "decision": decision, "by": "ada"}
    assert (asking.repo / "asked-for").exists() == (decision == "approve")
    assert data(asking, "thread_status", injection)[-1]["status"] == "active"


def test_a_question_without_an_answer_ends_with_its_turn(
    question: tuple[str, dict[str, Any]], driver: Driver, asking: Worker
) -> None:
    injection, asked = question
    assert interrupt(asking, injection)["status"] == "interrupted"
    assert data(asking, "exec_approval_resolved", injection) == []
    asking.control("approval", request_id=asked["request_id"], decision="approve")
    assert asking.ask(driver.prompt({"say": "Next."}))["answer"] == "Next."
    assert not (asking.repo / "asked-for").exists()
