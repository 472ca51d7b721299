"""Questions of agents: persons and rules answer them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.resources.admission import Invalid, admit
from controller.resources.texts import Sources
from tests.lab import prompt, swarm
from tests.reconcile.asking import COMMAND, Agent, asking, decide, settled

ANYTHING = ["approve", "approve-session", "approve-always", "deny", "cancel"]


@pytest.mark.parametrize("value", ANYTHING)
def test_a_persons_decision_reaches_the_agent_word_for_word(play, value):
    async def scenario(rig):
        agent = Agent(rig, {"kind": "command", "command": COMMAND, "decisions": ANYTHING,
                            "diff": "+x", "amendments": ["rm"], "reason": "r"})  # fmt: skip
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")
        request = rig.get("Approval", name)["spec"]["request"]
        assert request["decisions"] == ANYTHING and request["amendments"] == ["rm"]
        assert (request["diff"], request["directory"]) == ("+x", "/w")
        decide(rig, name, value, by="ada", reason="why not")
        status = await settled(rig, name)
        assert status["outcome"] == value and status["delivered"]
        assert (status["source"], status["by"], status["byVerified"]) == ("person", "ada", False)
        assert status["message"] == f"{value} by ada: why not"
        assert status["phase"] == ("Approved" if value.startswith("approve") else "Denied")
        (payload,) = agent.answers()
        assert payload == {
            "action": "approval", "request_id": agent.request(), "injection_id": agent.injection,
            "decision": value, "by": "ada", "reason": "why not",
        }  # fmt: skip
        await rig.phase("Task", "p", "Succeeded")
        assert rig.reasons()["ApprovalRequired"] == 1 and rig.reasons()["Decided"] == 1

    play(scenario)


def test_a_task_says_whose_answer_it_waits_for(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent)
        await rig.until(lambda: rig.task("p").get("blocker"), "the blocker")
        status = rig.task("p")
        assert status["phase"] == "Running" and status["reason"] == "WaitingForApproval"
        assert status["blocker"] == {
            "reason": "WaitingForApproval",
            "message": f"waits for approval {name}: {COMMAND}",
            "on": {"kind": "Approval", "name": name},
        }
        decide(rig, name, "deny")
        await rig.until(lambda: "blocker" not in rig.task("p"), "the blocker to go")
        assert "reason" not in rig.task("p") and rig.task("p")["phase"] == "Running"

    play(scenario)


RULES = [
    {"match": {"command": "^git push"}, "decision": "ask"},
    {"match": {"command": "^(git|ls) "}, "decision": "approve", "name": "reading"},
    {"match": {"kind": "tool"}, "decision": "deny"},
]


def test_rules_answer_at_once(play):
    async def scenario(rig):
        agent = Agent(
            rig,
            {"command": "/bin/bash -lc 'git status'"},
            {"command": "ls -l", "decisions": ["approve-session", "deny"]},
            {"kind": "tool", "tool": "web", "decisions": ["approve", "cancel"]},
            {"command": "git push"},
        )
        await asking(rig, agent, approvals={"rules": RULES})
        await rig.until(lambda: len(rig.store.list("Approval")) == 2, "the second question")
        first = rig.status("Approval", agent.name(1))
        assert (first["source"], first["by"], first["outcome"]) == ("rule", "reading", "approve")
        assert first["message"] == "approve by rule reading"
        await rig.phase("Approval", agent.name(2), "Pending")  # the rule's answer is not offered
        decide(rig, agent.name(2), "approve-session")
        await rig.until(lambda: len(rig.store.list("Approval")) == 4, "the last question")
        third = rig.status("Approval", agent.name(3))
        assert (third["by"], third["outcome"]) == ("rules[2]", "cancel")
        await rig.phase("Approval", agent.name(4), "Pending")
        decide(rig, agent.name(4), "deny")
        await rig.phase("Task", "p", "Succeeded")
        assert [len(agent.answers(n)) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
        assert rig.reasons()["ApprovalRequired"] == 2  # only where a person had to answer

    play(scenario)


def test_a_new_rule_answers_what_is_open(play):
    async def scenario(rig):
        agent = Agent(rig)
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")
        rules = [{"match": {"command": "^rm "}, "decision": "deny"}]
        rig.apply(swarm(replicas=1, approvals={"rules": rules}))
        await rig.phase("Approval", name, "Denied", seconds=20)
        assert rig.status("Approval", name)["source"] == "rule"
        await rig.phase("Task", "p", "Succeeded")

    play(scenario)


def test_a_class_gives_rules_too(play):
    async def scenario(rig):
        approvals = {"rules": [{"match": {"command": "^rm "}, "decision": "approve"}]}
        rig.apply({"apiVersion": "codeswarm.dev/v1alpha1", "kind": "SwarmClass",
                   "metadata": {"name": "house"}, "spec": {"approvals": approvals}})  # fmt: skip
        agent = Agent(rig)
        name = await asking(rig, agent, className="house")
        assert (await settled(rig, name))["source"] == "rule"

    play(scenario)


def test_a_bad_rule_is_told_at_the_swarm_and_workers_run_on(play):
    async def scenario(rig):
        bad = {"rules": [{"match": {"command": "(ls"}, "decision": "approve"}]}
        rig.apply(swarm("other", 1, approvals=bad))
        await rig.until(lambda: rig.condition("Swarm", "other", "Accepted"), "the judgement")
        told = rig.condition("Swarm", "other", "Accepted")
        assert (told["status"], told["reason"]) == ("False", "ApprovalRulesInvalid")
        assert 'approvals.rules[0].match.command: "(ls"' in told["message"]
        agent = Agent(rig)
        good = {"rules": [{"match": {"command": "^rm"}, "decision": "deny"}]}
        rig.apply(swarm(replicas=1, approvals=good))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "the worker")
        rig.apply(swarm(replicas=1, approvals=bad))
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Accepted").get("status") == "False", "no"
        )
        assert rig.swarm()["readyReplicas"] == 1
        rig.apply(swarm(replicas=1, approvals=good), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        assert rig.status("Approval", agent.name())["source"] == "rule"

    play(scenario)


@pytest.mark.parametrize(
    ("default", "offered", "outcome"),
    [("approve", ["approve", "deny"], "approve"), ("deny", ["approve", "deny"], "deny"),
     ("approve", ["approve-always", "cancel"], "cancel")],
)  # fmt: skip
def test_the_deadline_answers_with_its_default(play, default, offered, outcome):
    async def scenario(rig):
        agent = Agent(rig, {"command": COMMAND, "decisions": offered})
        approvals = {"timeoutSeconds": 30, "defaultDecision": default}
        name = await asking(rig, agent, approvals=approvals)
        asked = rig.clock.now()
        await rig.phase("Task", "p", "Succeeded")
        status = rig.status("Approval", name)
        assert (status["source"], status["outcome"]) == ("deadline", outcome)
        assert 29 < rig.clock.now() - asked < 32
        assert agent.answers()[0]["decision"] == outcome

    play(scenario)


def test_an_answer_after_the_deadline_is_refused_by_the_schema(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent, approvals={"timeoutSeconds": 5})
        await settled(rig, name)
        stored = rig.get("Approval", name)
        late = {**stored, "spec": {**stored["spec"], "decision": {"value": "approve"}}}
        with pytest.raises(Invalid, match=r"spec\.decision: the question is settled already"):
            admit(late, stored)
        admit(late, {**stored, "status": {"phase": "Pending"}})

    play(scenario)


@pytest.mark.parametrize(
    ("claimed", "cluster", "by", "verified"),
    [(True, True, "ada", True), (True, False, "ada", False), (False, True, "ada", False),
     (True, True, "", False)],
)  # fmt: skip
def test_by_is_verified_where_the_cluster_vouches_for_it(play, claimed, cluster, by, verified):
    async def scenario(rig):
        rig.ctx.settings = replace(rig.settings, approvals_by_verified=claimed)
        rig.ctx.sources = Sources(files=not cluster)
        agent = Agent(rig)
        name = await asking(rig, agent)
        decide(rig, name, "deny", **({"by": by} if by else {}))
        assert (await settled(rig, name))["byVerified"] is verified

    play(scenario)
