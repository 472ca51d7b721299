"""Swarms: launching, replacing, draining and losing workers, and being quiet about it."""

from __future__ import annotations

import asyncio

from providers.base import JobState, ProviderError, ProviderUnreachable
from tests.lab import API, project, prompt, swarm, work


def job_of(rig, index=0, name="builders"):
    rows = rig.swarm(name).get("workers") or ()
    return next((row["job"] for row in rows if row["index"] == index), "")


async def running(rig, replicas=2, **spec):
    """A swarm whose workers are all ready."""
    rig.apply(swarm(replicas=replicas, **spec))
    await rig.until(lambda: rig.swarm().get("readyReplicas") == replicas, "workers")


def launches(rig):
    return sum(call.startswith("launch ") for call in rig.provider.calls)


def test_idle_workers_cost_no_writes_and_few_passes(play):
    async def scenario(rig):
        await running(rig, 100)
        await rig.pass_time(30)
        writes, passes = len(rig.store.writes), sum(rig.passes.values())
        await rig.pass_time(600)
        assert rig.store.writes[writes:] == []
        assert sum(rig.passes.values()) - passes <= 600 / 4

    play(scenario)


def test_a_large_swarm_keeps_all_its_workers(play):
    async def scenario(rig):
        await running(rig, 150)
        await rig.pass_time(120)
        assert launches(rig) == 150
        assert len(rig.provider.live()) == 150
        await rig.crash()
        rig.start()
        await rig.pass_time(120)
        assert launches(rig) == 150
        assert len(rig.swarm()["workers"]) == 150

    play(scenario)


def test_a_failing_system_prompt_backs_off(play):
    async def scenario(rig):
        rig.provider.system_ok = False
        rig.apply(swarm(replicas=1, systemPrompt="Be good."))
        await rig.pass_time(300)
        assert launches(rig) <= 15
        assert rig.swarm()["phase"] == "Failed"
        assert rig.condition("Swarm", "builders", "Available")["reason"] == "LaunchFailed"

    play(scenario)


