"""Turns of tasks that never end, are interrupted, lost, or end without an answer."""

from __future__ import annotations

import asyncio

import pytest

from providers.base import ProviderError
from tests.lab import project, prompt, swarm, work
from tests.reconcile.given import applied, ready


def test_a_turn_whose_task_went_while_the_controller_was_down_is_ended(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 600
        await ready(rig)
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        await rig.crash()
        rig.delete("Task", "p")
        rig.start()
        await rig.until(lambda: not rig.provider.live()[0].running, "the turn's end")
        rig.provider.turn_seconds = 0.05
        rig.apply(prompt("q"))
        await rig.phase("Task", "q", "Succeeded")

    play(scenario)


def test_a_task_that_is_deleted_at_any_moment_leaves_nothing_behind(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), project(maxParallel=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        await rig.until(lambda: rig.project().get("repository"), "the project")
        for number in range(40):
            name = f"demo.t{number}"
            rig.apply(applied(name, ownedPaths=["src/"]))
            await rig.pass_time(number * 0.0005)
            rig.delete("Task", name)
            await rig.until(lambda: rig.get("Task", name) is None, "the end")  # noqa: B023
            await rig.pass_time(0.2)
            key = ("Project", "default", "demo")
            assert not rig.ctx.world.projects[key].running
        rig.apply(applied("demo.last", ownedPaths=["src/x"]))
        await rig.phase("Task", "demo.last", "Succeeded")

    play(scenario)


def test_a_finished_turn_is_kept_when_its_worker_s_folder_is_gone(play):
    async def scenario(rig):
        await ready(rig)
        rig.provider.turn_seconds = 2
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        update = rig.store.update_status

        async def never(obj):
            if obj["kind"] == "Task":
                await rig.pass_time(3600)
            return await update(obj)

        rig.store.update_status = never
        await rig.until(lambda: not rig.provider.live()[0].running, "the turn's end")
        await rig.pass_time(1)
        await rig.crash()
        rig.store.update_status = update
        rig.provider.live()[0].end()
        rig.provider.jobs.clear()
        rig.start()
        await rig.phase("Task", "p", "Succeeded")
        assert len(rig.task("p")["attempts"]) == 1

    play(scenario)


def test_a_worker_that_never_answers_is_replaced(play):
    async def scenario(rig):
        await ready(rig)
        job = rig.provider.live()[0]
        job.accepted.add("nothing")
        received = job.receive
        job.receive = job.inbox.append  # its loop lives, its turns do not
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Succeeded", seconds=300)
        assert rig.task("p")["attempts"][0]["class"] == "Infrastructure"
        assert received is not None

    play(scenario)


def test_an_interrupted_turn_that_does_not_end_is_ended_by_force(play):
    async def scenario(rig):
        rig.provider.turn_seconds, rig.provider.stubborn = 600, True
        await ready(rig)
        rig.apply(prompt("p", timeoutSeconds=5, retry={"limit": 0}))
        await rig.phase("Task", "p", "Failed", seconds=40)
        attempt = rig.task("p")["attempts"][0]
        assert (attempt["class"], attempt["reason"]) == ("Timeout", "Timeout")

    play(scenario)


def test_a_task_that_is_cancelled_before_it_was_delivered_never_starts(play):
    async def scenario(rig):
        await ready(rig)
        rig.provider.deliver_error = ProviderError("DeliveryFailed", "no space")
        rig.apply(prompt("p"))
        await rig.until(lambda: rig.task("p").get("attempts"), "an attempt")
        rig.patch("Task", "p", cancel=True)
        await rig.pass_time(3)
        rig.provider.deliver_error = None
        await rig.phase("Task", "p", "Cancelled", seconds=30)
        assert rig.provider.turns in ([], rig.provider.turns[:1])
        assert not rig.provider.live()[0].running

    play(scenario)


def test_a_workers_row_is_idle_soon_after_its_turn_was_settled(play):
    async def scenario(rig):
        look = rig.remote.ref_value

        async def slowly(*args):
            await asyncio.sleep(0.5)  # its worker has told long ago that it is idle
            return await look(*args)

        rig.remote.ref_value = slowly
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        await rig.until(lambda: rig.swarm()["workers"][0]["phase"] == "Idle", "it to be idle", 2.0)

    play(scenario)


@pytest.mark.parametrize("seconds", [0, 5])
def test_a_record_is_given_once(play, seconds):
    """The pass that its assignment asks for comes while it is on its way."""

    async def scenario(rig):
        given, deliver = [], rig.provider.deliver

        async def slowly(swarm, job, index, record, *, secrets=None):
            given.append(record.get("injection_id"))
            await asyncio.sleep(seconds)
            await deliver(swarm, job, index, record, secrets=secrets)

        rig.provider.deliver = slowly
        rig.apply(swarm(replicas=2), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        rig.apply(prompt("p"))
        await rig.phase("Project", "demo", "Completed")
        await rig.phase("Task", "p", "Succeeded")
        assert len(given) == len(set(given)) == 4

    play(scenario)
