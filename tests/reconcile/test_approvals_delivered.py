"""Answers on their way to the worker: races, restarts, ends; and the time they take."""

from __future__ import annotations

import asyncio

import pytest

from controller.store.base import Conflict, Key
from providers.base import ProviderError
from tests.reconcile.asking import Agent, asking, decide, settled


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
