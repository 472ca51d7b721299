"""Questions of agents while the controller or the worker is killed: one answer, at most once."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.support import FaultLab
from tests.lab import prompt, script, swarm

SAMPLES = 8
SEED = 20261126
ASK = script('ask: {command: "echo x >> asked"}', 'run: "touch asked; wc -l < asked"')


def prepare(lab: FaultLab, **approvals: Any) -> None:
    """A swarm whose agent asks, and a prompt that makes it."""
    agent = {"runtime": "mock", "approvalPolicy": "on-request"}
    lab.apply(swarm(replicas=1, agent=agent, approvals=approvals), prompt("p", ASK))


def life(lab: FaultLab, **approvals: Any) -> None:
    """A question is asked, answered by a person, delivered; whoever dies on the way."""
    prepare(lab, **approvals)
    lab.converge(lambda: open_question(lab), "the question")
    decide(lab, "approve")
    lab.converge(lambda: lab.phase_of("Task", "p") == "Succeeded", "the prompt")
    check(lab)


def open_question(lab: FaultLab) -> dict[str, Any] | None:
    """The one that waits for an answer now, if any."""
    for obj in lab.list("Approval"):
        if (obj.get("status") or {}).get("phase") == "Pending" and "decision" not in obj["spec"]:
            return obj
    return None


def decide(lab: FaultLab, value: str) -> None:
    """Answer what waits; too late is as good."""
    obj = open_question(lab)
    if obj is not None:
        try:
            lab.patch(
                "Approval",
                obj["metadata"]["name"],
                lambda o: o["spec"].update(decision={"value": value, "by": "ada"}),
            )
        except Exception as error:
            assert "settled already" in str(error)


def records(lab: FaultLab, event: str) -> list[dict[str, Any]]:
    """Records of an event in all transcripts."""
    found = []
    for file in lab.home.transcripts.glob("*/*/*.jsonl"):
        lines = [json.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
        found += [line for line in lines if line["event"] == event]
    return found


def sent(lab: FaultLab) -> list[dict[str, Any]]:
    """Answers that were put into inboxes."""
    found = []
    for file in lab.home.workspaces.glob("*/*/*/mailbox/inbox/*.jsonl"):
        lines = [json.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
        found += [line["payload"] for line in lines if line["type"] == "control"]
    return [payload for payload in found if payload["action"] == "approval"]


def check(lab: FaultLab) -> None:
    """What holds of every question, whoever died."""
    lab.converge(
        lambda: all(
            {"delivered", "expired"} & set(obj.get("status") or {}) for obj in lab.list("Approval")
        ),
        "all questions to be over",
    )
    told = Counter(r["data"]["request_id"] for r in records(lab, "exec_approval_resolved"))
    assert set(told.values()) <= {1}
    answers = {
        r["data"]["request_id"]: r["data"]["decision"]
        for r in records(lab, "exec_approval_resolved")
    }
    for obj in lab.list("Approval"):
        request, status = obj["spec"]["request"], obj["status"]
        payloads = {p["decision"] for p in sent(lab) if p["request_id"] == request["id"]}
        assert payloads <= {status["outcome"]}
        assert bool(status.get("delivered")) == (request["id"] in answers), status
        if status.get("delivered"):
            assert answers[request["id"]] == status["outcome"]
        decided = obj["spec"].get("decision")
        if decided and status["source"] != "expiry":
            assert (status["source"], status["outcome"]) == ("person", decided["value"])
    done = {r["data"]["item"] for r in records(lab, "command_completed")}
    assert len(done) == len(records(lab, "command_completed"))
    reasons = Counter((e.key, e.reason) for e in lab.db.events() for _ in range(e.count))
    for obj in lab.list("Approval"):
        name = obj["metadata"]["name"]
        decided = [n for (key, why), n in reasons.items() if key.name == name and why == "Decided"]
        assert sum(decided) <= 1


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The steps of an undisturbed life from the worker's launch on: the first and the last."""
    with FaultLab(tmp_path_factory.mktemp("undisturbed")) as lab:
        log = lab.start_crashing(0)
        life(lab)
        lines = log.read_text().splitlines()
        first = next(n for n, line in enumerate(lines, 1) if "after LocalProvider.deliver" in line)
        yield first, len(lines)


@pytest.mark.parametrize("sample", range(SAMPLES))
def test_the_controller_dies_at_a_step(lab: FaultLab, steps: tuple[int, int], sample: int) -> None:
    first, last = steps
    at = first + round(sample * (last - first) / (SAMPLES - 1))
    lab.start_crashing(at)
    life(lab)
    assert len(lab.attempts("p")) == 1
    assert all(obj["status"]["delivered"] for obj in lab.list("Approval"))
    (ran,) = [r["data"] for r in records(lab, "command_completed") if "wc" in r["data"]["command"]]
    assert ran["output"].strip() == "1"


@pytest.mark.parametrize("sample", range(4))
def test_the_controller_dies_while_answer_and_deadline_race(lab: FaultLab, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start_crashing(0)
    prepare(lab, timeoutSeconds=1)
    lab.wait(lambda: open_question(lab), "the question")
    time.sleep(chosen.uniform(0.9, 1.05))  # the race itself: no outcome of it is waited for
    decide(lab, "approve")
    time.sleep(chosen.uniform(0.0, 0.02))
    lab.kill()
    lab.start()
    lab.converge(lambda: lab.phase_of("Task", "p") == "Succeeded", "the prompt")
    check(lab)


@pytest.mark.parametrize("sample", range(4))
def test_the_worker_dies_while_its_answer_is_on_its_way(lab: FaultLab, sample: int) -> None:
    chosen = random.Random(SEED + sample)
    lab.start()
    prepare(lab)
    first = lab.wait(lambda: open_question(lab), "the question")["metadata"]["name"]
    pid = lab.worker_pid("builders", 0)
    decide(lab, "approve")
    time.sleep(chosen.uniform(0.0, 0.03))  # somewhere between the decision and the turn's end
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass

    def over() -> bool:
        found = open_question(lab)
        if found is not None and found["metadata"]["name"] != first:
            decide(lab, "deny")
        return lab.phase_of("Task", "p") == "Succeeded"

    lab.converge(over, "the prompt")
    check(lab)
