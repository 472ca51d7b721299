"""Tasks: texts, edits, cancelling, what is told of them."""

from __future__ import annotations

import json

from providers.base import ProviderError
from tests.lab import API, project, prompt, swarm, work
from tests.reconcile.fakes import BASE
from tests.reconcile.given import UNREADABLE, ready
from worker.report import task_result

TASK_CONDITIONS = ["Accepted", "Assignable", "Running", "BranchDurable", "Complete", "Failed"]


def by_reference(name, **metadata):
    obj = prompt(name)
    del obj["spec"]["prompt"]
    obj["spec"]["promptFrom"] = {"configMapKeyRef": {"name": "texts", "key": "text"}}
    return obj


def texts(text="Hello."):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts"},
            "data": {"text": text}}  # fmt: skip


def retry(rig, name, token):
    rig.store.change(
        ("Task", "default", name),
        lambda o: o["metadata"]["annotations"].update({"codeswarm.dev/retry": token}),
    )


def failing(times):
    """The first turns fail by the task's own fault."""
    left = [times]

    def script(job, record):
        left[0] -= 1
        if left[0] >= 0:
            return {"status": "failed", "answer": "", "error": {"class": "task", "message": "no"}}
        return None

    return script


def test_a_missing_text_holds_no_worker(play):
    async def scenario(rig):
        await ready(rig)
        rig.apply(by_reference("p"))
        await rig.until(lambda: rig.condition("Task", "p", "Accepted").get("status") == "False", "")
        assert "attempts" not in rig.task("p")
        passes = rig.passes[("Task", "default", "p")]
        await rig.pass_time(300)
        assert rig.passes[("Task", "default", "p")] - passes < 100
        rig.apply(prompt("q"))
        await rig.phase("Task", "q", "Succeeded")
        rig.apply(texts())
        await rig.phase("Task", "p", "Succeeded", seconds=2)
        assert rig.condition("Task", "p", "Accepted")["status"] == "True"

    play(scenario)


def test_a_text_that_goes_before_it_was_delivered_frees_the_worker(play):
    async def scenario(rig):
        await ready(rig)
        rig.apply(texts())
        rig.provider.deliver_error = ProviderError("DeliveryFailed", "no space")
        rig.apply(by_reference("p"))
        await rig.until(lambda: rig.task("p").get("attempts"), "an attempt")
        rig.delete("ConfigMap", "texts")
        rig.provider.deliver_error = None
        rig.apply(prompt("q"))
        await rig.phase("Task", "q", "Succeeded", seconds=60)
        assert not [c for c in rig.provider.calls if c.startswith("stop")]
        rig.apply(texts())
        await rig.phase("Task", "p", "Succeeded")

    play(scenario)


def test_all_conditions_are_there_in_every_status(play):
    async def scenario(rig):
        seen = []
        write = rig.store.update_status

        async def watched(obj):
            if obj["kind"] == "Task":
                seen.append(obj)
            return await write(obj)

        rig.store.update_status = watched
        await ready(rig)
        rig.apply(prompt("p"), prompt("q", target={"swarm": "builders", "workers": "all"}))
        rig.apply(project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        for obj in seen:
            status = obj["status"]
            assert [c["type"] for c in status["conditions"]] == TASK_CONDITIONS
            assert status["observedGeneration"] == obj["metadata"]["generation"]
        assert len(seen) > 8

    play(scenario)


def test_a_cancelled_task_shows_the_generation_it_was_cancelled_in(play):
    async def scenario(rig):
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Waiting")
        rig.patch("Task", "p", cancel=True)
        await rig.phase("Task", "p", "Cancelled")
        obj = rig.get("Task", "p")
        assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]

    play(scenario)


def test_an_edit_forgets_failures_and_their_backoff(play):
    async def scenario(rig):
        rig.provider.script = failing(2)
        rig.apply(swarm(replicas=1))
        slow = {"limit": 1, "backoffSeconds": 300, "maxBackoffSeconds": 300}
        rig.apply(project(tasks=[work("a")], retry=slow))
        await rig.until(lambda: rig.task("demo.a").get("nextAttemptAt"), "backoff")
        rig.apply(project(tasks=[work("a", 'say: "x"')], retry=slow))
        await rig.until(lambda: len(rig.task("demo.a")["attempts"]) == 2, "the edit", 5)
        await rig.until(lambda: rig.task("demo.a").get("nextAttemptAt"), "another retry")
        assert rig.task("demo.a")["failures"]["task"] == 1

    play(scenario)


def test_a_retry_asked_for_while_the_task_fails_is_not_lost(play):
    async def scenario(rig):
        await ready(rig)
        for number in range(12):
            rig.provider.script = failing(1)
            name = f"p{number}"
            rig.apply(prompt(name, retry={"limit": 0}))
            await rig.until(lambda: rig.task(name).get("attempts"), "an attempt")  # noqa: B023
            await rig.pass_time(0.04 + number * 0.002)
            retry(rig, name, "again")
            await rig.phase("Task", name, "Succeeded", seconds=5)
            assert rig.task(name)["observedRetry"] == "again"

    play(scenario)


def test_waiting_for_an_answer_is_no_work_for_the_controller(play):
    async def scenario(rig):
        async def ask(job, record):
            job.emit("exec_approval_required", {"request_id": "r", "command": "rm"},
                     record["injection_id"])  # fmt: skip
            await rig.pass_time(10_000)

        rig.provider.work = ask
        await ready(rig)
        rig.apply(prompt("p", stallTimeoutSeconds=5))
        await rig.phase("Task", "p", "Running")
        await rig.pass_time(30)
        before = sum(rig.passes.values())
        await rig.pass_time(300)
        assert rig.task("p")["phase"] == "Running"
        assert sum(rig.passes.values()) - before < 300

    play(scenario)


