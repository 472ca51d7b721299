"""Projects: plans, graphs, remotes, durability and integration, through changes and outages."""

from __future__ import annotations

import json

from controller.repository.problems import RepositoryProblem, RepositoryReason
from providers.base import ProviderUnreachable
from tests.lab import API, project, swarm, work

UNREADABLE = RepositoryProblem(RepositoryReason.UNREADABLE, "no route to host")
PLAN = {"tasks": [{"task_id": "T1", "title": "t", "prompt": "Do it."}]}


def planned(**spec):
    return project(planner={"swarm": "planners", "specification": "Something.", **spec})


def answer(plan):
    return "TASK_GRAPH_JSON\n" + json.dumps(plan)


def plans(plan=PLAN):
    def script(job, record):
        return {"answer": answer(plan)} if record["task"]["kind"] == "plan" else None

    return script


def applied(name, **spec):
    """A Task object of a project, as a user applies it."""
    return {"apiVersion": API, "kind": "Task", "metadata": {"name": name},
            "spec": {"project": "demo", "prompt": "Do it.", **spec}}  # fmt: skip


def key(kind, name):
    return (kind, "default", name)


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


def test_work_that_is_pushed_during_a_slow_look_is_not_taken_for_lost(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work(f"t{n}") for n in range(20)], maxParallel=1))
        rig.provider.turn_seconds = 3
        await rig.until(lambda: rig.project().get("repository"), "the first look")
        rig.remote.look_seconds = 8
        await rig.phase("Project", "demo", "Completed", seconds=300)
        for number in range(20):
            assert len(rig.task(f"demo.t{number}")["attempts"]) == 1

    play(scenario)


