"""A controller on a cluster whose requests fail at random, whose answers get lost or come late."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from controller.store.base import Conflict, Key, StoreUnavailable
from tests.lab import project, prompt, swarm, work
from tests.reconcile.cluster import ClusterRig
from tests.reconcile.given import planned, plans
from tests.reconcile.loop import run
from tests.reconcile.test_crashes import Watch, trouble

FAILING = 0.15


@pytest.fixture
def cluster(tmp_path):
    """Run a scenario of some seed on a cluster; no pass may have ended in an error."""

    def played(scenario, seed, failing=FAILING):
        rig = ClusterRig(tmp_path, random.Random(f"api {seed}"), failing)

        async def main():
            rig.start()
            try:
                await scenario(rig, random.Random(seed))
            finally:
                await rig.crash()

        run(main())
        assert not rig.errors, rig.errors

    return played


async def check(rig):
    """Every turn once, every token once."""
    turns = list(rig.provider.turns)
    assert len(turns) == len(set(turns))
    spent = {}
    for obj in rig.store.list("Task"):
        used = (obj["status"].get("usage") or {}).get("totalTokens", 0)
        spent[obj["metadata"]["name"]] = used
        for attempt in obj["status"]["attempts"]:
            total = sum(row["totalTokens"] for row in attempt.get("usage") or ())
            if attempt.get("class") == "Infrastructure":
                assert total in (0, 10)  # a worker may die before it has used anything
            else:
                assert total == 10 * (attempt["injectionId"] in turns), obj
    return spent


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("killed", [False, True])
def test_a_project(cluster, seed, killed):
    async def scenario(rig, chance):
        Watch(rig)
        tasks = [
            work(f"t{n}", depends_on=[f"t{d}" for d in range(n) if chance.random() < 0.2])
            for n in range(10)
        ]
        rig.apply(swarm(replicas=3), project(tasks=tasks, maxParallel=2))
        if killed:
            await trouble(rig, chance, lambda: rig.project().get("phase") == "Completed")
        await rig.phase("Project", "demo", "Completed", seconds=600)
        await rig.pass_time(60)
        assert rig.project()["progress"] == "10/10"
        spent = await check(rig)
        assert rig.project()["usage"]["totalTokens"] == sum(spent.values())
        assert rig.project()["phase"] == "Completed"
        assert "NameTaken" not in rig.said, "what a lost answer has made is our own"
        assert len([j for j in rig.provider.live() if not j.draining]) == 3
        if not killed:
            for obj in rig.store.list("Task"):
                assert [a["state"] for a in obj["status"]["attempts"]] == ["Succeeded"]

    cluster(scenario, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_planned_project(cluster, seed):
    async def scenario(rig, chance):
        Watch(rig)
        rig.provider.script = plans()
        rig.apply(swarm("planners", 1), swarm(replicas=2), planned())
        await rig.phase("Project", "demo", "Completed", seconds=600)
        assert "PlanKept" not in rig.said, "it is the same plan"
        await check(rig)

    cluster(scenario, seed)


@pytest.mark.parametrize("seed", range(4))
def test_prompts_to_several_workers(cluster, seed):
    async def scenario(rig, chance):
        Watch(rig)
        rig.apply(swarm(replicas=3))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 3, "workers", 200)
        for number in range(4):
            rig.apply(prompt(f"g{number}", target={"swarm": "builders", "workers": "all"}))
            await rig.pass_time(chance.expovariate(2))
        for number in range(4):
            await rig.phase("Task", f"g{number}", "Succeeded", seconds=400)
            assert rig.task(f"g{number}")["progress"] == "3/3"
        assert len(rig.store.list("Task")) == 16
        assert len(rig.provider.turns) == len(set(rig.provider.turns)) == 12
        assert "NameTaken" not in rig.said
        await rig.pass_time(60)
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes

    cluster(scenario, seed)


@pytest.mark.parametrize("seed", range(8))
def test_usage_of_tasks_that_are_deleted(cluster, seed):
    """What they used is in their swarm's sum, once, whenever they went."""

    async def scenario(rig, chance):
        Watch(rig)

        def guarded(name):
            return "codeswarm.dev/usage" in (
                rig.get("Task", name)["metadata"].get("finalizers") or ()
            )

        rig.apply(swarm(replicas=3), *(prompt(f"p{n}") for n in range(12)))
        await rig.until(lambda: len(rig.provider.turns) >= 3, "turns")
        names = [f"p{n}" for n in range(12)]
        chance.shuffle(names)
        for name in names:
            await rig.pass_time(chance.expovariate(3))
            if chance.random() < 0.2:
                await rig.crash()
                rig.start()
            if chance.random() < 0.3:
                await rig.phase("Task", name, "Succeeded", seconds=300)
            await rig.until(lambda n=name: guarded(n), "a finalizer", 300)
            rig.delete("Task", name)
        await rig.until(lambda: not rig.store.list("Task"), "the tasks to go", 600)
        used = 10 * len(set(rig.provider.turns))

        def summed():
            rig.store.change(("Swarm", "default", "builders"), touch)
            return (rig.swarm().get("usage") or {}).get("totalTokens", 0) == used

        def touch(obj):
            obj["metadata"].setdefault("annotations", {})["touched"] = str(rig.clock.now())

        await rig.until(summed, f"{used} tokens, not {rig.swarm().get('usage')}", 100)
        await rig.pass_time(120)
        assert rig.swarm()["usage"]["totalTokens"] == used

    cluster(scenario, seed)


