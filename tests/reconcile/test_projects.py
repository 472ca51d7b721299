"""Projects: graphs, names, usage and budgets, through changes and restarts."""

from __future__ import annotations

from tests.lab import project, swarm, work
from tests.reconcile.given import applied


def test_a_task_that_never_began_can_be_taken_out_and_put_back(play):
    async def scenario(rig):
        rig.apply(project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.until(lambda: rig.task("demo.b").get("phase") == "Waiting", "b to wait")
        rig.apply(project(tasks=[work("a")]))
        await rig.phase("Task", "demo.b", "Cancelled")
        rig.apply(project(tasks=[work("a"), work("b", depends_on=["a"])]))
        rig.apply(swarm())
        await rig.phase("Project", "demo", "Completed")
        assert rig.project()["progress"] == "2/2"

    play(scenario)


def test_a_person_may_cancel_a_task_and_change_her_mind(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 2
        rig.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.until(lambda: rig.get("Task", "demo.b"), "b")
        rig.patch("Task", "demo.b", cancel=True)
        await rig.phase("Task", "demo.b", "Cancelled")
        await rig.phase("Project", "demo", "Attention")
        obj = rig.get("Task", "demo.b")
        assert obj["spec"]["cancel"]
        assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
        assert rig.condition("Project", "demo", "NeedsAttention")["status"] == "True"
        assert rig.condition("Project", "demo", "Stalled")["status"] == "False"
        rig.patch("Task", "demo.b", cancel=False)
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def broken():
    return project(tasks=[work("a"), work("b", depends_on=["nowhere"])])


def test_a_broken_graph_is_told_once_and_starts_nothing(play):
    async def scenario(rig):
        rig.apply(swarm(), broken())
        await rig.until(
            lambda: (
                rig.condition("Project", "demo", "Accepted").get("reason") == "DependencyNotFound"
            ),
            "the reason",
        )
        since = rig.condition("Project", "demo", "Accepted")["lastTransitionTime"]
        await rig.pass_time(5)
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes
        assert rig.condition("Project", "demo", "Accepted")["lastTransitionTime"] == since
        assert not rig.provider.turns
        rig.apply(project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_a_name_that_is_taken_is_told_and_never_adopted(play):
    async def scenario(rig):
        rig.apply(applied("demo.a"))
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.until(
            lambda: rig.condition("Project", "demo", "Accepted").get("reason") == "NameTaken",
            "the condition",
        )
        await rig.pass_time(5)
        writes = len(rig.store.writes)
        await rig.pass_time(300)
        assert len(rig.store.writes) == writes
        assert "ownerReferences" not in rig.get("Task", "demo.a")["metadata"]
        rig.delete("Task", "demo.a")
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_applied_tasks_outlive_their_project(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 20
        rig.apply(swarm(), applied("demo.x"), project(tasks=[work("a")]))
        await rig.phase("Task", "demo.x", "Running")
        rig.delete("Project", "demo")
        await rig.until(lambda: rig.get("Project", "demo") is None, "the end")
        await rig.until(
            lambda: rig.task("demo.x").get("blocker", {}).get("reason") == "ProjectNotFound", "x"
        )
        assert not rig.get("Task", "demo.x")["spec"].get("cancel")
        rig.provider.turn_seconds = 0.05
        rig.apply(project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def using(tokens):
    def script(job, record):
        if record["task"]["kind"] == "integration":
            return
        total = {"input": tokens, "output": 0, "total": tokens}
        job.emit("usage", {"session": "s", "model": "m", "total": total}, record["injection_id"])

    return script


def test_usage_is_counted_once_while_tasks_go(play):
    async def scenario(rig):
        rig.provider.script = using(100)
        rig.apply(swarm(), project(budget={"maxTokens": 250}), applied("demo.x"), applied("demo.y"))
        await rig.phase("Project", "demo", "Completed")
        await rig.until(lambda: rig.project().get("usage", {}).get("totalTokens") == 200, "a sum")
        await rig.until(lambda: rig.swarm().get("usage", {}).get("totalTokens") == 200, "a sum")
        rig.delete("Task", "demo.x")
        seen = set()
        for _ in range(300):
            seen.add(rig.project()["usage"]["totalTokens"])
            seen.add(rig.swarm()["usage"]["totalTokens"])
            await rig.pass_time(0.01)
        assert seen == {200}

    play(scenario)


def test_a_running_task_that_is_deleted_leaves_its_usage(play):
    async def scenario(rig):
        async def slow(job, record):
            using(70)(job, record)
            await rig.pass_time(600)

        rig.provider.work = slow
        rig.apply(swarm(), project(), applied("demo.x"))
        await rig.until(lambda: rig.task("demo.x").get("usage"), "usage")
        rig.delete("Task", "demo.x")
        await rig.until(lambda: rig.get("Task", "demo.x") is None, "the end")
        await rig.pass_time(10)
        assert rig.project()["usage"]["totalTokens"] == 70
        assert rig.swarm()["usage"]["totalTokens"] == 70
        assert not any(job.running for job in rig.provider.live())

    play(scenario)


def test_a_budget_stops_the_turn_after_the_one_that_used_it_up(play):
    async def scenario(rig):
        def use(job, record):
            tokens = {"input": 100, "output": 0, "total": 100}
            job.emit("usage", {"session": record["injection_id"], "model": "m", "total": tokens},
                     record["injection_id"])  # fmt: skip

        rig.provider.script = use
        chain = [work("a"), work("b", dependsOn=["a"]), work("c", dependsOn=["b"])]
        rig.apply(swarm(), project(tasks=chain, budget={"maxTokens": 100}))
        await rig.phase("Task", "demo.a", "Succeeded")
        await rig.pass_time(20)
        assert not rig.task("demo.b").get("attempts")
        assert rig.task("demo.b")["blocker"]["reason"] == "BudgetExceeded"
        rig.patch("Project", "demo", budget={"maxTokens": 1000})
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_the_order_of_the_graph_holds_after_a_restart(play):
    async def scenario(rig):
        names = ["z", "y", "x", "w"]
        rig.apply(project(tasks=[work(n) for n in names]))
        await rig.until(lambda: rig.task("demo.w").get("phase") == "Waiting", "w to wait")
        await rig.crash()
        rig.apply(swarm(replicas=1))
        rig.start()
        await rig.phase("Project", "demo", "Completed")
        begun = {n: rig.task(f"demo.{n}")["attempts"][0]["assignedAt"] for n in names}
        assert sorted(names, key=begun.__getitem__) == names

    play(scenario)
