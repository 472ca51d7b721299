"""A provider's refusals: who waits, for how long, that nothing is lost by it, and what ends it."""

from __future__ import annotations

from dataclasses import replace

from controller.reconcile.clock import seconds_of
from controller.resources.settings import EnvProfile
from tests.lab import project, prompt, swarm, work

KEY = {"agent": {"runtime": "mock", "env": [{"name": "MOCK_API_KEY", "value": "one"}]}}
OTHER = {"agent": {"runtime": "mock", "env": [{"name": "MOCK_API_KEY", "value": "two"}]}}


def refusal(kind="quota", seconds=None, message="slow down"):
    error = {"class": kind, "message": message}
    if seconds is not None:
        error["retry_after_seconds"] = seconds
    return {"status": "failed", "answer": "", "error": error}


class Provider:
    """A model's provider that refuses what the test says; by the swarm's key."""

    def __init__(self, rig):
        self.rig = rig
        self.refuse = {}
        """By key: the answer to every turn."""
        self.asked = []
        """(time, key, swarm) of each turn."""
        rig.provider.script = self

    def __call__(self, job, record):
        key = job.request.env.get("MOCK_API_KEY", "")
        self.asked.append((self.rig.clock.now(), key, job.request.swarm.name))
        return self.refuse.get(key)


async def ready(rig, *swarms):
    rig.apply(*swarms)
    for one in swarms:
        name, wanted = one["metadata"]["name"], one["spec"]["replicas"]
        await rig.until(lambda n=name, w=wanted: rig.swarm(n).get("readyReplicas") == w, name)


def classes(rig, name):
    return [a.get("class") for a in rig.task(name).get("attempts") or ()]


def quota(rig, name="builders"):
    return rig.condition("Swarm", name, "QuotaAvailable")


async def over(rig, until):
    """Let the time pass that is left of a pause."""
    await rig.pass_time(max(0.0, until - rig.clock.now() - 0.1))


async def paused(rig, name="builders"):
    await rig.until(lambda: quota(rig, name).get("status") == "False", f"{name} to be paused")
    return seconds_of(rig.swarm(name)["quota"]["until"])


def test_everybody_on_the_credential_waits_until_the_time_that_was_named(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=600)
        await ready(rig, swarm(**KEY), swarm("cousins", 1, **KEY), swarm("strangers", 1, **OTHER))
        rig.apply(prompt("p", retry={"limit": 0}))
        until = await paused(rig)
        assert await paused(rig, "cousins") == until
        assert quota(rig)["reason"] == rig.swarm()["reason"] == "QuotaExhausted"
        assert "slow down" in quota(rig)["message"]
        for number in range(3):
            rig.apply(prompt(f"q{number}"), prompt(f"c{number}", swarm="cousins"))
        rig.apply(prompt("s", swarm="strangers"))
        await rig.phase("Task", "s", "Succeeded")
        for name in ("p", "q0", "c2"):
            await rig.until(lambda n=name: rig.task(n).get("reason") == "QuotaExhausted", name)
            blocker = rig.task(name)["blocker"]
            assert blocker["on"]["kind"] == "Swarm"
            assert "before 2025-10-09T" in blocker["message"]
        provider.refuse.clear()
        await over(rig, until)
        await rig.phase("Task", "p", "Succeeded")
        await rig.phase("Task", "c2", "Succeeded")
        later = [at for at, key, _ in provider.asked[1:] if key == "one"]
        assert min(later) >= until >= provider.asked[0][0] + 600
        assert min(later) <= until + 1
        assert classes(rig, "p") == ["Quota", None]
        assert classes(rig, "q0") == [None]
        assert quota(rig)["reason"] == "NoQuotaError" and "quota" not in rig.swarm()
        await rig.until(lambda: quota(rig, "cousins")["reason"] == "NoQuotaError", "cousins")
        assert rig.reasons()["QuotaExhausted"] == 1 and rig.reasons()["QuotaAvailable"] == 1

    play(scenario)


def test_a_task_goes_to_a_swarm_that_is_served(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=3600)
        await ready(rig, swarm(replicas=1, **KEY), swarm("strangers", 1, **OTHER))
        both = [{"swarm": "builders"}, {"swarm": "strangers"}]
        rig.apply(project(tasks=[work("a"), work("b")], workers=both, retry={"limit": 0}))
        await rig.phase("Project", "demo", "Completed", seconds=30)
        assert sum(key == "one" for _, key, _ in provider.asked) == 1
        assert "Quota" in {c for n in ("demo.a", "demo.b") for c in classes(rig, n)}

    play(scenario)