@pytest.mark.parametrize("seed", range(6))
def test_everything_deleted_in_the_middle(cluster, seed):
    async def scenario(rig, chance):
        Watch(rig)
        tasks = [work(f"t{n}") for n in range(6)]
        rig.apply(swarm(replicas=2), project(tasks=tasks), prompt("p"))
        await trouble(rig, chance, lambda: chance.random() < 0.1)
        things = [("Project", "demo"), ("Swarm", "builders"), ("Task", "p")]
        chance.shuffle(things)
        for kind, name in things:
            rig.delete(kind, name)
            await trouble(rig, chance, lambda: chance.random() < 0.3)
        await rig.until(
            lambda: not (rig.store.list("Swarm") + rig.store.list("Project")), "the end", 600
        )
        await rig.until(lambda: not rig.store.list("Task"), "the end of all tasks", 600)
        await rig.pass_time(60)
        assert not rig.provider.jobs
        assert not rig.provider.followed
        assert not rig.ctx.world.open_jobs

    cluster(scenario, seed)


def test_an_answer_that_comes_after_newer_news_is_no_news(cluster):
    async def scenario(rig, chance):
        rig.apply(swarm(replicas=1))
        await rig.phase("Swarm", "builders", "Running")
        before = rig.get("Swarm", "builders")
        rig.patch("Swarm", "builders", replicas=2)
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "another worker")
        await rig.pass_time(1)
        key = Key("Swarm", "default", "builders")
        version = rig.ctx.world.version(key)
        rig.manager.observe(before)
        assert rig.ctx.world.version(key) == version

    cluster(scenario, 0, failing=0)


def test_a_turn_that_cannot_be_interrupted_any_more(cluster):
    """Its task is gone, and so is the lease: that is no error."""

    async def scenario(rig, chance):
        rig.provider.turn_seconds = 5
        rig.apply(swarm(replicas=1), prompt("p"))
        await rig.until(lambda: rig.provider.turns, "the turn")
        failed = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failed.append(what))

        async def lost(*_, **__):
            raise StoreUnavailable("the lease is not ours (any more)")

        rig.provider.deliver = lost
        rig.store.change(("Task", "default", "p"), lambda o: o["metadata"].update(finalizers=[]))
        rig.delete("Task", "p")
        await rig.until(lambda: not rig.ctx.world.tasks, "the task to go")
        await rig.pass_time(1)
        gc.collect()
        assert not failed

    cluster(scenario, 0, failing=0)


def test_refs_of_tasks_that_go_before_their_project(cluster):
    """`kubectl delete --cascade=foreground`: the garbage collector takes the tasks first."""

    async def scenario(rig, chance):
        rig.apply(swarm(replicas=1), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Task", "demo.a", "Succeeded")
        rig.provider.turn_seconds, rig.provider.stubborn = 3, True
        await rig.until(lambda: len(rig.provider.turns) == 2, "b")
        uid = rig.get("Task", "demo.a")["metadata"]["uid"]
        assert any(uid in ref for ref in rig.remote.refs)
        rig.delete("Project", "demo")
        await rig.pass_time(1)
        rig.store.change(
            ("Task", "default", "demo.a"), lambda o: o["metadata"].update(finalizers=[])
        )
        rig.delete("Task", "demo.a")
        await rig.until(lambda: rig.get("Project", "demo") is None, "the end", 100)
        assert not any(uid in ref for ref in rig.remote.refs)

    cluster(scenario, 0, failing=0)


def test_a_conflict_that_does_not_go_is_not_met_all_the_time(cluster):
    async def scenario(rig, chance):
        rig.apply(swarm(replicas=1))
        await rig.phase("Swarm", "builders", "Running")

        def refuse(obj):
            raise Conflict("a quota is being changed")

        known, rig.store.put_status = rig.store.put_status, refuse
        before = rig.passes[("Swarm", "default", "builders")]
        rig.patch("Swarm", "builders", replicas=2)
        await rig.pass_time(60)
        assert rig.passes[("Swarm", "default", "builders")] - before < 40
        rig.store.put_status = known
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "another worker", 20)

    cluster(scenario, 0, failing=0)
