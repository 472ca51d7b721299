"""Questions of agents: who answers, that one answer counts, and that it arrives once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from controller.reconcile.questions import approval_name
from controller.resources.admission import Invalid, admit
from controller.resources.texts import Sources
from controller.store.base import Conflict, Key
from providers.base import ProviderError
from tests.lab import prompt, swarm

COMMAND = "rm -rf build"


class Agent:
    """The only worker's agent: asks, waits for its answer, and ends its turn."""

    def __init__(self, rig: Any, *questions: dict[str, Any], ends: bool = True) -> None:
        self.rig = rig
        self.questions = questions or ({"command": COMMAND},)
        self.ends = ends
        self.job: Any = None
        self.injection = ""
        rig.provider.work = self.work

    async def work(self, job: Any, record: dict[str, Any]) -> None:
        self.job, self.injection = job, record["injection_id"]
        for number, question in enumerate(self.questions, 1):
            self.ask(number, question)
            payload = await self.answered(number)
            self.resolve(number, payload["decision"])
        if self.ends:
            job.finish(self.injection, {"status": "completed", "answer": "done"})
        else:
            await asyncio.sleep(100_000)

    def request(self, number: int = 1) -> str:
        return f"{self.injection}/{number}"

    def ask(self, number: int, question: dict[str, Any]) -> None:
        data = {"request_id": self.request(number), "cwd": "/w", **question}
        self.job.emit("exec_approval_required", data, self.injection)

    def resolve(self, number: int, decision: str) -> None:
        data = {"request_id": self.request(number), "decision": decision}
        self.job.emit("exec_approval_resolved", data, self.injection)

    async def answered(self, number: int) -> dict[str, Any]:
        while not (found := self.answers(number)):  # noqa: ASYNC110 (time is virtual)
            await asyncio.sleep(0.01)
        return found[0]

    def answers(self, number: int = 1) -> list[dict[str, Any]]:
        payloads = [r["payload"] for r in self.job.inbox if r["type"] == "control"]
        wanted = self.request(number)
        return [p for p in payloads if p["action"] == "approval" and p["request_id"] == wanted]

    def name(self, number: int = 1, attempt: int = 1) -> str:
        return approval_name("p", attempt, self.request(number))


async def asking(rig: Any, agent: Agent, *, task: dict[str, Any] | None = None, **spec: Any) -> str:
    """A prompt whose agent asks; the name of its first question."""
    rig.apply(swarm(replicas=1, **spec), prompt("p", **(task or {})))
    await rig.until(lambda: rig.store.list("Approval"), "the question")
    return agent.name()


def decide(rig: Any, name: str, value: str, **more: str) -> None:
    rig.patch("Approval", name, decision={"value": value, **more})


async def settled(rig: Any, name: str) -> dict[str, Any]:
    return await rig.until(
        lambda: (s := rig.status("Approval", name)).get("delivered") or (s.get("expired") and s),
        f"{name} to be over",
    ) and rig.status("Approval", name)


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


@pytest.mark.parametrize("first", ["decision", "deadline"])
def test_of_an_answer_and_the_deadline_one_wins(play, first):
    """Both at the same moment: whoever is stored first counts, and only that is sent."""

    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent, approvals={"timeoutSeconds": 5})
        await rig.phase("Approval", name, "Pending")
        write, stored = rig.store.update_status, []

        async def racing(obj):
            outcome = (obj.get("status") or {}).get("outcome")
            if obj["kind"] == "Approval" and outcome and not stored:
                stored.append(outcome)
                if first == "decision":
                    decide(rig, name, "approve")  # before this write, which so is refused
            return await write(obj)

        rig.store.update_status = racing
        status = await settled(rig, name)
        expected = ("person", "approve") if first == "decision" else ("deadline", "deny")
        assert (status["source"], status["outcome"]) == expected
        assert [p["decision"] for p in agent.answers()] == [expected[1]]

    play(scenario)