def test_planner_and_integration_wait_too(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=10)
        await ready(rig, swarm(replicas=1, **KEY))
        spec = {"swarm": "builders", "specification": "Plan.", "retry": {"limit": 0}}
        rig.apply(project("planned", planner=spec))
        await paused(rig)
        await rig.until(
            lambda: rig.task("planned.plan").get("reason") == "QuotaExhausted", "the planner"
        )
        rig.apply(project(tasks=[work("a")], integration={}))
        provider.refuse.clear()
        await rig.phase("Task", "demo.a", "Succeeded")
        provider.refuse["one"] = refusal(seconds=10)
        await rig.until(
            lambda: rig.task("demo.integration").get("reason") == "QuotaExhausted", "integration"
        )
        provider.refuse.clear()
        await rig.phase("Project", "demo", "Completed")

    play(scenario)


def test_a_pause_survives_its_controller_and_writes_nothing_while_it_lasts(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=1000)
        await ready(rig, swarm(**KEY), swarm("cousins", 1, **KEY))
        rig.apply(prompt("p"), prompt("c", swarm="cousins", suspend=True))
        until = await paused(rig)
        await rig.pass_time(5)
        await rig.crash()
        # As if it had died before the others heard of it.
        rig.store.change(("Swarm", "default", "cousins"), lambda o: o["status"].pop("quota"))
        rig.patch("Task", "c", suspend=False)
        rig.start()
        await rig.pass_time(90)
        writes = len(rig.store.writes)
        await rig.pass_time(500)
        assert rig.store.writes[writes:] == []
        assert len(provider.asked) == 1
        assert rig.task("c")["reason"] == rig.task("p")["reason"] == "QuotaExhausted"
        assert rig.swarm("cousins")["quota"]["until"] == rig.swarm()["quota"]["until"]
        provider.refuse.clear()
        await over(rig, until)
        await rig.phase("Task", "p", "Succeeded", seconds=10)
        await rig.phase("Task", "c", "Succeeded", seconds=10)
        assert min(at for at, _, _ in provider.asked[1:]) >= until

    play(scenario)


def test_a_pause_outlasts_a_swarm_that_cannot_be_resolved(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=1000)
        await ready(rig, swarm(**KEY))
        rig.apply(prompt("p"))
        until = await paused(rig)
        await rig.crash()
        rig.patch("Swarm", "builders", className="late")
        rig.start()
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Accepted")["status"] == "False", "the fault"
        )
        await rig.pass_time(100)
        assert seconds_of(rig.swarm()["quota"]["until"]) == until
        rig.store.change(("Swarm", "default", "builders"), lambda o: o["spec"].pop("className"))
        await rig.pass_time(100)
        assert seconds_of(rig.swarm()["quota"]["until"]) == until
        assert len(provider.asked) == 1

    play(scenario)


def test_a_refusal_that_no_controller_saw_pauses_at_once(play):
    async def scenario(rig):
        provider = Provider(rig)
        rig.provider.turn_seconds = 5
        await ready(rig, swarm(**KEY))
        rig.apply(prompt("p"))
        await rig.until(lambda: rig.task("p").get("phase") == "Running", "the turn")
        await rig.crash()
        provider.refuse["one"] = refusal(seconds=600)
        await rig.pass_time(20)
        rig.start()
        await rig.until(lambda: classes(rig, "p") == ["Quota"], "its end")
        assert rig.task("p")["reason"] == quota(rig)["reason"] == "QuotaExhausted"

    play(scenario)


