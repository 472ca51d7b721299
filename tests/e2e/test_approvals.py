"""An agent's question, answered by a person, by its deadline, or by nobody any more."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from controller.store.base import Key
from tests.lab import Lab, prompt, script, swarm

ASK = script('ask: {command: "echo yes > asked.txt"}', 'run: "ls asked.txt || echo none"')


def question(lab: Lab) -> dict[str, Any]:
    """The one Approval, once it is there."""
    return lab.wait(lambda: lab.db.list("Approval"), "the question")[0]  # type: ignore[no-any-return]


def asking(lab: Lab, **approvals: Any) -> None:
    """A swarm whose agent asks, and a prompt that makes it."""
    lab.start()
    agent = {"runtime": "mock", "approvalPolicy": "on-request"}
    lab.apply(swarm(replicas=1, agent=agent, **({"approvals": approvals} if approvals else {})))
    lab.apply(prompt("p", ASK))


@pytest.mark.parametrize(("value", "phase"), [("approve", "Approved"), ("deny", "Denied")])
def test_a_person_decides(lab: Lab, value: str, phase: str) -> None:
    asking(lab)
    name = question(lab)["metadata"]["name"]
    assert lab.get("Approval", name)["spec"]["request"]["command"] == "echo yes > asked.txt"
    lab.patch("Approval", name, lambda o: o["spec"].update(decision={"value": value, "by": "ada"}))
    lab.wait_phase("Task", "p", "Succeeded")
    status = lab.wait(
        lambda: (s := lab.status(Key("Approval", "default", name))).get("delivered") and s,
        "delivery",
    )
    assert (status["phase"], status["source"], status["by"]) == (phase, "person", "ada")
    made = list(lab.home.workspaces.glob("default/*/*/repo/asked.txt"))
    assert bool(made) == (value == "approve")


def test_the_deadline_decides(lab: Lab) -> None:
    asking(lab, timeoutSeconds=1, defaultDecision="approve")
    name = question(lab)["metadata"]["name"]
    lab.wait_phase("Task", "p", "Succeeded")
    assert lab.get("Approval", name)["status"]["source"] == "deadline"


def test_an_answer_survives_the_controller(lab: Lab) -> None:
    asking(lab)
    name = question(lab)["metadata"]["name"]
    lab.kill()
    lab.patch("Approval", name, lambda o: o["spec"].update(decision={"value": "approve"}))
    lab.start()
    lab.wait_phase("Task", "p", "Succeeded")
    assert len(lab.task("p")["attempts"]) == 1


def test_a_question_expires_with_its_worker(lab: Lab) -> None:
    asking(lab)
    name = question(lab)["metadata"]["name"]
    pid = lab.wait(lambda: lab.worker_pid("builders", 0), "the worker")
    os.kill(pid, signal.SIGKILL)
    lab.wait(lambda: lab.status(Key("Approval", "default", name)).get("expired"), "the expiry")
    other = lab.wait(
        lambda: [a for a in lab.db.list("Approval") if a["metadata"]["name"] != name], "the next"
    )
    lab.patch(
        "Approval",
        other[0]["metadata"]["name"],
        lambda o: o["spec"].update(decision={"value": "deny"}),
    )
    lab.wait_phase("Task", "p", "Succeeded")