def test_the_system_prompt_is_counted_and_comes_first(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 0.5
        rig.apply(swarm(replicas=1, systemPrompt="Be good."), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        await rig.pass_time(10)
        assert rig.swarm()["usage"]["inputTokens"] == 10
        rig.provider.kill(job_of(rig))
        await rig.until(lambda: launches(rig) == 2, "a replacement")
        await rig.pass_time(10)
        assert rig.swarm()["usage"]["inputTokens"] == 20

    play(scenario)


def test_a_worker_that_dies_at_once_again_and_again_backs_off(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        loop = asyncio.get_running_loop()
        end = loop.time() + 300
        while loop.time() < end:
            for job in rig.provider.live():
                if job.state is JobState.RUNNING and b"idle" in job.outbox:
                    await rig.pass_time(0.5)
                    job.end("signal 9")
            await rig.pass_time(0.05)
        assert launches(rig) <= 80

    play(scenario)


def test_a_lost_worker_of_a_sound_swarm_is_replaced_at_once(play):
    async def scenario(rig):
        await running(rig, 2)
        await rig.pass_time(60)
        rig.provider.kill(job_of(rig, 1))
        await rig.until(lambda: len(rig.provider.live()) == 2, "a replacement", 0.5)
        await rig.pass_time(5)
        assert set(rig.provider.followed) == {job_of(rig, 0), job_of(rig, 1)}

    play(scenario)


def test_a_draining_worker_that_hangs_is_replaced(play):
    async def scenario(rig):
        await running(rig, 1)
        rig.provider.job(job_of(rig)).frozen = True
        rig.patch("Swarm", "builders", systemPrompt="Changed.")
        old = job_of(rig)
        await rig.until(lambda: job_of(rig) not in ("", old), "a replacement", 120)
        drains = [c for c in rig.provider.calls if c == f"deliver {old} control"]
        assert len(drains) < 12

    play(scenario)


def test_a_busy_worker_that_drains_is_not_asked_all_the_time(play):
    async def scenario(rig):
        await running(rig, 1)
        rig.provider.turn_seconds = 600
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        rig.patch("Swarm", "builders", systemPrompt="Changed.")
        await rig.pass_time(5)
        before = sum(rig.passes.values())
        await rig.pass_time(300)
        assert sum(rig.passes.values()) - before < 300
        await rig.phase("Task", "p", "Succeeded", seconds=700)
        await rig.until(lambda: launches(rig) == 2, "the rollout")

    play(scenario)


def test_a_task_that_comes_while_its_worker_is_drained_is_not_lost(play):
    async def scenario(rig):
        await running(rig, 1)
        for number in range(20):
            rig.patch("Swarm", "builders", systemPrompt=f"Version {number}.")
            await rig.pass_time(0.001 * (number % 7))
            rig.apply(prompt(f"p{number}"))
            await rig.phase("Task", f"p{number}", "Succeeded", seconds=30)
            assert len(rig.task(f"p{number}")["attempts"]) == 1
            await rig.pass_time(20)

    play(scenario)


def test_another_root_for_workspaces_leaves_nothing_in_the_old_one(play):
    async def scenario(rig):
        await running(rig, 2, provider={"local": {"workspaceRoot": "/one"}})
        rig.patch("Swarm", "builders", provider={"local": {"workspaceRoot": "/two"}})
        await rig.until(
            lambda: (
                rig.swarm().get("readyReplicas") == 2
                and rig.condition("Swarm", "builders", "RolledOut")["status"] == "True"
            ),
            "the rollout",
        )
        await rig.pass_time(20)
        roots = [j.request.swarm.parameters["workspaceRoot"] for j in rig.provider.jobs.values()]
        assert roots == ["/two", "/two"]

    play(scenario)


def classed():
    return {"apiVersion": API, "kind": "SwarmClass", "metadata": {"name": "here"},
            "spec": {"provider": {"local": {}}, "agent": {"runtime": "mock"}}}  # fmt: skip


def of_class(**spec):
    obj = swarm(replicas=1, className="here", **spec)
    del obj["spec"]["provider"], obj["spec"]["agent"]
    return obj


def test_without_its_class_a_swarm_still_minds_its_workers(play):
    async def scenario(rig):
        rig.apply(classed(), of_class())
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.provider.turn_seconds = 100
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        rig.delete("SwarmClass", "here")
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Accepted")["status"] == "False", "refusal"
        )
        await rig.crash()
        rig.start()
        await rig.phase("Task", "p", "Succeeded", seconds=200)
        rig.provider.kill(job_of(rig))
        await rig.pass_time(60)
        assert rig.swarm()["readyReplicas"] == 0
        assert launches(rig) == 1
        rig.apply(classed())
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker again", 5)

    play(scenario)


def test_a_recreated_swarm_is_another_one(play):
    async def scenario(rig):
        await running(rig, 2)
        rig.provider.turn_seconds = 5
        rig.apply(prompt("p"), prompt("q"), prompt("r"))
        await rig.phase("Task", "p", "Running")
        old = {job.name for job in rig.provider.live()}
        rig.store.change(
            ("Swarm", "default", "builders"),
            lambda o: o["metadata"]["annotations"].update({"codeswarm.dev/force": "true"}),
        )
        rig.delete("Swarm", "builders")
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "the end")
        rig.apply(swarm(replicas=2))
        for name in "pqr":
            await rig.phase("Task", name, "Succeeded")
        assert not {job.name for job in rig.provider.live()} & old
        assert not set(rig.provider.followed) & old
        assert not set(rig.ctx.turns.workers) & old

    play(scenario)


def test_a_folder_with_another_name_does_no_harm(play):
    async def scenario(rig):
        await running(rig, 1)
        uid = rig.get("Swarm", "builders")["metadata"]["uid"]
        odd = rig.provider.job(job_of(rig))
        fake = type(odd)(odd.request, rig.provider, JobState.ENDED)
        object.__setattr__(fake, "request", type("R", (), {
            "job": "evil", "swarm": odd.request.swarm, "config": {}})())  # fmt: skip
        rig.provider.jobs[uid, "evil"] = fake
        rig.provider.kill(job_of(rig))
        await rig.until(lambda: launches(rig) == 2, "a replacement", 10)

    play(scenario)


def test_why_no_worker_can_be_started_is_told_quietly(play):
    async def scenario(rig):
        rig.provider.launch_error = ProviderError("WorkspaceUnusable", "/x is read-only")
        rig.apply(swarm(replicas=1))
        await rig.until(
            lambda: (
                "read-only" in rig.condition("Swarm", "builders", "Available").get("message", "")
            ),
            "the reason",
        )
        await rig.pass_time(30)
        writes = len(rig.store.writes)
        await rig.pass_time(120)
        assert len(rig.store.writes) - writes <= 10
        rig.provider.launch_error = None
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker", 70)

    play(scenario)


def test_all_conditions_are_there_when_the_provider_is_out_of_reach(play):
    async def scenario(rig):
        rig.provider.observe_error = ProviderUnreachable("NoRoute", "no route to host")
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("conditions"), "conditions")
        status = rig.swarm()
        assert [c["type"] for c in status["conditions"]] == [
            "Accepted", "ProviderReachable", "Available", "RolledOut", "QuotaAvailable",
            "WithinBudget", "Ready"]  # fmt: skip
        assert status["observedGeneration"] == 1
        assert status["phase"] == "Pending"
        assert rig.condition("Swarm", "builders", "ProviderReachable")["status"] == "False"

    play(scenario)


