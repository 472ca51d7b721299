"""A planner's plan: made, kept, lost, and taken up by workers."""

from __future__ import annotations

from tests.lab import swarm
from tests.reconcile.given import planned, plans


def test_the_planner_swarm_plans_and_the_workers_work(play):
    async def scenario(rig):
        rig.provider.script = plans()
        rig.apply(swarm("planners", 1), swarm(replicas=1), planned())
        await rig.phase("Project", "demo", "Completed")
        assert rig.task("demo.plan")["attempts"][0]["swarm"] == "planners"
        assert rig.task("demo.t1")["attempts"][0]["swarm"] == "builders"

    play(scenario)


def test_a_title_plans_nothing_anew_and_a_specification_does(play):
    async def scenario(rig):
        rig.provider.script = plans()
        rig.apply(swarm("planners", 1), swarm(replicas=1), planned())
        await rig.phase("Project", "demo", "Completed")
        rig.patch("Project", "demo", title="Another title")
        await rig.pass_time(40)
        assert len(rig.task("demo.plan")["attempts"]) == 1
        assert len(rig.task("demo.integration")["attempts"]) == 1
        rig.provider.script = plans({"tasks": [{"task_id": "T2", "title": "t", "prompt": "Go."}]})
        rig.patch("Project", "demo", planner={"swarm": "planners", "specification": "Else."})
        await rig.phase("Task", "demo.t2", "Succeeded")
        await rig.phase("Project", "demo", "Completed")
        assert rig.get("Task", "demo.t1")["spec"]["cancel"]

    play(scenario)


def test_a_plan_that_was_deleted_is_put_back_or_made_again(play):
    async def scenario(rig):
        rig.provider.script = plans()
        rig.apply(swarm("planners", 1), swarm(replicas=1), planned())
        await rig.phase("Project", "demo", "Completed")
        name = rig.project()["plan"]["configMap"]
        rig.delete("ConfigMap", name)
        await rig.until(lambda: rig.get("ConfigMap", name), "the plan")
        await rig.crash()
        rig.delete("ConfigMap", name)
        rig.start()
        await rig.until(
            lambda: rig.condition("Project", "demo", "Planned")["status"] == "False", "the lack"
        )
        rig.delete("Task", "demo.plan")
        await rig.until(
            lambda: rig.condition("Project", "demo", "Planned")["status"] == "True", "a plan"
        )

    play(scenario)


def test_a_plan_of_another_plan_task_is_not_taken(play):
    async def scenario(rig):
        rig.provider.script = plans()
        rig.apply(swarm("planners", 1), swarm(replicas=1), planned())
        await rig.phase("Project", "demo", "Completed")
        rig.provider.script = plans({"tasks": [{"task_id": "T2", "title": "t", "prompt": "Go."}]})
        rig.delete("Task", "demo.plan")
        rig.patch("Project", "demo", planner={"swarm": "planners", "specification": "Else."})
        await rig.phase("Task", "demo.t2", "Succeeded")

    play(scenario)
