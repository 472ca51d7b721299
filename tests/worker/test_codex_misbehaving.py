"""A Codex process that misbehaves keeps no worker: everything has a bound and an end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.worker.harness import Worker, until
from tests.worker.test_children import runs

Make = Callable[..., Worker]
FAKE = Path(__file__).with_name("fake_codex.py")


@pytest.fixture
def codex(make_worker: Make, tmp_path: Path) -> Worker:
    """A running worker whose Codex is the fake one."""
    program = tmp_path / "codex"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    program.chmod(0o755)
    agent = {"codex": {"path": str(program)}, "approvalPolicy": "never"}
    worker = make_worker(runtime="codex", agent=agent)
    (worker.base / "env").write_text(
        json.dumps({"OPENAI_API_KEY": "sk-0123456789", "FAKE_NOTES": str(tmp_path / "notes")})
    )
    return worker.start()


def test_an_ordinary_turn(codex: Worker) -> None:
    assert codex.ask("fine") == {"status": "completed", "answer": "fine"}


def test_one_that_takes_no_notice_of_an_interruption_is_ended(
    codex: Worker, tmp_path: Path
) -> None:
    injection = codex.prompt("stubborn")
    codex.wait("assistant", injection)
    pid = int((tmp_path / "notes").read_text())
    began = time.monotonic()
    codex.control("interrupt", injection_id=injection, reason="Cancelled")
    assert codex.outcome(injection)["reason"] == "Cancelled"
    assert time.monotonic() - began < 6
    assert not runs(pid)
    assert codex.ask("fine")["answer"] == "fine"


def test_one_that_does_not_begin_can_be_interrupted(codex: Worker) -> None:
    injection = codex.prompt("silent")
    codex.wait("task_started", injection)
    codex.control("interrupt", injection_id=injection, reason="Timeout")
    assert codex.outcome(injection)["reason"] == "Timeout"
    assert codex.ask("fine")["answer"] == "fine"


def test_a_flood_is_bounded(codex: Worker) -> None:
    assert codex.process is not None
    process = psutil.Process(codex.process.pid)
    injection = codex.prompt("flood")
    codex.wait("assistant_delta", injection)
    until(lambda: codex.outbox.stat().st_size > 40 << 20, "for 40 MiB of it")
    peak = process.memory_info().rss
    codex.control("interrupt", injection_id=injection, reason="Cancelled")
    assert codex.outcome(injection)["reason"] == "Cancelled"
    assert peak < 400 << 20
    assert codex.ask("fine")["answer"] == "fine"


def test_nonsense_is_passed_over(codex: Worker) -> None:
    assert codex.ask("nonsense") == {"status": "completed", "answer": "fine"}


def test_whatever_it_asks_the_answer_is_no(codex: Worker) -> None:
    answers = json.loads(codex.ask("asks")["answer"])
    assert answers == [
        {"permissions": {}, "scope": "turn"},
        {"answers": {}},
        -32601,
        {"action": "decline", "content": None},
        -32601,
        -32601,
        {"decision": "decline"},
        {"decision": "decline"},
    ]
    assert not codex.events("exec_approval_required")


def test_a_turn_that_it_ends_by_itself_failed(codex: Worker) -> None:
    done = codex.ask("interrupts_itself")
    assert (done["status"], done["error"]["class"]) == ("failed", "infrastructure")


def test_its_death_costs_the_turn_and_no_more(codex: Worker) -> None:
    done = codex.ask("dies")
    assert (done["status"], done["error"]["class"]) == ("failed", "infrastructure")
    assert "signal 9" in done["error"]["message"]
    assert codex.ask("fine")["answer"] == "fine"


def test_a_death_that_nobody_saw_does_not_even_cost_the_turn(codex: Worker) -> None:
    assert codex.process is not None
    (agent,) = psutil.Process(codex.process.pid).children()
    agent.suspend()  # so that it takes no request any more, and dies with one in its pipe
    injection = codex.prompt("fine")
    codex.wait("task_started", injection)
    agent.kill()
    assert codex.outcome(injection)["answer"] == "fine"