def routing(job, record):
    if record["task"]["name"] == "p":
        return {"answer": "/swarm[reviewers]/idle Look at this."}
    return None


def test_a_crash_between_an_answer_and_its_routes_loses_none(play):
    async def scenario(rig):
        rig.provider.script = routing
        rig.apply(swarm(replicas=1, routing={"allowTo": ["reviewers"]}), swarm("reviewers", 1))
        await rig.until(lambda: rig.swarm("reviewers").get("readyReplicas") == 1, "workers")
        create = rig.store.create

        async def never(obj):
            await rig.pass_time(3600)
            return await create(obj)

        rig.store.create = never
        rig.apply(prompt("p"))
        await rig.pass_time(10)
        await rig.crash()
        rig.store.create = create
        rig.start()
        await rig.until(
            lambda: [t for t in rig.store.list("Task") if t["metadata"]["name"] != "p"], "a route"
        )
        await rig.phase("Task", "p", "Succeeded")
        await rig.pass_time(10)
        assert len(rig.store.list("Task")) == 2

    play(scenario)


def test_a_status_stays_small(play):
    async def scenario(rig):
        names = [f"{'d' * 200}/{'e' * 200}/{n}.txt" for n in range(200)]

        async def long(job, record):
            repository, injection = record["repository"], record["injection_id"]
            if record["task"]["kind"] != "work":
                return await normal(job, record)
            head = rig.remote.push(repository)
            fails = record["task"]["attempt"] < 10 and record["task"]["name"] == "demo.last"
            job.emit("task_complete", {
                "base_commit": BASE, "head_commit": head, "pushed": True,
                "files_changed": names, "files_changed_count": 5000}, injection)  # fmt: skip
            answer = "é" * 20_000 + "\n" + task_result(task_id="x", notes="ü" * 8000)
            if fails:
                job.finish(
                    injection,
                    {
                        "status": "failed",
                        "answer": "",
                        "error": {"class": "task", "message": "m" * 5000},
                    },
                )
            else:
                job.finish(injection, {"status": "completed", "answer": answer})
            return None

        normal = rig.provider.work
        rig.provider.work = long
        tasks = [work(f"t{n}", ownedPaths=[f"own{n}/"]) for n in range(63)]
        tasks.append(work("last", depends_on=[f"t{n}" for n in range(63)], ownedPaths=["src/"]))
        rig.apply(swarm(replicas=8))
        rig.apply(project(tasks=tasks, retry={"limit": 20, "backoffSeconds": 0}))
        await rig.phase("Project", "demo", "Completed", seconds=300)
        assert len(rig.task("demo.last")["attempts"]) == 10
        assert rig.task("demo.last")["filesChangedCount"] == 5000
        for obj in [*rig.store.list("Task"), *rig.store.list("Project")]:
            size = len(json.dumps(obj["status"], ensure_ascii=False).encode())
            assert size < 32 * 1024, (obj["metadata"]["name"], size)

    play(scenario)


def test_a_remote_that_cannot_be_read_makes_durable_unknown(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 5
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Task", "demo.a", "Running")
        rig.remote.problem = UNREADABLE
        await rig.until(
            lambda: rig.condition("Task", "demo.a", "BranchDurable")["status"] == "Unknown", "it"
        )
        writes = len(rig.store.writes)
        await rig.pass_time(20)
        assert sum(k.kind == "Task" for k in rig.store.writes[writes:]) == 0
        rig.remote.problem = None
        await rig.phase("Task", "demo.a", "Succeeded")

    play(scenario)


def test_down_ends_although_prompts_keep_coming(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 0.001
        await ready(rig, 4)
        for number in range(500):
            rig.apply(prompt(f"p{number}"))
        await rig.until(lambda: rig.task("p10").get("phase") == "Succeeded", "some")
        await rig.manager.stop()
        assert not all(rig.task(f"p{n}").get("phase") == "Succeeded" for n in range(500))

    play(scenario)


def test_a_prompt_lives_for_its_time_and_no_longer(play):
    async def scenario(rig):
        await ready(rig)
        rig.apply(prompt("p", ttlSecondsAfterFinished=60))
        await rig.phase("Task", "p", "Succeeded")
        await rig.pass_time(50)
        await rig.crash()
        rig.start()
        await rig.until(lambda: rig.get("Task", "p") is None, "the end", 20)

    play(scenario)


def test_every_condition_of_an_edited_task_is_about_the_edit(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        rig.apply(project(tasks=[work("a", "say: more")]))
        await rig.until(lambda: len(rig.task("demo.a")["attempts"]) == 2, "the second attempt")
        await rig.phase("Task", "demo.a", "Succeeded")
        generation = rig.get("Task", "demo.a")["metadata"]["generation"]
        assert generation > 1
        seen = {c["observedGeneration"] for c in rig.task("demo.a")["conditions"]}
        assert seen == {generation}

    play(scenario)


def test_a_question_that_no_agent_has_asked_expires(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1), prompt("waits", suspend=True))
        asked = {"id": "0", "kind": "command", "decisions": ["deny"], "swarm": "builders",
                 "job": "j", "task": "waits"}  # fmt: skip
        for name, more in (("bare", {}), ("empty", {"injectionId": "", "worker": 0})):
            spec = {"request": {**asked, **more}, "decision": {"value": "deny"}}
            rig.apply({"apiVersion": API, "kind": "Approval", "metadata": {"name": name},
                       "spec": spec})  # fmt: skip
            await rig.phase("Approval", name, "Expired")
        assert not rig.errors

    play(scenario)