def test_an_answer_is_delivered_when_the_worker_says_so(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        heard = asyncio.Event()
        usual = agent.answered

        async def slow(number):
            payload = await usual(number)
            await heard.wait()
            return payload

        agent.answered = slow
        name = await asking(rig, agent)
        decide(rig, name, "approve")
        await rig.phase("Approval", name, "Approved")
        await rig.pass_time(25)
        assert "delivered" not in rig.status("Approval", name)
        assert rig.condition("Approval", name, "Delivered")["reason"] == "Sending"
        assert len(agent.answers()) == 3  # the same answer again: the worker takes the first
        assert {p["decision"] for p in agent.answers()} == {"approve"}
        heard.set()
        assert (await settled(rig, name))["delivered"]

    play(scenario)


@pytest.mark.parametrize("refused", [0, 1, 5])
def test_what_the_worker_confirmed_outlives_the_end_of_its_turn(play, refused):
    """Confirmation and end come together, and some writes of the first are refused."""

    async def scenario(rig):
        agent = Agent(rig)
        name = await asking(rig, agent)
        write, left = rig.store.update_status, [refused]

        async def busy(obj):
            if obj["kind"] == "Approval" and obj["status"].get("delivered") and left[0]:
                left[0] -= 1
                raise Conflict("somebody was faster")
            return await write(obj)

        rig.store.update_status = busy
        decide(rig, name, "approve")
        await rig.phase("Task", "p", "Succeeded")
        assert rig.status("Approval", name)["delivered"]
        assert left == [0]

    play(scenario)


@pytest.mark.parametrize("decided", [False, True])
def test_a_restarted_controller_sends_the_one_answer(play, decided):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")
        if decided:
            rig.provider.deliver_error = ProviderError("Away", "not now")
            decide(rig, name, "approve")
            await rig.phase("Approval", name, "Approved")
        await rig.crash()
        rig.provider.deliver_error = None
        if not decided:
            decide(rig, name, "approve")
        rig.start()
        assert (await settled(rig, name))["delivered"]
        assert [p["decision"] for p in agent.answers()] == ["approve"]

    play(scenario)


def test_a_question_expires_with_its_worker(play):
    async def scenario(rig):
        agent = Agent(rig)
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")
        rig.provider.kill(agent.job.name)
        await rig.phase("Approval", name, "Expired")
        status = rig.status("Approval", name)
        assert (status["outcome"], status["source"]) == ("expired", "expiry")
        assert rig.condition("Approval", name, "Delivered")["reason"] == "QuestionGone"
        await rig.until(lambda: len(rig.store.list("Approval")) == 2, "the next attempt's question")
        again = agent.name(attempt=2)
        decide(rig, again, "deny")
        await rig.phase("Task", "p", "Succeeded")
        assert rig.status("Approval", again)["delivered"]

    play(scenario)


def test_a_question_that_the_agent_takes_back(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")
        agent.resolve(1, "cancel")
        await rig.phase("Approval", name, "Expired")
        await rig.until(lambda: "blocker" not in rig.task("p"), "the blocker to go")
        assert not agent.answers()

    play(scenario)


def test_an_agent_that_went_on_with_another_answer(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent)
        await rig.phase("Approval", name, "Pending")

        async def other(number):
            await asyncio.sleep(100_000)

        agent.answered = other
        agent.job.frozen = True  # takes nothing in
        decide(rig, name, "deny")
        await rig.phase("Approval", name, "Denied")
        agent.resolve(1, "approve")
        status = await settled(rig, name)
        assert status["expired"] and not status["delivered"]
        told = rig.condition("Approval", name, "Delivered")
        assert (told["status"], told["reason"]) == ("False", "AnsweredOtherwise")
        assert "'approve'" in told["message"]

    play(scenario)


def test_waiting_for_a_person_is_neither_a_stall_nor_the_turns_time(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        limits = {"timeoutSeconds": 100, "stallTimeoutSeconds": 20}
        name = await asking(rig, agent, task=limits)
        await rig.pass_time(500)
        assert rig.task("p")["phase"] == "Running"
        await rig.crash()  # how long it has waited is in the Approval
        rig.start()
        await rig.pass_time(5)
        assert rig.task("p")["phase"] == "Running"
        decide(rig, name, "approve")
        await settled(rig, name)
        begin = rig.clock.now()
        await rig.until(lambda: rig.task("p")["attempts"][0].get("interrupt"), "the stall")
        assert rig.task("p")["attempts"][0]["interrupt"]["reason"] == "Stalled"
        assert 15 < rig.clock.now() - begin < 25

    play(scenario)


def test_the_turns_time_goes_on_after_the_answer(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        name = await asking(rig, agent, task={"timeoutSeconds": 50})
        await rig.pass_time(200)
        decide(rig, name, "approve")
        await settled(rig, name)
        begin = rig.clock.now()
        await rig.until(lambda: rig.task("p")["attempts"][0].get("interrupt"), "the end", 100)
        assert rig.task("p")["attempts"][0]["interrupt"]["reason"] == "Timeout"
        assert 40 < rig.clock.now() - begin < 55

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


def test_a_turn_may_ask_often(play):
    async def scenario(rig):
        rules = [{"match": {"command": "^ls "}, "decision": "approve"}]
        questions = [{"command": f"ls {n}"} for n in range(150)]
        await asking(rig, Agent(rig, *questions), approvals={"rules": rules})
        await rig.phase("Task", "p", "Succeeded", seconds=600)
        statuses = [obj["status"] for obj in rig.store.list("Approval")]
        assert len(statuses) == 150 and all(s["delivered"] for s in statuses)
        assert not rig.ctx.world.approvals

    play(scenario)


def test_a_flood_of_questions_does_not_fill_the_memory(play):
    async def scenario(rig):
        agent = Agent(rig, ends=False)
        await asking(rig, agent)
        for number in range(2, 400):
            agent.ask(number, {"command": "x", "diff": "d" * 1000})
        await rig.pass_time(5)
        assert len(rig.store.list("Approval")) == 100
        agent.resolve(1, "deny")
        agent.ask(1000, {"command": "later"})
        await rig.until(
            lambda: rig.store.get(Key("Approval", "default", agent.name(1000))), "room again"
        )

    play(scenario)
