"""Whole runs in virtual time: from manifests to the end, and then silence."""

from __future__ import annotations

from controller.store.base import StoreUnavailable
from tests.lab import project, prompt, swarm, work


def test_a_project_completes_and_then_nothing_is_written(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Project", "demo", "Completed")
        await rig.pass_time(5)
        writes = len(rig.store.writes)
        await rig.pass_time(3600)
        assert rig.store.writes[writes:] == []

    rig = play(scenario)
    assert rig.project()["progress"] == "2/2"


def test_a_prompt_is_answered(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")

    assert play(scenario).task("p")["answer"] == "done"


def test_remotes_that_hang_keep_nobody_else_waiting(play):
    async def scenario(rig):
        rig.remote.look_seconds = 3600
        for number in range(40):
            rig.apply(project(f"p{number}", tasks=[work("a")]))
        await rig.pass_time(5)
        rig.apply(swarm(replicas=1), prompt("p"))
        await rig.phase("Task", "p", "Succeeded", seconds=3)

    play(scenario)


def test_a_change_while_a_worker_is_promised_leaks_no_promise(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=2))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers")
        for number in range(30):
            name = f"p{number}"
            rig.apply(prompt(name))
            await rig.pass_time(0.0002 * number)
            rig.patch("Task", name, priority=number)
            await rig.phase("Task", name, "Succeeded")
            await rig.pass_time(0.1)
            assert not rig.ctx.world._promised

    play(scenario)


def test_a_full_disk_is_no_reason_to_spin(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        update, tries = rig.store.update_status, []

        async def full(obj):
            tries.append(obj)
            raise StoreUnavailable("the disk is full")

        rig.store.update_status = full
        rig.apply(prompt("p"))
        await rig.pass_time(60)
        assert len(tries) < 150
        rig.store.update_status = update
        await rig.phase("Task", "p", "Succeeded", seconds=60)

    play(scenario)


def test_a_finished_task_whose_input_changed_unseen_is_done_again(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Project", "demo", "Completed")
        await rig.crash()
        # As if the controller had been killed between a's second success and b's look at it.
        head = rig.remote.push({"attempt_ref": "refs/codeswarm/x/1", "branch": "codeswarm/demo/a"})
        obj = rig.get("Task", "demo.a")
        obj["status"].update(headCommit=head, headRef="refs/codeswarm/x/1")
        rig.store.put_status(obj)
        rig.start()
        await rig.until(lambda: len(rig.task("demo.b")["attempts"]) == 2, "b to be done again")
        await rig.phase("Project", "demo", "Completed")

    play(scenario)