def test_a_burst_is_one_refusal_and_pauses_grow_until_one_is_served(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal()
        await ready(rig, swarm(replicas=10, **KEY))
        rig.apply(*(prompt(f"p{n}") for n in range(10)))
        began = await paused(rig) - rig.clock.now()
        assert 10 < began <= 18
        assert rig.swarm()["quota"]["refusals"] == 1
        for number in (2, 3, 4):
            await over(rig, seconds_of(rig.swarm()["quota"]["until"]))
            await rig.until(lambda n=number: rig.swarm()["quota"]["refusals"] == n, "one more")
        until = await paused(rig)
        assert until - rig.clock.now() > 100
        provider.refuse.clear()
        await over(rig, until)
        await rig.phase("Task", "p7", "Succeeded")
        assert "quota" not in rig.swarm()
        provider.refuse["one"] = refusal()
        rig.apply(prompt("again"))
        assert await paused(rig) - rig.clock.now() <= 18
        assert set(classes(rig, "p7")) == {"Quota", None}

    play(scenario)


def test_running_turns_are_left_to_run(play):
    async def scenario(rig):
        provider = Provider(rig)
        rig.provider.turn_seconds = 50
        await ready(rig, swarm(**KEY))
        rig.apply(prompt("slow"))
        await rig.phase("Task", "slow", "Running")
        rig.provider.turn_seconds = 0.05
        provider.refuse["one"] = refusal(seconds=500)
        rig.apply(prompt("p"))
        await paused(rig)
        provider.refuse.clear()
        await rig.phase("Task", "slow", "Succeeded")
        assert quota(rig)["status"] == "False", "it began before the refusal, and proves nothing"

    play(scenario)


def test_a_refused_credential_is_the_swarms_trouble_and_tried_again_with_new_workers(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal("auth", message="invalid api key")
        await ready(rig, swarm(replicas=2, **KEY))
        first = {row["job"] for row in rig.swarm()["workers"]}
        rig.apply(prompt("p", retry={"limit": 0}), prompt("q"))
        await paused(rig)
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "Ready")["status"] == "False", ""
        )
        for type in ("Ready", "QuotaAvailable"):
            condition = rig.condition("Swarm", "builders", type)
            assert condition["reason"] == "CredentialRefused"
            assert "invalid api key" in condition["message"]
        assert rig.task("p")["blocker"]["reason"] == "CredentialRefused"
        await over(rig, await paused(rig))
        await rig.until(lambda: rig.swarm()["quota"]["refusals"] == 2, "another try")
        second = {row["job"] for row in rig.swarm()["workers"]}
        assert not first & second
        assert len(provider.asked) <= 4
        provider.refuse.clear()
        await over(rig, await paused(rig))
        await rig.phase("Task", "p", "Succeeded")
        await rig.phase("Task", "q", "Succeeded")
        assert set(classes(rig, "p")) <= {"Credential", None}
        await rig.until(lambda: rig.condition("Swarm", "builders", "Ready")["status"] == "True", "")
        jobs = {row["job"] for row in rig.swarm()["workers"]}
        await rig.pass_time(100)
        assert {row["job"] for row in rig.swarm()["workers"]} == jobs

    play(scenario)


def test_a_person_may_end_a_pause(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=80_000)
        await ready(rig, swarm(**KEY), swarm("cousins", 1, **KEY))
        rig.apply(prompt("p"), prompt("c", swarm="cousins"))
        await paused(rig, "cousins")
        provider.refuse.clear()
        await rig.pass_time(100)
        jobs = {row["job"] for row in rig.swarm("cousins")["workers"]}
        retry(rig, "cousins", "a")
        await rig.phase("Task", "p", "Succeeded", seconds=5)
        await rig.phase("Task", "c", "Succeeded", seconds=5)
        assert {row["job"] for row in rig.swarm("cousins")["workers"]} == jobs
        provider.refuse["one"] = refusal("auth", 80_000)
        rig.apply(prompt("q"))
        await paused(rig)
        provider.refuse.clear()
        await rig.pass_time(100)
        retry(rig, "builders", "b")
        await rig.phase("Task", "q", "Succeeded", seconds=5)
        assert rig.reasons()["RetryRequested"] == 2
        await rig.pass_time(60)
        assert rig.reasons()["RetryRequested"] == 2

    play(scenario)


def retry(rig, name, token):
    rig.store.change(
        ("Swarm", "default", name),
        lambda o: o["metadata"]["annotations"].update({"codeswarm.dev/retry": token}),
    )


