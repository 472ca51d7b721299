"""A provider out of reach: nothing is concluded, nothing is done behind anyone's back."""

from __future__ import annotations

from providers.base import ProviderUnreachable
from tests.lab import project, prompt, swarm, work

SLURM = {"slurm": {"loginHost": "login", "workspaceRoot": "/shared"}}


def attempt(rig, name):
    return (rig.task(name).get("attempts") or [{}])[-1]


async def running(rig, name="p", **spec):
    """A prompt whose turn runs on the cluster, for ever."""
    rig.cluster.turn_seconds = 100_000
    rig.apply(swarm(replicas=1, provider=SLURM), prompt(name, **spec))
    await rig.until(lambda: attempt(rig, name).get("turnStartedAt"), "the turn")
    (job,) = rig.cluster.live()
    return job


def calls(rig):
    return [call for call in rig.cluster.calls if not call.startswith("deliver")]


def test_what_depends_on_it_becomes_unknown_and_true_again(play):
    async def scenario(rig):
        rig.cluster.turn_seconds = 100_000
        rig.apply(swarm(replicas=1, provider=SLURM), project(tasks=[work("a")]))
        await rig.until(lambda: attempt(rig, "demo.a").get("turnStartedAt"), "the turn")
        before = calls(rig)
        rig.cluster.cut = True
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "ProviderReachable")["status"] == "False",
            "the loss to be noticed",
        )
        await rig.pass_time(60)
        assert rig.condition("Task", "demo.a", "Running")["status"] == "True"
        await rig.pass_time(120)
        for kind, name, type in (
            ("Swarm", "builders", "Available"), ("Swarm", "builders", "Ready"),
            ("Task", "demo.a", "Running"), ("Project", "demo", "Complete"),
        ):  # fmt: skip
            found = rig.condition(kind, name, type)
            assert (found["status"], found["reason"]) == ("Unknown", "ProviderUnreachable")
            assert "login host does not answer" in found["message"]
        assert rig.project()["reason"] == "ProviderUnreachable"
        assert rig.project()["phase"] == "Running"
        writes = len(rig.store.writes)
        await rig.pass_time(3600)
        assert len(rig.store.writes) == writes, "a status does not tick"
        assert calls(rig) == before, "nothing was started or stopped"
        rig.cluster.cut = False
        await rig.until(
            lambda: rig.condition("Task", "demo.a", "Running")["status"] == "True", "contact", 10
        )
        await rig.until(
            lambda: rig.condition("Project", "demo", "Complete")["status"] == "False", "contact", 10
        )
        assert calls(rig) == before
        told = rig.reasons()
        assert (told["ConnectionLost"], told["Reachable"]) == (1, 1)

    play(scenario)


def test_a_turn_that_ended_meanwhile_is_taken_over(play):
    async def scenario(rig):
        job = await running(rig, timeoutSeconds=300, stallTimeoutSeconds=60)
        rig.cluster.cut = True
        await rig.pass_time(600)
        job.finish(job.running, {"status": "completed", "answer": "done"})
        await rig.pass_time(600)
        assert rig.task("p")["phase"] == "Running"
        rig.cluster.cut = False
        await rig.phase("Task", "p", "Succeeded", seconds=10)
        assert len(rig.task("p")["attempts"]) == 1 and not rig.reasons()["Interrupting"]

    play(scenario)


def test_limits_in_time_wait_for_contact(play):
    async def scenario(rig):
        await running(rig, timeoutSeconds=300, retry={"limit": 0})
        rig.cluster.cut = True
        await rig.pass_time(600)
        assert "interrupt" not in attempt(rig, "p")
        rig.cluster.cut = False
        await rig.phase("Task", "p", "Failed", seconds=10)
        assert rig.task("p")["reason"] == "Timeout"

    play(scenario)


def test_silence_is_no_stall(play):
    async def scenario(rig):
        job = await running(rig, stallTimeoutSeconds=60)
        rig.cluster.cut = True
        await rig.pass_time(600)
        rig.cluster.cut = False
        await rig.pass_time(50)
        assert "interrupt" not in attempt(rig, "p")
        job.emit("assistant", {"text": "still here"}, job.running)
        await rig.pass_time(50)
        assert "interrupt" not in attempt(rig, "p")
        await rig.until(lambda: attempt(rig, "p").get("interrupt"), "the stall", 30)

    play(scenario)


def test_a_cancellation_waits_for_contact_and_is_no_kill(play):
    async def scenario(rig):
        job = await running(rig)
        rig.cluster.cut = True
        await rig.pass_time(30)
        rig.patch("Task", "p", cancel=True)
        await rig.until(lambda: attempt(rig, "p").get("interrupt"), "the intent")
        await rig.pass_time(300)
        rig.cluster.cut = False
        await rig.phase("Task", "p", "Cancelled", seconds=10)
        assert job.alive, "it was asked, not killed"

    play(scenario)


