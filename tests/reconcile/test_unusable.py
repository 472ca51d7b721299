"""Agents that cannot be started: who says so, how often it is tried, and what ends it."""

from __future__ import annotations

import pytest

from tests.lab import prompt, swarm

MESSAGE = "there is no `codex` on the PATH of the workers: npm install -g @openai/codex"


def launches(rig):
    return sum(call.startswith("launch ") for call in rig.provider.calls)


async def unusable(rig, reason="AgentNotInstalled"):
    rig.provider.unusable = (reason, MESSAGE)
    rig.apply(swarm(replicas=2))
    await rig.until(
        lambda: rig.condition("Swarm", "builders", "Available").get("reason") == reason, reason
    )


@pytest.mark.parametrize("reason", ["AgentNotInstalled", "AgentTooOld", "CredentialMissing"])
def test_the_swarm_says_why(play, reason):
    async def scenario(rig):
        await unusable(rig, reason)
        for type in ("Available", "Ready"):
            condition = rig.condition("Swarm", "builders", type)
            assert (condition["status"], condition["reason"]) == ("False", reason)
            assert MESSAGE in condition["message"]
        status = rig.swarm()
        assert (status["phase"], status["reason"]) == ("Failed", reason)
        assert [(w["phase"], w["reason"], w["message"]) for w in status["workers"]] == [
            ("Lost", reason, MESSAGE)
        ] * 2
        assert (status["ready"], status["replicas"]) == ("0/2", 0)
        rig.apply(prompt("p"))
        await rig.until(lambda: rig.task("p").get("reason") == "SwarmNotReady", "the prompt")
        assert MESSAGE in rig.task("p")["blocker"]["message"]

    play(scenario)


def test_it_is_tried_again_less_and_less_often_and_told_without_ticking(play):
    async def scenario(rig):
        await unusable(rig)
        await rig.pass_time(1800)
        assert 2 * 8 <= launches(rig) <= 2 * 12
        assert len(rig.provider.jobs) <= 2 + 5
        rig.provider.unusable = None
        await rig.pass_time(300)
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers")
        await rig.until(lambda: "reason" not in rig.swarm(), "no reason any more")
        assert rig.condition("Swarm", "builders", "Ready")["status"] == "True"
        assert {w["index"] for w in rig.swarm()["workers"]} == {0, 1}

    play(scenario)


def test_another_spec_is_tried_at_once(play):
    async def scenario(rig):
        await unusable(rig)
        await rig.pass_time(1000)
        rig.provider.unusable = None
        rig.patch("Swarm", "builders", agent={"runtime": "mock", "model": "other"})
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers", seconds=3)
        assert rig.swarm()["launchFailures"] == 0

    play(scenario)


def test_a_controller_that_is_started_anew_tries_at_once(play):
    async def scenario(rig):
        await unusable(rig)
        await rig.pass_time(1000)
        await rig.crash()
        rig.provider.unusable = None
        rig.start()
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers", seconds=3)

    play(scenario)


def test_a_person_may_have_it_tried_at_once(play):
    async def scenario(rig):
        await unusable(rig)
        await rig.pass_time(1000)
        rig.provider.unusable = None
        rig.store.change(
            ("Swarm", "default", "builders"),
            lambda o: o["metadata"]["annotations"].update({"codeswarm.dev/retry": "t"}),
        )
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers", seconds=3)
        assert rig.swarm()["launchFailures"] == 0

    play(scenario)


def test_some_that_can_be_started_work(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.provider.unusable = ("AgentTooOld", MESSAGE)
        rig.patch("Swarm", "builders", replicas=3)
        await rig.until(lambda: rig.swarm().get("reason") == "AgentTooOld", "the reason")
        assert rig.swarm()["phase"] == "Degraded"
        assert rig.swarm()["ready"] == "1/3"
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        rig.patch("Swarm", "builders", replicas=1)
        await rig.until(lambda: rig.swarm().get("phase") == "Running", "what is wanted")
        assert len(rig.swarm()["workers"]) == 1

    play(scenario)


def test_a_system_prompt_that_fails_says_with_what(play):
    async def scenario(rig):
        rig.provider.system_ok = False
        rig.provider.system_error = {"class": "task", "message": "no such model: gpt-0"}
        rig.apply(swarm(replicas=1, systemPrompt="Be good."))
        await rig.until(lambda: rig.swarm().get("reason") == "SystemPromptFailed", "the reason")
        assert "no such model: gpt-0" in rig.condition("Swarm", "builders", "Ready")["message"]

    play(scenario)


def test_reasons_that_no_condition_may_have_are_not_taken(play):
    async def scenario(rig):
        rig.provider.unusable = ("not a reason!", "x")
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("launchFailures", 0) >= 5, "failed launches")
        assert rig.condition("Swarm", "builders", "Available")["reason"] == "LaunchFailed"

    play(scenario)