def test_a_head_that_only_a_moved_branch_hid_is_done_again(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Task", "demo.a", "Succeeded")
        rig.patch("Project", "demo", suspend=True)
        await rig.phase("Task", "demo.b", "Succeeded")
        await rig.pass_time(60)
        head = rig.task("demo.b")["headCommit"]
        rig.remote.refs = {r: c for r, c in rig.remote.refs.items() if c != head}
        rig.remote.refs["refs/heads/codeswarm/demo/b"] = "f" * 40
        rig.patch("Project", "demo", suspend=False)
        await rig.until(lambda: len(rig.task("demo.b")["attempts"]) > 1, "b again", 200)

    play(scenario)


def test_a_completed_project_outlives_an_outage_of_its_remote(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        finished = rig.project()["finishedAt"]
        rig.remote.problem = UNREADABLE
        await rig.pass_time(1000)
        status = rig.project()
        assert (status["phase"], status["finishedAt"]) == ("Completed", finished)
        assert rig.condition("Project", "demo", "Complete")["status"] == "True"
        assert rig.condition("Project", "demo", "Accepted")["status"] == "Unknown"
        assert rig.condition("Project", "demo", "UpToDate")["status"] == "Unknown"
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes

    play(scenario)


def test_an_outage_in_the_middle_changes_no_phase_but_starts_nothing(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 40
        rig.apply(swarm(replicas=1), project(tasks=[work("a"), work("b", depends_on=["a"])]))
        await rig.phase("Task", "demo.a", "Running")
        rig.remote.problem = UNREADABLE
        await rig.pass_time(35)
        assert rig.project()["phase"] == "Running"
        rig.remote.problem = None
        await rig.phase("Project", "demo", "Completed", seconds=300)

    play(scenario)


def test_what_is_cancelled_ends_even_if_the_remote_cannot_be_read(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 5
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Task", "demo.a", "Running")
        rig.remote.problem = UNREADABLE
        await rig.pass_time(30)
        assert rig.task("demo.a")["phase"] == "Running"
        rig.patch("Task", "demo.a", cancel=True)
        await rig.phase("Task", "demo.a", "Cancelled")

    play(scenario)


def test_a_project_is_deleted_while_its_remote_cannot_be_read(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 5
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Task", "demo.a", "Running")
        rig.remote.problem = UNREADABLE
        await rig.pass_time(10)
        rig.delete("Project", "demo")
        await rig.until(lambda: rig.get("Task", "demo.a") is None, "the end", 200)
        assert rig.get("Project", "demo") is None

    play(scenario)


def test_the_git_store_on_the_side_of_the_workers_goes_with_its_project(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        store = f"discard {rig.get('Project', 'demo')['metadata']['uid']}.git"
        assert store not in rig.provider.calls
        rig.provider.discard_error = ProviderUnreachable("WorkerHostUnreachable", "it is away")
        rig.delete("Project", "demo")
        await rig.pass_time(20)
        assert rig.get("Project", "demo") is not None
        rig.provider.discard_error = None
        await rig.until(lambda: rig.get("Project", "demo") is None, "the end")
        assert rig.provider.calls.count(store) > 1
        assert not rig.reasons()["StoreKept"]

    play(scenario)


def test_a_git_store_that_cannot_be_reached_does_not_keep_its_project(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        rig.provider.discard_error = ProviderUnreachable("WorkerHostUnreachable", "it is away")
        rig.delete("Project", "demo")
        await rig.until(lambda: rig.get("Project", "demo") is None, "the end", 200)
        assert rig.reasons()["StoreKept"] == 1

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


def test_a_recreated_project_looks_at_its_own_remote(play):
    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        rig.delete("Project", "demo")
        await rig.until(lambda: rig.get("Project", "demo") is None, "the end")
        again = project(tasks=[work("b")])
        again["spec"]["repository"]["url"] = "./other.git"
        rig.apply(again)
        await rig.phase("Project", "demo", "Completed")
        assert rig.project()["repository"]["url"].endswith("other.git")

    play(scenario)


def test_a_branch_of_a_former_project_of_the_name_is_not_overwritten(play):
    async def scenario(rig):
        rig.remote.refs["refs/heads/codeswarm/demo/a"] = "d" * 40
        push = rig.remote.push

        def refused(repository):
            branch = f"refs/heads/{repository['branch']}"
            if rig.remote.refs.get(branch, "") != repository["expected"]:
                return None
            return push(repository)

        async def work_with_lease(job, record):
            if refused(record["repository"]) is None:
                error = {"class": "branch_conflict", "message": "stale info"}
                job.finish(record["injection_id"],
                           {"status": "failed", "answer": "", "error": error})  # fmt: skip

        rig.provider.work = work_with_lease
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.phase("Task", "demo.a", "Failed")
        assert rig.task("demo.a")["reason"] == "BranchNotOurs"
        assert rig.remote.refs["refs/heads/codeswarm/demo/a"] == "d" * 40
        await rig.phase("Project", "demo", "Attention")

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


def test_more_heads_than_one_integration_takes(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 0.01
        rig.apply(swarm(replicas=20), project())
        for number in range(1203):
            rig.apply(applied(f"demo.t{number}"))
        await rig.phase("Project", "demo", "Completed", seconds=2000)
        status = rig.project()["integration"]
        assert (status["merged"], status["total"]) == (1203, 1203)
        assert len(rig.task("demo.integration")["attempts"]) == 2
        spec = rig.get("Task", "demo.integration")["spec"]
        assert len(spec["integration"]["heads"]) == 203
        writes = len(rig.store.writes)
        await rig.crash()
        rig.start()
        await rig.pass_time(400)
        assert rig.project()["phase"] == "Completed"
        assert len(rig.store.writes) - writes <= 2

    play(scenario)


def test_an_integration_starts_again_when_a_head_changes_while_it_runs(play):
    async def scenario(rig):
        def slow(job, record):
            return None

        rig.provider.script = slow
        rig.apply(swarm(), project(tasks=[work("a"), work("b")]))
        await rig.until(lambda: rig.get("Task", "demo.integration"), "the integration")
        rig.apply(project(tasks=[work("a"), work("b", 'say: "more"')]))
        await rig.phase("Project", "demo", "Completed")
        heads = rig.get("Task", "demo.integration")["spec"]["integration"]["heads"]
        assert {h["task"]: h["commit"] for h in heads} == {
            name: rig.task(f"demo.{name}")["headCommit"] for name in "ab"
        }

    play(scenario)


def test_a_blocked_integration_is_for_a_person_to_decide(play):
    async def scenario(rig):
        def blocked(job, record):
            if record["task"]["kind"] != "integration":
                return None
            return {
                "answer": "TASK_RESULT\n"
                + json.dumps(
                    {"task_id": "integration", "status": "blocked", "notes": "a key is missing"}
                )
            }

        rig.provider.script = blocked
        obj = project(tasks=[work("a")])
        del obj["spec"]["integration"]
        rig.apply(swarm(), obj)
        await rig.phase("Project", "demo", "Attention")
        assert rig.condition("Project", "demo", "NeedsAttention")["reason"] == "Blocked"
        assert rig.condition("Project", "demo", "Stalled")["status"] == "False"

    play(scenario)


def test_merges_are_told_the_same_after_a_restart(play):
    async def scenario(rig):
        def merge(job, record):
            for head in (record.get("integration") or {}).get("merges", ()):
                job.emit(
                    "command_completed",
                    {
                        "source": "merge",
                        "task": head["task"],
                        "commit": head["commit"],
                        "state": "already",
                    },
                    record["injection_id"],
                )

        rig.provider.script = merge
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        assert [m["state"] for m in rig.project()["integration"]["merges"]] == ["already"]
        await rig.crash()
        rig.start()
        await rig.pass_time(60)
        assert [m["state"] for m in rig.project()["integration"]["merges"]] == ["already"]

    play(scenario)


def test_what_a_branch_is_at_is_seen_before_it_is_replaced(play):
    """An attempt right after a restart expects its branch where the former attempt left it."""

    async def scenario(rig):
        rig.apply(swarm(), project(tasks=[work("a"), work("b", dependsOn=["a"])]))
        await rig.phase("Project", "demo", "Completed")
        first = rig.task("demo.a")["headCommit"]
        await rig.crash()
        rig.remote.look_seconds = 5.0
        rig.apply(project(tasks=[work("a", prompt="another"), work("b", dependsOn=["a"])]))
        rig.start()
        await rig.until(lambda: len(rig.task("demo.a")["attempts"]) == 2, "the second attempt")
        assert rig.task("demo.a")["attempts"][1]["expected"] == first
        await rig.phase("Project", "demo", "Completed")
        for name in ("demo.a", "demo.b"):
            assert not [a for a in rig.task(name)["attempts"] if a.get("class") == "Infrastructure"]

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


def test_all_conditions_are_there_from_the_first_visit(play):
    async def scenario(rig):
        rig.remote.problem = UNREADABLE
        rig.apply(project(tasks=[work("a")]))
        await rig.until(lambda: rig.project().get("conditions"), "conditions")
        assert [c["type"] for c in rig.project()["conditions"]] == [
            "Accepted", "Planned", "Integrated", "UpToDate", "WithinBudget", "NeedsAttention",
            "Complete", "Failed", "Stalled"]  # fmt: skip
        assert all(c["reason"] for c in rig.project()["conditions"])

    play(scenario)


def test_nothing_starts_before_the_base_is_pinned(play):
    async def scenario(rig):
        rig.remote.problem = RepositoryProblem(RepositoryReason.NOT_FOUND, "not there")
        rig.apply(swarm(), project(tasks=[work("a"), work("b")]))
        await rig.phase("Task", "demo.b", "Waiting")
        rig.remote.problem = None
        await rig.phase("Project", "demo", "Completed")
        records = [
            r for job in rig.provider.jobs.values() for r in job.inbox if r["type"] == "user"
        ]
        assert all(r["repository"]["base_commit"] and r["repository"]["url"] for r in records)

    play(scenario)