def test_work_that_waits_says_so_and_begins_with_contact(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 1, "a worker")
        rig.cluster.cut = True
        await rig.pass_time(30)
        rig.apply(prompt("p"))
        await rig.until(
            lambda: (rig.task("p").get("blocker") or {}).get("reason") == "ProviderUnreachable",
            "the reason",
        )
        assert "ConnectionLost" in rig.task("p")["blocker"]["message"]
        rig.cluster.cut = False
        await rig.phase("Task", "p", "Succeeded", seconds=10)

    play(scenario)


def test_a_restart_does_not_make_it_known_again(play):
    async def scenario(rig):
        await running(rig)
        rig.cluster.cut = True
        await rig.pass_time(100)
        await rig.crash()
        rig.start()
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Ready")["status"] == "Unknown",
            "two minutes in all", 40,
        )  # fmt: skip

    play(scenario)


def test_many_unreachable_swarms_slow_nobody_down(play):
    async def scenario(rig):
        rig.cluster.observe_seconds = 55
        rig.cluster.observe_error = ProviderUnreachable("ConnectTimedOut", "no answer")
        rig.apply(*(swarm(f"gpu{n}", replicas=1, provider=SLURM) for n in range(150)))
        rig.apply(swarm(replicas=1))
        await rig.pass_time(30)
        for number in range(5):
            rig.apply(prompt(f"p{number}"))
            await rig.phase("Task", f"p{number}", "Succeeded", seconds=3)
        await rig.until(
            lambda: rig.condition("Swarm", "gpu149", "ProviderReachable").get("status") == "False",
            "them to say so", 300,
        )  # fmt: skip

    play(scenario)


def test_a_provider_that_never_answers_is_out_of_reach(play):
    async def scenario(rig):
        rig.cluster.observe_seconds = 100_000
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "ProviderReachable").get("reason"),
            "the reason", 70,
        )  # fmt: skip
        found = rig.condition("Swarm", "builders", "ProviderReachable")
        assert found["reason"] == "NoAnswer"

    play(scenario)


# --- the end ----------------------------------------------------------------------------------


def test_a_swarm_that_never_had_workers_can_be_deleted_without_contact(play):
    async def scenario(rig):
        rig.cluster.cut = True
        rig.apply(swarm(replicas=1, provider=SLURM))
        await rig.until(lambda: rig.swarm().get("conditions"), "a status")
        rig.delete("Swarm", "builders")
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end")

    play(scenario)


def test_one_with_workers_waits_until_a_person_lets_go(play):
    async def scenario(rig):
        job = await running(rig)
        rig.cluster.cut = True
        await rig.pass_time(10)
        rig.apply(prompt("waits"))
        rig.delete("Swarm", "builders")
        await rig.pass_time(600)
        assert rig.swarm()["phase"] == "Terminating"
        assert rig.condition("Swarm", "builders", "ProviderReachable")["status"] == "False"
        obj = rig.get("Swarm", "builders")
        obj["metadata"].setdefault("annotations", {})["codeswarm.dev/abandon"] = "true"
        rig.store.put_update(obj)
        await rig.until(lambda: rig.get("Swarm", "builders") is None, "its end")
        (event,) = [e for e in rig.store.events() if e.reason == "Abandoned"]
        assert job.name in event.message and "/shared" in event.message
        assert not rig.reasons()["Terminated"], "it is not known that every worker is gone"
        await rig.until(
            lambda: (rig.task("waits").get("blocker") or {}).get("reason") == "SwarmNotFound",
            "what waits to say so", 10,
        )  # fmt: skip

    play(scenario)


def test_a_restart_does_not_keep_it_from_being_unknown(play):
    async def scenario(rig):
        rig.cluster.turn_seconds = 100_000
        rig.apply(swarm(replicas=1, provider=SLURM), project(tasks=[work("a")]))
        await rig.until(lambda: attempt(rig, "demo.a").get("turnStartedAt"), "the turn")
        rig.cluster.cut = True
        await rig.pass_time(60)
        await rig.crash()
        rig.start()
        await rig.until(
            lambda: rig.condition("Task", "demo.a", "Running")["status"] == "Unknown",
            "it to be said",
            200,
        )
        await rig.until(
            lambda: rig.condition("Project", "demo", "Complete")["status"] == "Unknown",
            "it to be said",
            20,
        )

    play(scenario)


def test_contact_with_a_swarm_that_is_deleted_returns_too(play):
    async def scenario(rig):
        rig.cluster.turn_seconds = 100_000
        spec = swarm(replicas=1, provider=SLURM, termination={"gracePeriodSeconds": 3000})
        rig.apply(spec, prompt("p"))
        await rig.until(lambda: attempt(rig, "p").get("turnStartedAt"), "the turn")
        rig.cluster.cut = True
        await rig.pass_time(30)
        rig.delete("Swarm", "builders")
        await rig.pass_time(300)
        assert rig.condition("Task", "p", "Running")["status"] == "Unknown"
        rig.cluster.cut = False
        await rig.pass_time(6)
        assert rig.condition("Swarm", "builders", "ProviderReachable")["status"] == "True"
        assert rig.condition("Task", "p", "Running")["status"] == "True"
        rig.patch("Task", "p", cancel=True)
        await rig.phase("Task", "p", "Cancelled", seconds=10)

    play(scenario)