def test_another_credential_takes_effect_at_once(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal("auth")
        await ready(rig, swarm(**KEY))
        rig.apply(prompt("p"))
        await paused(rig)
        rig.patch("Swarm", "builders", **OTHER)
        await rig.phase("Task", "p", "Succeeded", seconds=10)
        assert quota(rig)["reason"] == "NoQuotaError"

    play(scenario)


def test_another_key_in_the_controllers_environment_is_read_by_new_workers(play, monkeypatch):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal("auth", 80_000)
        profile = EnvProfile({"MOCK_API_KEY": "${TEST_MOCK_KEY}"})
        rig.ctx.settings = rig.settings = replace(rig.settings, env_profiles={"mine": profile})
        monkeypatch.setenv("TEST_MOCK_KEY", "one")
        await ready(rig, swarm(agent={"runtime": "mock", "envProfile": "mine"}))
        rig.apply(prompt("p"))
        await paused(rig)
        await rig.crash()
        monkeypatch.setenv("TEST_MOCK_KEY", "two")
        rig.start()
        await rig.phase("Task", "p", "Succeeded", seconds=10)
        assert [key for _, key, _ in provider.asked] == ["one", "two"]

    play(scenario)


def test_other_namespaces_wait_too_and_are_not_told_why(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=300, message="for project-x")
        other = swarm("elsewhere", 1, **KEY)
        other["metadata"].update(namespace="other", annotations={})
        await ready(rig, swarm(**KEY))
        rig.store.put(admit_in(other))
        rig.apply(prompt("p"))
        await paused(rig)
        key = ("Swarm", "other", "elsewhere")

        def there():
            status = (rig.store.get(key) or {}).get("status") or {}
            return status if status.get("reason") == "QuotaExhausted" else None

        status = await rig.until(there, "the other namespace")
        assert "for project-x" not in str(status)
        assert "for project-x" in str(rig.swarm())

    play(scenario)


def admit_in(obj):
    from controller.resources.admission import admit

    return admit(obj)


def test_a_provider_that_fails_by_itself_pauses_nobody(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal("overloaded")
        await ready(rig, swarm(**KEY))
        rig.apply(prompt("p", retry={"limit": 0}))
        await rig.until(lambda: len(classes(rig, "p")) >= 3, "three attempts")
        assert rig.task("p")["failures"]["task"] == 0
        assert {a["reason"] for a in rig.task("p")["attempts"] if "reason" in a} == {
            "ProviderOverloaded"
        }
        assert quota(rig)["status"] == "True"
        provider.refuse.clear()
        await rig.phase("Task", "p", "Succeeded", seconds=100)

    play(scenario)


def test_a_refused_system_prompt_starts_no_workers_before_its_time(play):
    async def scenario(rig):
        rig.provider.system_ok = False
        rig.provider.system_error = refusal(seconds=1000)["error"]
        rig.apply(swarm(replicas=2, systemPrompt="Be good.", **KEY))
        until = await paused(rig)
        await rig.pass_time(900)
        assert sum(call.startswith("launch ") for call in rig.provider.calls) == 2
        assert rig.swarm().get("launchFailures", 0) == 0
        available = rig.condition("Swarm", "builders", "Available")
        assert available["reason"] == "QuotaExhausted" and "slow down" in available["message"]
        assert rig.swarm()["phase"] == "Launching"
        rig.provider.system_ok = True
        await over(rig, until)
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers")
        assert rig.clock.now() >= until

    play(scenario)


def test_what_is_told_twice_after_a_crash_counts_once(play):
    async def scenario(rig):
        provider = Provider(rig)
        provider.refuse["one"] = refusal(seconds=500)
        await ready(rig, swarm(**KEY))
        died = []
        write = rig.store.put_status

        def dies(obj):
            attempts = (obj.get("status") or {}).get("attempts") or ({},)
            if obj["kind"] == "Task" and attempts[-1].get("state") == "Failed" and not died:
                died.append(rig.swarm().get("quota"))
                raise RuntimeError("killed")
            return write(obj)

        rig.store.put_status = dies
        rig.apply(prompt("p"))
        await rig.until(lambda: died, "the end of the attempt")
        assert died[0], "the swarm knows before the attempt ends"
        await rig.crash()
        rig.errors.clear()
        provider.refuse.clear()
        rig.start()
        await rig.until(
            lambda: rig.task("p").get("reason") == "QuotaExhausted", "the attempt's end"
        )
        assert rig.swarm()["quota"]["refusals"] == 1
        await over(rig, seconds_of(rig.swarm()["quota"]["until"]))
        await rig.phase("Task", "p", "Succeeded")
        assert classes(rig, "p") == ["Quota", None]

    play(scenario)