def test_contact_lost_makes_unknown_and_comes_back(play):
    async def scenario(rig):
        await running(rig, 1)
        rig.provider.observe_error = ProviderUnreachable("NoRoute", "no route to host")
        await rig.pass_time(60)
        assert rig.condition("Swarm", "builders", "Ready")["status"] == "True"
        await rig.pass_time(120)
        assert rig.condition("Swarm", "builders", "Ready")["status"] == "Unknown"
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes
        rig.provider.observe_error = None
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Ready")["status"] == "True", "contact"
        )
        assert launches(rig) == 1

    play(scenario)


def test_a_raised_budget_lets_work_go_on_at_once(play):
    async def scenario(rig):
        def use(job, record):
            tokens = {"input": 100, "output": 0, "total": 100}
            job.emit("usage", {"session": "s", "model": "m", "total": tokens},
                     record["injection_id"])  # fmt: skip

        rig.provider.script = use
        await running(rig, 1, budget={"maxTokens": 100})
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "WithinBudget")["status"] == "False", "halt"
        )
        rig.apply(prompt("q"))
        await rig.pass_time(10)
        assert rig.task("q")["blocker"]["reason"] == "BudgetExceeded"
        rig.patch("Swarm", "builders", budget={"maxTokens": 1000})
        await rig.phase("Task", "q", "Succeeded", seconds=3)

    play(scenario)


def test_a_pause_of_the_whole_machine_kills_no_worker(play):
    async def scenario(rig):
        await running(rig, 2)
        await rig.pass_time(20)
        # Nothing ran for ten minutes, the workers' heartbeats neither.
        for job in rig.provider.live():
            job.frozen = True
        rig.clock.offset += 600
        await rig.pass_time(6)
        for job in rig.provider.live():
            job.frozen = False
        await rig.pass_time(60)
        assert launches(rig) == 2

    play(scenario)


def test_a_frozen_worker_is_replaced_within_its_timeout(play):
    async def scenario(rig):
        await running(rig, 1)
        rig.provider.job(job_of(rig)).frozen = True
        await rig.until(lambda: launches(rig) == 2, "a replacement", 50)

    play(scenario)


