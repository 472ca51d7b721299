"""Prompts to several workers: fixed once, followed to the last child."""

from __future__ import annotations

from tests.lab import prompt, swarm
from tests.reconcile.given import ready
from tests.reconcile.test_tasks import failing, retry

ALL = {"swarm": "builders", "workers": "all"}


def test_the_targets_are_fixed_at_first_sight(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 5
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL))
        await rig.phase("Task", "p.0", "Running")
        rig.patch("Swarm", "builders", replicas=4)
        await rig.phase("Task", "p", "Succeeded")
        assert rig.task("p")["targets"] == [0, 1]

    play(scenario)


def test_the_group_goes_after_its_time_and_its_children_with_it(play):
    async def scenario(rig):
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL, ttlSecondsAfterFinished=30))
        await rig.phase("Task", "p", "Succeeded")
        await rig.until(lambda: not rig.store.list("Task"), "the end", 60)

    play(scenario)


def test_a_group_can_be_cancelled_before_there_is_a_worker(play):
    async def scenario(rig):
        rig.apply(prompt("p", target=ALL))
        await rig.phase("Task", "p", "Waiting")
        rig.patch("Task", "p", cancel=True)
        await rig.phase("Task", "p", "Cancelled", seconds=5)
        await ready(rig, 2)
        await rig.pass_time(10)
        assert not rig.provider.turns

    play(scenario)


def test_a_cancelled_group_takes_its_children_with_it(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 600
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL))
        await rig.phase("Task", "p.1", "Running")
        rig.patch("Task", "p", cancel=True)
        await rig.phase("Task", "p", "Cancelled")
        assert rig.task("p.0")["phase"] == rig.task("p.1")["phase"] == "Cancelled"

    play(scenario)


def test_a_child_that_is_retried_makes_its_group_right(play):
    async def scenario(rig):
        rig.provider.script = failing(1)
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL, retry={"limit": 0}))
        await rig.phase("Task", "p", "Failed")
        child = next(n for n in ("p.0", "p.1") if rig.task(n)["phase"] == "Failed")
        retry(rig, child, "again")
        await rig.phase("Task", "p", "Succeeded")
        assert rig.task("p")["progress"] == "2/2"

    play(scenario)


def test_a_retry_of_the_group_is_one_of_its_failed_children(play):
    async def scenario(rig):
        rig.provider.script = failing(1)
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL, retry={"limit": 0}))
        await rig.phase("Task", "p", "Failed")
        retry(rig, "p", "again")
        await rig.phase("Task", "p", "Succeeded")
        assert sorted(len(rig.task(n)["attempts"]) for n in ("p.0", "p.1")) == [1, 2]
        assert rig.task("p")["observedRetry"] == "again"

    play(scenario)


def test_a_child_s_name_that_is_taken_is_told(play):
    async def scenario(rig):
        rig.apply(prompt("p.1", "Mine.", target={"swarm": "nobody", "workers": "idle"}))
        await ready(rig, 2)
        rig.apply(prompt("p", target=ALL))
        await rig.until(
            lambda: rig.condition("Task", "p", "Accepted").get("reason") == "NameTaken", "told"
        )
        await rig.phase("Task", "p.0", "Succeeded")
        assert rig.get("Task", "p.1")["spec"]["prompt"] == "Mine."
        await rig.pass_time(5)
        writes = len(rig.store.writes)
        await rig.pass_time(300)
        assert len(rig.store.writes) == writes
        rig.delete("Task", "p.1")
        await rig.phase("Task", "p", "Succeeded")

    play(scenario)


def test_a_stranger_with_the_label_is_no_child(play):
    async def scenario(rig):
        await ready(rig, 2)
        stranger = prompt("other", target={"swarm": "nobody", "workers": "idle"})
        stranger["metadata"]["labels"] = {"codeswarm.dev/parent": "p"}
        rig.apply(stranger, prompt("p", target=ALL))
        await rig.phase("Task", "p", "Succeeded")
        rig.patch("Task", "p", suspend=True)
        await rig.pass_time(5)
        assert not rig.get("Task", "other")["spec"]["suspend"]

    play(scenario)


def test_a_prompt_to_a_worker_that_is_replaced_goes_to_its_successor(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 5
        await ready(rig, 2)
        rig.apply(prompt("p", target={"swarm": "builders", "workers": 1}))
        await rig.phase("Task", "p", "Running")
        rig.provider.kill(rig.task("p")["attempts"][0]["job"])
        await rig.phase("Task", "p", "Succeeded")
        attempts = rig.task("p")["attempts"]
        assert [a["worker"] for a in attempts] == [1, 1]
        assert attempts[0]["class"] == "Infrastructure"
        assert attempts[0]["job"] != attempts[1]["job"]

    play(scenario)


def test_a_prompt_to_a_worker_that_is_gone_for_good_says_so(play):
    async def scenario(rig):
        await ready(rig, 2)
        rig.patch("Swarm", "builders", replicas=1)
        await rig.until(lambda: rig.swarm().get("replicas") == 1, "the end of worker 1")
        rig.apply(prompt("p", target={"swarm": "builders", "workers": 1}))
        await rig.until(
            lambda: rig.task("p").get("blocker", {}).get("reason") == "WorkerNotFound", "it"
        )
        rig.patch("Swarm", "builders", replicas=2)
        await rig.phase("Task", "p", "Succeeded", seconds=5)

    play(scenario)


def test_a_worker_that_leaves_is_no_target(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 60
        await ready(rig, 2)
        rig.apply(prompt("long", target={"swarm": "builders", "workers": 1}))
        rig.apply(prompt("long0", target={"swarm": "builders", "workers": 0}))
        await rig.phase("Task", "long", "Running")
        rig.patch("Swarm", "builders", replicas=1)
        await rig.until(
            lambda: "Draining" in {w["phase"] for w in rig.swarm()["workers"]}, "a drain"
        )
        rig.apply(prompt("p", target=ALL))
        await rig.until(lambda: rig.task("p").get("targets") is not None, "targets")
        assert rig.task("p")["targets"] == [0]

    play(scenario)


def test_groups_need_a_swarm(play):
    async def scenario(rig):
        rig.apply(prompt("p", target=ALL))
        await rig.phase("Task", "p", "Waiting")
        assert rig.task("p")["blocker"]["reason"] == "SwarmNotFound"
        rig.apply(swarm(replicas=3))
        await rig.phase("Task", "p", "Succeeded", seconds=5)
        assert rig.task("p")["targets"] == [0, 1, 2]

    play(scenario)
