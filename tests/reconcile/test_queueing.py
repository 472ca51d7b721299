"""Workers that wait in a batch system's queue, or stand still by its will: said, and bounded."""

from __future__ import annotations

from providers.base import JobState, ProviderError
from tests.lab import prompt, swarm
from tests.reconcile.test_contact import SLURM, attempt


def wait_in_line(rig, *reasons):
    """Workers that stay in the queue, each for a reason."""
    rig.provider.boot_seconds = 100_000

    def queued():
        jobs = rig.provider.live()
        for job, reason in zip(jobs, reasons, strict=False):
            job.reason = reason
        return len(jobs) >= len(reasons)

    return queued


def available(rig):
    return rig.condition("Swarm", "builders", "Available")


def test_what_they_wait_for_is_said(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=3), prompt("p"))
        await rig.until(wait_in_line(rig, "Resources", "Priority", "Resources"), "jobs")
        note = "3 wait in the queue: Priority (1), Resources (2)"
        await rig.until(lambda: note in available(rig).get("message", ""), "the note", 20)
        rows = rig.swarm()["workers"]
        assert [row["reason"] for row in rows] == ["Resources", "Priority", "Resources"]
        assert all(row["phase"] == "Starting" for row in rows)
        await rig.pass_time(70)
        assert note in rig.task("p")["blocker"]["message"]

    play(scenario)


def test_a_wait_without_end_says_what_to_do(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=3))
        await rig.until(wait_in_line(rig, "Resources", "BadConstraints", "BadConstraints"), "jobs")
        for job in rig.provider.live()[1:]:
            job.message = "ask for something else"
        await rig.until(lambda: available(rig).get("reason") == "BadConstraints", "it said", 20)
        note = "3 wait in the queue: BadConstraints (2, ask for something else), Resources (1)"
        assert note in available(rig)["message"]
        messages = [row.get("message") for row in rig.swarm()["workers"]]
        assert sorted(filter(None, messages)) == ["ask for something else"]
        for job in rig.provider.live():
            job.reason, job.message = "Resources", ""
        await rig.until(lambda: "Resources (3)" in available(rig)["message"], "that it passed", 20)
        assert available(rig)["reason"] == "Launching"

    play(scenario)


def test_the_soft_deadline_is_said_and_the_hard_one_cancels(play):
    async def scenario(rig):
        launch = {"softTimeoutSeconds": 5, "hardTimeoutSeconds": 20}
        rig.apply(swarm(replicas=1, launch=launch))
        await rig.until(wait_in_line(rig, "Resources"), "a job")
        (job,) = rig.provider.live()
        await rig.until(lambda: available(rig).get("reason") == "LaunchDelayed", "soft", 15)
        assert "5 s" in available(rig)["message"] and "Resources (1)" in available(rig)["message"]
        assert job.alive
        await rig.until(lambda: not job.alive, "hard", 25)
        assert job.state is JobState.ENDED
        await rig.until(lambda: rig.swarm()["launchFailures"] == 1, "a failed launch")
        assert rig.reasons()["WorkerLost"] == 1
        assert "LaunchDeadlineExceeded" in available(rig)["message"]
        await rig.until(lambda: rig.swarm().get("phase") == "Failed", "giving up", 400)
        await rig.until(rig.provider.live, "yet another try", 90)

    play(scenario)