def test_a_turn_that_ends_while_its_swarm_goes_is_kept(play):
    async def scenario(rig):
        await running(rig, 1)
        rig.provider.turn_seconds = 5
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        rig.delete("Swarm", "builders")
        await rig.pass_time(0.5)
        await rig.crash()
        rig.start()
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "the end")
        await rig.phase("Task", "p", "Succeeded")
        assert len(rig.task("p")["attempts"]) == 1

    play(scenario)


def test_what_cannot_be_archived_is_not_removed(play):
    async def scenario(rig):
        async def fail(handle, destination):
            raise ProviderError("ArchiveFailed", "the disk is full")

        archive, rig.provider.archive = rig.provider.archive, fail
        await running(rig, 1, termination={"gracePeriodSeconds": 1, "archive": True})
        rig.delete("Swarm", "builders")
        await rig.pass_time(300)
        assert rig.get("Swarm", "builders") is not None
        assert rig.provider.jobs
        rig.provider.archive = archive
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "the end")

    play(scenario)


def test_a_launch_is_in_status_before_it_happens(play):
    async def scenario(rig):
        seen = []
        launch = rig.provider.launch

        async def watched(requests):
            seen.extend(
                request.job in {row["job"] for row in rig.swarm().get("workers") or ()}
                for request in requests
            )
            await launch(requests)

        rig.provider.launch = watched
        await running(rig, 3)
        assert seen == [True, True, True]

    play(scenario)


def test_prompts_to_a_swarm_that_is_not_there_cost_little(play):
    async def scenario(rig):
        for number in range(20):
            rig.apply(prompt(f"p{number}", target={"swarm": "builders", "workers": "all"}))
        await rig.pass_time(5)
        before = sum(rig.passes.values())
        await rig.pass_time(100)
        assert sum(rig.passes.values()) - before <= 20 * 20
        rig.apply(swarm(replicas=2))
        for number in range(20):
            await rig.phase("Task", f"p{number}", "Succeeded", seconds=10)

    play(scenario)


def test_a_project_goes_on_with_what_is_listed_now(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 3
        rig.apply(swarm("one", replicas=1), swarm("two", replicas=1))
        rig.apply(project(tasks=[work("a"), work("b")], workers=[{"swarm": "one"}]))
        await rig.phase("Task", "demo.a", "Running")
        rig.patch("Project", "demo", workers=[{"swarm": "two"}])
        await rig.phase("Task", "demo.b", "Succeeded")
        assert rig.task("demo.a")["attempts"][0]["swarm"] == "one"
        assert rig.task("demo.b")["attempts"][0]["swarm"] == "two"
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_the_limit_of_the_machine_holds_after_a_restart_too(play):
    async def scenario(rig):
        rig.limit(6)
        rig.apply(swarm("one", 4), swarm("two", 4))
        await rig.pass_time(60)
        assert len(rig.provider.live()) == 6
        before = launches(rig)
        assert "WorkerLimit" in {
            rig.condition("Swarm", name, "Available")["reason"] for name in ("one", "two")
        }
        for _ in range(5):
            await rig.crash()
            rig.start()
            await rig.pass_time(60)
        assert launches(rig) == before
        rig.delete("Swarm", "one")
        await rig.until(lambda: rig.swarm("two").get("readyReplicas") == 4, "room")

    play(scenario)


def test_a_manifest_with_credentials_in_it_is_refused(play):
    secret = "AKIA" + "IOSFODNN7EXAMPLE"

    async def scenario(rig):
        asked = {"region": "us-east-1", "amiId": "ami-1", "instanceType": "c7i.large"}
        given = {**asked, "workspaceRoot": "/shared", "bootstrap": {"commands": [f"x {secret}"]}}
        rig.apply(swarm("cloud", provider={"aws": given}))
        await rig.until(lambda: rig.condition("Swarm", "cloud", "Accepted"), "a verdict")
        condition = rig.condition("Swarm", "cloud", "Accepted")
        assert (condition["status"], condition["reason"]) == ("False", "CredentialsInManifest")
        assert "spec.provider.aws.bootstrap.commands[0]" in condition["message"]
        assert secret not in str(rig.swarm("cloud"))

    play(scenario)
