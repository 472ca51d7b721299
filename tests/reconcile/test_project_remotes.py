"""A project's repository: outages, branches that others move, what is pinned, stores."""

from __future__ import annotations

from controller.repository.problems import RepositoryProblem, RepositoryReason
from providers.base import ProviderUnreachable
from tests.lab import project, swarm, work
from tests.reconcile.given import UNREADABLE


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
