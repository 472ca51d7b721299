"""The controller killed at any moment, workers too: everything is done, once at a time."""

from __future__ import annotations

import random

import pytest

from tests.lab import project, prompt, swarm, work

USED = 10


class Watch:
    """Sees every turn of every worker; no task has two at once."""

    def __init__(self, rig):
        self.running = {}
        rig.provider.turn_seconds = 0.3
        work = rig.provider.work

        async def watched(job, record):
            uid, injection = record["task"]["uid"], record["injection_id"]
            others = {i for i, j in self.running.get(uid, {}).items() if j.alive and j.running == i}
            assert not others, f"{injection} runs beside {others}"
            self.running.setdefault(uid, {})[injection] = job
            total = {"input": USED, "output": 0, "total": USED}
            job.emit("usage", {"session": "s", "model": "m", "total": total}, injection)
            await work(job, record)

        rig.provider.work = watched


async def trouble(rig, chance, until):
    """Kill the controller and workers at random until a condition holds."""
    for _ in range(400):
        await rig.pass_time(chance.expovariate(6))
        if until():
            return
        if chance.random() < 0.4:
            await rig.crash()
            await rig.pass_time(chance.choice([0, 0, 0.02, 1]))
            rig.start()
        elif rig.provider.live() and chance.random() < 0.3:
            chance.choice(rig.provider.live()).end("signal 9")


@pytest.mark.parametrize("seed", range(25))
def test_a_project_survives_kills(play, seed):
    async def scenario(rig):
        chance = random.Random(seed)
        Watch(rig)
        tasks = [
            work(f"t{n}", depends_on=[f"t{d}" for d in range(n) if chance.random() < 0.2])
            for n in range(12)
        ]
        rig.apply(swarm(replicas=3), project(tasks=tasks, maxParallel=2))
        await trouble(rig, chance, lambda: rig.project().get("phase") == "Completed")
        await rig.phase("Project", "demo", "Completed", seconds=400)
        await rig.pass_time(30)
        assert rig.project()["progress"] == "12/12"
        turns = list(rig.provider.turns)
        assert len(turns) == len(set(turns))
        assert rig.epoch > 1
        spent = 0
        for obj in rig.store.list("Task"):
            status = obj["status"]
            assert status["phase"] == "Succeeded"
            assert rig.remote.refs[status["headRef"]] == status["headCommit"]
            spent += status["usage"]["totalTokens"]
        assert rig.project()["usage"]["totalTokens"] == spent
        assert len([j for j in rig.provider.live() if not j.draining]) == 3

    play(scenario)


@pytest.mark.parametrize("seed", range(15))
def test_prompts_survive_kills_and_a_changing_swarm(play, seed):
    async def scenario(rig):
        chance = random.Random(1000 + seed)
        Watch(rig)
        rig.apply(swarm(replicas=2))
        for number in range(20):
            rig.apply(prompt(f"p{number}"))
        for number in range(6):
            await trouble(rig, chance, lambda: chance.random() < 0.2)
            rig.patch("Swarm", "builders", replicas=chance.randrange(1, 4))
            if number % 2:
                rig.patch("Swarm", "builders", systemPrompt=f"Version {number}.")
        for number in range(20):
            await rig.phase("Task", f"p{number}", "Succeeded", seconds=400)
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Ready")["status"] == "True", "rest", 200
        )
        await rig.pass_time(20)
        wanted = rig.get("Swarm", "builders")["spec"]["replicas"]
        assert len(rig.provider.live()) == wanted
        assert set(rig.provider.followed) == {job.name for job in rig.provider.live()}
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes

    play(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_everything_can_be_deleted_in_the_middle(play, seed):
    async def scenario(rig):
        chance = random.Random(2000 + seed)
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
            lambda: not (rig.store.list("Swarm") + rig.store.list("Project")), "the end", 400
        )
        await rig.until(lambda: not rig.store.list("Task"), "the end of all tasks", 400)
        await rig.pass_time(5)
        assert not rig.provider.jobs
        assert not rig.provider.followed
        assert not rig.ctx.world.open_jobs

    play(scenario)
