"""Workers that are told to leave from outside: their work is kept, and nobody is blamed."""

from __future__ import annotations

import pytest

from providers.base import JobState
from tests.lab import project, prompt, swarm, work


def attempts(rig, name="demo.a"):
    return rig.task(name).get("attempts") or []


async def at_work(rig, name="demo.a"):
    """The job that a task's open attempt runs on, once it runs."""
    await rig.until(lambda: [a for a in attempts(rig, name) if a["state"] == "Running"], "a turn")
    return rig.provider.job(attempts(rig, name)[-1]["job"])


def long_project(rig, **spec):
    rig.provider.turn_seconds = 1000
    rig.apply(swarm(replicas=1), project(tasks=[work("a")], **spec))


@pytest.mark.parametrize("reason", ["TimeLimit", "SpotInterruption", "Stopped"])
def test_the_next_attempt_is_told_where_the_work_is(play, reason):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        await rig.pass_time(30)
        long_project(rig)
        (await at_work(rig)).leave(reason)
        await rig.until(lambda: len(attempts(rig)) == 2, "another attempt")
        first, second = attempts(rig)
        assert (first["class"], first["reason"]) == ("Infrastructure", reason)
        assert rig.task("demo.a").get("failures", {}).get("infrastructure", 0) == 0
        record = (await at_work(rig)).inbox[-1]
        head, ref = first["headCommit"], first["ref"]
        assert record["repository"]["previous"] == {"task": "a", "commit": head, "ref": ref}
        assert head in record["content"] and "did not fail" in record["content"]
        assert second["expected"] == "", "the unfinished work moved no branch"
        rig.provider.turn_seconds = 0.05
        (await at_work(rig)).leave(reason)
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_a_time_limit_is_no_failed_launch_and_no_alarm(play):
    async def scenario(rig):
        long_project(rig)
        job = await at_work(rig)
        await rig.pass_time(60)
        job.leave("TimeLimit")
        await rig.until(lambda: len(attempts(rig)) == 2, "another attempt", 5)
        reasons = rig.reasons()
        assert reasons["WorkerLeft"] == 1 and reasons["AttemptStopped"] == 1
        assert not reasons["WorkerLost"] and not reasons["AttemptFailed"]
        assert rig.swarm()["launchFailures"] == 0 and "nextLaunchAt" not in rig.swarm()

    play(scenario)


def test_turns_that_had_a_workers_whole_time_are_not_repeated_for_ever(play):
    async def scenario(rig):
        long_project(rig)
        for number in range(1, 11):
            job = await at_work(rig)
            await rig.pass_time(60)
            job.leave("TimeLimit")
            await rig.until(
                lambda n=number: (
                    attempts(rig)[-1]["number"] > n or rig.task("demo.a")["phase"] == "Failed"
                ),
                "the next attempt",
            )
        assert rig.task("demo.a")["phase"] == "Failed"
        found = rig.condition("Task", "demo.a", "Failed")
        assert "timeLimit" in found["message"], found
        assert attempts(rig)[-1]["headCommit"], "the work is kept all the same"

    play(scenario)


