"""Prompts without a repository, and every step of the mock runtime, in a real worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.worker.harness import Worker, block, until

Make = Callable[..., Worker]


def texts(worker: Worker, injection: str) -> list[str]:
    return [e["data"]["text"] for e in worker.events("assistant", injection)]


def test_a_bare_prompt_is_answered_in_a_sentence_with_few_records(worker: Worker) -> None:
    done = worker.ask("Say who you are.")
    assert done["status"] == "completed" and "Say who you are." in done["answer"]
    assert [e["event"] for e in worker.events(injection="uid.1")] == [
        "turn_started",
        "task_started",
        "assistant_delta",
        "assistant",
        "turn_complete",
    ]
    assert worker.events("turn_started")[0]["data"] == {"attempt": 1}
    numbers = [e["seq"] for e in worker.events()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_prompts_that_come_while_it_is_busy_wait_in_order(worker: Worker) -> None:
    first = worker.prompt(block({"sleep": 0.2}))
    others = [worker.prompt(f"number {n}") for n in range(5)]
    worker.outcome(others[-1])
    ended = [e["injection_id"] for e in worker.events("turn_complete")]
    assert ended == [first, *others]


def test_saying_is_streamed_and_the_last_saying_is_the_answer(worker: Worker) -> None:
    long = "word " * 60
    done = worker.ask(block({"say": long}, {"say": "bye"}))
    assert done["answer"] == "bye" and texts(worker, "uid.1") == [long, "bye"]
    deltas = worker.events("assistant_delta", "uid.1")
    item = deltas[0]["data"]["item"]
    assert len(deltas) > 2
    assert "".join(d["data"]["text"] for d in deltas if d["data"]["item"] == item) == long


def test_commands_run_in_the_workspace_with_the_agents_environment(make_worker: Make) -> None:
    worker = make_worker()
    env = worker.base / "env"
    env.write_text('API_KEY="k 1"\n')
    env.chmod(0o600)
    worker.env = {**worker.env, "GIT_DIR": "/nowhere", "FROM_LAUNCHER": "yes"}
    worker.start()
    script = 'echo "$API_KEY $CODESWARM_JOB_ID $FROM_LAUNCHER [$GIT_DIR] $PWD" > out; printf done'
    assert worker.ask(block({"run": script}))["status"] == "completed"
    assert (worker.repo / "out").read_text() == f"k 1 {worker.job} yes [] {worker.repo}\n"
    assert not env.exists()
    told = worker.wait("command_completed")["data"]
    assert (told["exit_code"], told["output"], told["source"]) == (0, "done", "agent")
    assert told["command"] == script and told["seconds"] >= 0


def test_a_failing_command_fails_the_turn_as_the_tasks_own(worker: Worker) -> None:
    done = worker.ask(block({"run": "echo wrong >&2; exit 3"}, {"say": "never"}))
    assert done["status"] == "failed" and done["error"]["class"] == "task"
    assert "exit code 3: wrong" in done["error"]["message"]
    assert worker.count("assistant") == 0


def test_only_the_end_of_a_long_output_is_kept(worker: Worker) -> None:
    worker.ask(block({"run": "seq 1 200000; printf last"}))
    output = worker.wait("command_completed")["data"]["output"]
    assert output.endswith("200000\nlast") and len(output) == 8192


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "out/x", ".git/config", ""])
def test_a_write_never_leaves_the_workspace(worker: Worker, path: str) -> None:
    worker.ask(block({"run": "ln -s .. out"}))
    done = worker.ask(block({"write": {"path": path, "content": "x"}}))
    assert done["status"] == "failed" and done["error"]["class"] == "task"
    assert not (worker.base / "x").exists()


def test_writes_are_reported_as_file_changes(worker: Worker) -> None:
    step = {"write": {"path": "a/b.txt", "content": "\u00e9"}}
    worker.ask(block(step, step))
    told = [e["data"] for e in worker.events("filechange_completed")]
    assert [(d["path"], d["kind"], d["status"]) for d in told] == [
        ("a/b.txt", "add", "completed"),
        ("a/b.txt", "update", "completed"),
    ]
    assert worker.count("filechange_started") == 2
    assert (worker.repo / "a" / "b.txt").read_text() == "\u00e9"


def test_usage_adds_up_within_an_attempt_and_starts_again_with_the_next(worker: Worker) -> None:
    step = {"usage": {"inputTokens": 10, "cachedInputTokens": 4, "outputTokens": 5}}
    worker.ask(block(step, step))
    worker.ask(block(step))
    first, second, third = [e["data"] for e in worker.events("usage")]
    assert first["last"] == {"input": 10, "cached_input": 4, "output": 5, "total": 15}
    assert second["total"] == {"input": 20, "cached_input": 8, "output": 10, "total": 30}
    assert third["total"] == first["total"]
    assert first["session"] == third["session"] and first["model"] == "mock"


@pytest.mark.parametrize("kind", ["quota", "overloaded", "auth"])
def test_provider_errors_keep_their_class_and_delay(worker: Worker, kind: str) -> None:
    done = worker.ask(block({"error": {"class": kind, "retryAfterSeconds": 5}}))
    assert done["status"] == "failed" and done["error"]["class"] == kind
    assert done["error"]["retry_after_seconds"] == 5


def test_a_bad_block_fails_the_turn_and_does_nothing(worker: Worker) -> None:
    done = worker.ask(block({"run": "touch made"}, {"jump": 1}))
    assert done["error"]["class"] == "task"
    assert "step 2: unknown step 'jump'" in done["error"]["message"]
    assert not (worker.repo / "made").exists()


def test_steps_of_another_attempt_do_not_count(worker: Worker) -> None:
    steps = block({"say": "one", "attempt": 1}, {"say": "two", "attempt": 2}, {"crash": False})
    task = {"name": "t", "uid": "u", "kind": "prompt", "attempt": 2}
    assert worker.ask(steps, task=task)["answer"] == "two"


def test_routes_and_plans_are_in_the_answer(worker: Worker) -> None:
    line = "/swarm[reviewers]/idle please look at this"
    done = worker.ask(block({"route": line}, {"plan": {"tasks": [{"task_id": "a"}]}}))
    assert line in done["answer"].splitlines()
    _, _, graph = done["answer"].partition("TASK_GRAPH_JSON\n")
    assert json.loads(graph) == {"tasks": [{"task_id": "a"}]}


def test_a_long_answer_keeps_its_end(worker: Worker) -> None:
    done = worker.ask(block({"say": "a" * 100_000 + "\u00e9nd"}))
    assert done["answer"].endswith("a\u00e9nd") and len(done["answer"].encode()) <= 65_536


def test_the_delay_is_waited_before_every_turn(make_worker: Make) -> None:
    worker = make_worker(agent={"mock": {"delaySeconds": 0.2}}).start()
    worker.ask("hello")
    started, answered = worker.wait("turn_started"), worker.wait("assistant")
    assert answered["ts"] - started["ts"] >= 0.2


# --- approvals --------------------------------------------------------------------------------


def ask(worker: Worker, decision: str, *, early: bool = False) -> dict[str, Any]:
    injection = worker.prompt(
        block({"ask": {"command": "touch asked", "reason": "why"}}, {"say": "on"})
    )
    request = worker.wait("exec_approval_required", injection)["data"]
    assert request["command"] == "touch asked" and request["cwd"] == str(worker.repo)
    assert request["reason"] == "why"
    assert worker.events("thread_status")[-1]["data"]["status"] == "waiting_approval"
    worker.control("approval", request_id="another", decision="approve")
    worker.control("approval", request_id=request["request_id"], decision=decision, by="ada")
    done = worker.outcome(injection)
    resolved = worker.wait("exec_approval_resolved", injection)["data"]
    assert resolved == {"request_id": request["request_id"], "decision": decision, "by": "ada"}
    return done


def test_an_approved_command_runs(make_worker: Make) -> None:
    worker = make_worker(agent={"approvalPolicy": "on-request"}).start()
    assert ask(worker, "approve")["answer"] == "on"
    assert (worker.repo / "asked").exists()


def test_a_refused_command_does_not_and_the_turn_goes_on(make_worker: Make) -> None:
    worker = make_worker(agent={"approvalPolicy": "on-request"}).start()
    assert ask(worker, "deny")["answer"] == "on"
    assert not (worker.repo / "asked").exists()


def test_under_the_policy_never_nothing_is_asked(worker: Worker) -> None:
    done = worker.ask(block({"ask": {"command": "touch asked"}}, {"say": "on"}))
    assert done["answer"] == "on"
    assert worker.count("exec_approval_required") == 0
    assert not (worker.repo / "asked").exists()


# --- the system prompt ------------------------------------------------------------------------


def test_the_system_prompt_is_the_first_turn_and_idle_comes_after_it(make_worker: Make) -> None:
    worker = make_worker(systemPrompt=block({"sleep": 0.1}, {"say": "ready"}))
    early = worker.prompt("hello")
    worker.start()
    system = f"{worker.job}.system"
    worker.outcome(early)
    order = [
        (e["event"], e["injection_id"])
        for e in worker.events()
        if e["event"] in ("thread_status", "turn_started", "turn_complete")
    ]
    assert order.index(("turn_complete", system)) < order.index(("turn_started", early))
    idle = next(e for e in worker.events("thread_status") if e["data"]["status"] == "idle")
    assert idle["seq"] > worker.wait("turn_complete", system)["seq"]


def test_a_failed_system_prompt_ends_the_worker(make_worker: Make) -> None:
    worker = make_worker(systemPrompt=block({"error": {"class": "auth"}}))
    assert worker.spawn().wait(20) == 1
    last = worker.events("thread_status")[-1]["data"]
    assert last == {"status": "stopped", "reason": "SystemPromptFailed"}


def test_with_fresh_threads_it_precedes_every_prompt(make_worker: Make) -> None:
    worker = make_worker(
        systemPrompt=block({"say": "system"}), agent={"freshThreadPerPrompt": True}
    ).start()
    usage = {"usage": {"outputTokens": 1}}
    assert worker.ask(block({"say": "one"}, usage))["answer"] == "one"
    assert worker.ask(block({"say": "two"}, usage))["answer"] == "two"
    assert texts(worker, "uid.1") == ["system", "one"]
    assert texts(worker, "uid.2") == ["system", "two"]
    sessions = {e["data"]["session"] for e in worker.events("usage")}
    assert len(sessions) == 2
    assert not worker.events(injection=f"{worker.job}.system")


# --- steering ---------------------------------------------------------------------------------


def test_a_steered_text_joins_the_running_turn(worker: Worker) -> None:
    injection = worker.prompt(block({"say": "a"}, {"run": "until test -e go; do sleep 0.01; done"}))
    worker.wait("command_started", injection)
    worker.control("steer", injection_id=injection, content=block({"say": "b"}))
    worker.control("steer", injection_id=injection, content="also this")
    worker.control("steer", injection_id="another", content="not this")
    until(lambda: worker.events("agent_error"), "for the refusal")
    (worker.repo / "go").touch()
    assert worker.outcome(injection)["answer"] == "Noted: also this"
    assert texts(worker, injection) == ["a", "b", "Noted: also this"]
    assert worker.wait("agent_error")["data"]["class"] == "steer"