def test_one_that_stands_still_is_neither_lost_nor_late(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 100_000
        rig.apply(swarm(replicas=1, heartbeatTimeoutSeconds=10))
        rig.apply(prompt("p", timeoutSeconds=300, stallTimeoutSeconds=200))
        await rig.until(lambda: (rig.task("p").get("attempts") or [{}])[-1].get("turnStartedAt"),
                        "the turn")  # fmt: skip
        (job,) = rig.provider.live()
        await rig.pass_time(50)
        job.suspended, job.reason = True, "Suspended"
        await rig.pass_time(1000)
        (row,) = rig.swarm()["workers"]
        assert (row["phase"], row["reason"]) == ("Busy", "Suspended")
        passes = sum(rig.passes.values())
        await rig.pass_time(600)
        assert sum(rig.passes.values()) - passes < 600
        job.suspended = False
        job.emit("assistant", {"text": "on"}, job.running)
        await rig.pass_time(60)
        assert job.alive and "reason" not in rig.swarm()["workers"][0]
        assert "interrupt" not in rig.task("p")["attempts"][-1]
        job.emit("assistant", {"text": "on"}, job.running)
        await rig.pass_time(90)
        job.emit("assistant", {"text": "on"}, job.running)
        await rig.until(lambda: rig.task("p")["attempts"][0].get("interrupt"), "its own time", 150)
        assert rig.task("p")["attempts"][0]["interrupt"]["reason"] == "Timeout"

    play(scenario)


def test_one_that_stands_still_is_given_nothing(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        (job,) = rig.provider.live()
        job.suspended = True
        await rig.until(lambda: rig.swarm()["workers"][0].get("reason") == "Suspended", "the note")
        rig.apply(prompt("p"))
        await rig.pass_time(30)
        assert not rig.task("p").get("attempts")
        job.suspended = False
        await rig.phase("Task", "p", "Succeeded")

    play(scenario)


def test_a_worker_that_came_while_nobody_could_listen_stays(play):
    async def scenario(rig):
        rig.cluster.boot_seconds = 300
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.cluster.jobs, "a job")
        await rig.pass_time(60)
        rig.cluster.cut = True
        await rig.pass_time(4000)
        rig.cluster.cut = False
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker", 20)
        assert rig.swarm()["incarnations"] == 1
        assert not rig.reasons()["WorkerLost"]

    play(scenario)


def test_a_worker_that_came_while_no_controller_ran_stays(play):
    async def scenario(rig):
        rig.cluster.boot_seconds = 300
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.cluster.jobs, "a job")
        await rig.pass_time(60)
        await rig.crash()
        await rig.pass_time(4000)
        rig.start()
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker", 20)
        assert rig.swarm()["incarnations"] == 1
        assert not rig.reasons()["WorkerLost"]

    play(scenario)


def test_a_worker_suspended_before_it_could_answer_is_let_be(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        (job,) = rig.cluster.live()
        job.suspended = job.frozen = True
        rig.apply(prompt("p"))
        await rig.until(lambda: attempt(rig, "p").get("state") == "Assigned", "the intent")
        await rig.pass_time(600)
        assert job.alive
        assert not rig.reasons()["Interrupting"]

    play(scenario)


def test_what_was_made_ready_for_workers_that_never_came_goes(play):
    async def scenario(rig):
        asked, remove = [], rig.cluster.remove

        async def noted(swarm, jobs=None):
            asked.extend(jobs or ())
            await remove(swarm, jobs)

        rig.cluster.remove = noted
        rig.cluster.launch_error = ProviderError("PartitionNotFound", "no such partition")
        rig.apply(swarm(replicas=2, provider=SLURM))
        await rig.until(lambda: rig.swarm().get("workers"), "the intent")
        first = {row["job"] for row in rig.swarm()["workers"]}
        rig.apply(swarm(replicas=2, provider={"slurm": {**SLURM["slurm"], "partition": "big"}}))
        await rig.until(lambda: first <= set(asked), "their folders to go")
        reasons = rig.reasons()
        assert set(reasons) <= {"PartitionNotFound"}, "nobody is told to leave who never came"

    play(scenario)


def test_who_waits_in_the_queue_is_taken_back_at_once(play):
    """Nobody there reads that it is to leave: by a scale and by the swarm's end."""

    async def scenario(rig):
        rig.apply(swarm(replicas=3))
        await rig.until(wait_in_line(rig, "Resources", "Resources", "Resources"), "jobs")
        await rig.until(lambda: len(rig.swarm().get("workers", ())) == 3, "the table")
        rig.patch("Swarm", "builders", replicas=1)
        await rig.until(lambda: len(rig.provider.live()) == 1, "two to be taken back", 5)
        rig.delete("Swarm", "builders")
        await rig.until(lambda: not rig.provider.live(), "the last one", 5)

    play(scenario)