def test_turns_that_began_late_are_no_failures(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        rig.provider.turn_seconds = 1000
        for number in range(12):
            await rig.until(
                lambda: [w for w in rig.swarm().get("workers") or () if w["phase"] == "Idle"],
                "a worker",
            )
            await rig.pass_time(30)
            if not number:
                rig.apply(project(tasks=[work("a")]))
            else:
                rig.store.change(
                    ("Project", "default", "demo"), lambda o: o["spec"].pop("suspend", None)
                )
            job = await at_work(rig)
            await rig.pass_time(60)
            rig.store.change(
                ("Project", "default", "demo"), lambda o: o["spec"].update(suspend=True)
            )
            job.leave("TimeLimit")
            await rig.until(lambda: attempts(rig)[-1]["state"] == "Failed", "the end")
        assert rig.task("demo.a")["failures"]["infrastructure"] == 0

    play(scenario)


def test_time_limits_without_progress_end_at_last(play):
    async def scenario(rig):
        long_project(rig)

        def leave():
            for job in rig.provider.live():
                if job.running:
                    job.leave("TimeLimit", keep=False)
            return rig.task("demo.a").get("phase") == "Failed"

        await rig.until(leave, "the end", 3600)
        assert rig.task("demo.a")["reason"] == "InfrastructureRetriesExhausted"

    play(scenario)


def test_work_that_is_not_at_its_ref_is_not_kept(play):
    async def scenario(rig):
        long_project(rig)
        job = await at_work(rig)
        job.leave("TimeLimit")
        rig.remote.refs.pop(attempts(rig)[-1]["ref"])
        await rig.until(lambda: len(attempts(rig)) == 2, "another attempt")
        assert "headCommit" not in attempts(rig)[0]
        assert rig.task("demo.a")["failures"]["infrastructure"] == 1

    play(scenario)


def test_what_was_delivered_too_late_was_no_attempt(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        await rig.pass_time(30)
        (job,) = rig.provider.live()
        job.receive = job.inbox.append  # it takes nothing more
        rig.apply(prompt("p"))
        await rig.until(lambda: job.inbox, "the delivery")
        job.leave("TimeLimit")
        await rig.phase("Task", "p", "Succeeded")
        first = attempts(rig, "p")[0]
        assert (first["class"], first["reason"]) == ("Superseded", "NotBegun")
        assert "failures" not in rig.task("p")

    play(scenario)


def test_one_that_leaves_is_given_nothing(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        await rig.pass_time(150)
        (job,) = rig.provider.live()
        job.receive = job.inbox.append
        job.emit("thread_status", {"status": "draining", "reason": "TimeLimit"})
        await rig.until(lambda: rig.swarm()["workers"][0]["phase"] == "Draining", "draining")
        assert rig.swarm()["workers"][0]["reason"] == "TimeLimit"
        rig.apply(prompt("p"))
        await rig.pass_time(30)
        assert not attempts(rig, "p")
        job.end()
        await rig.phase("Task", "p", "Succeeded")
        assert rig.reasons()["WorkerLeft"] == 1

    play(scenario)


def test_workers_that_leave_as_soon_as_they_come_back_off(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))

        def leave():
            for job in rig.provider.live():
                if job.state is JobState.RUNNING:
                    job.leave("TimeLimit")

        end = rig.clock.now() + 600
        await rig.until(lambda: leave() or rig.clock.now() > end, "ten minutes", 700)
        assert 5 <= sum(call.startswith("launch") for call in rig.provider.calls) <= 15
        found = rig.condition("Swarm", "builders", "Available")
        assert found["reason"] == "TimeLimitTooShort" and "timeLimit" in found["message"]
        assert rig.swarm()["phase"] == "Failed"

    play(scenario)


@pytest.mark.parametrize(("seconds", "calm"), [(50, False), (600, True)])
def test_idle_workers_are_replaced_calmly_but_not_all_the_time(play, seconds, calm):
    """Without a turn, a time limit of a minute is no use to anybody; one of ten is the queue's."""

    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        for _ in range(5):
            await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker", 400)
            await rig.pass_time(seconds)
            (job,) = rig.provider.live()
            job.leave("TimeLimit")
            await rig.until(lambda: rig.swarm().get("readyReplicas") == 0, "the end", 5)
        assert (rig.reasons()["WorkerLeft"] == 5) == calm
        assert (
            rig.condition("Swarm", "builders", "Ready")["reason"] == "TimeLimitTooShort"
        ) != calm

    play(scenario)


def test_whose_memory_was_used_up_is_not_to_blame_and_its_successor_is_told(play):
    async def scenario(rig):
        failed = {"status": "failed", "error": {"class": "out_of_memory", "message": "too greedy"}}

        def script(job, record):
            return failed if record["injection_id"] == attempts(rig)[0]["injectionId"] else None

        rig.provider.script = script
        rig.apply(swarm(replicas=1), project(tasks=[work("a", retry={"limit": 0})]))
        await rig.phase("Project", "demo", "Completed")
        first, second = attempts(rig)
        assert (first["class"], first["reason"]) == ("Infrastructure", "OutOfMemory")
        inbox = rig.provider.job(second["job"]).inbox
        told = next(m for m in inbox if m.get("injection_id") == second["injectionId"])
        assert "too greedy" in told["content"]

    play(scenario)
