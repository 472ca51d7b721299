"""Cost in status, from one attempt to a project, and budgets while turns run."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from controller.domain.cost import spent_of_rows
from controller.domain.usage import Usage, to_status
from controller.reconcile.attempts import MAX_FOLDED, _shortened, fold_old_attempts
from controller.reconcile.infos import shares_of
from controller.reconcile.task_status import sum_usage
from controller.resources.prices import ModelPrice, Prices, price_key
from controller.resources.settings import EnvProfile, Settings
from tests.lab import project, prompt, swarm, work
from tests.reconcile.given import applied

ALL = {"swarm": "builders", "workers": "all"}


def prices(**models):
    """Settings with a price for input and ten times that for output, USD for a million tokens."""
    found = {
        price_key(name): ModelPrice(Decimal(cost), Decimal(cost) * 10, name=name)
        for name, cost in models.items()
    }
    return Settings(model_pricing=found)


def charge(rig, **models):
    """From now on these models have a price."""
    rig.settings = replace(rig.settings, model_pricing=prices(**models).model_pricing)
    rig.ctx.settings = rig.settings
    rig.ctx.prices = Prices(rig.settings.model_pricing, {})


def agent(**more):
    return {"runtime": "mock", **more}


def told(job, injection, tokens, model="m", session=""):
    """A worker tells its total."""
    total = {"input": tokens, "output": 0, "total": tokens}
    data = {"session": session or injection, "model": model, "total": total}
    job.emit("usage", data, injection)


def using(tokens, model="m"):
    def script(job, record):
        if record["task"]["kind"] != "integration":
            told(job, record["injection_id"], tokens, model)

    return script


def spending(rig, step, every=1.0, model="m"):
    """Turns that use ``step`` tokens a time and never end by themselves."""

    async def slow(job, record):
        used = 0
        while job.running == record["injection_id"] and job.alive:
            used += step
            told(job, record["injection_id"], used, model)
            await rig.pass_time(every)

    return slow


def says(status):
    return status.get("costUsd"), status.get("pricingModel")


def test_one_cost_from_the_attempt_to_the_project(play):
    async def scenario(rig):
        charge(rig, m="2")
        rig.provider.script = using(1500)
        rig.apply(swarm(replicas=1), project(tasks=[work("a"), work("b")]))
        await rig.phase("Project", "demo", "Completed")
        task = rig.task("demo.a")
        assert says(task["attempts"][0]) == says(task) == ("0.003", "m")
        assert task["attempts"][0]["usage"][0]["costUsd"] == "0.003"
        assert "costUsd" not in rig.task("demo.integration")
        for owner in (rig.project, rig.swarm):
            await rig.until(lambda of=owner: says(of()) == ("0.006", "m"), "the sum")
        worker = rig.swarm()["workers"][0]
        assert worker["costUsd"] == "0.006"
        assert worker["usage"] == {"inputTokens": 3000, "totalTokens": 3000}
        writes = len(rig.store.writes)
        await rig.pass_time(600)
        assert len(rig.store.writes) == writes

    play(scenario)


def test_several_models_and_one_without_a_price(play):
    async def scenario(rig):
        charge(rig, m="2", n="4")

        def script(job, record):
            injection = record["injection_id"]
            told(job, injection, 1000, "m", "one")
            told(job, injection, 1000, "n", "two")
            if record["content"].strip() == "odd":
                told(job, injection, 7, "nobody-s", "three")

        rig.provider.script = script
        rig.apply(swarm(replicas=1), prompt("p"), prompt("odd", prompt="odd"))
        await rig.phase("Task", "p", "Succeeded")
        await rig.phase("Task", "odd", "Succeeded")
        assert says(rig.task("p")) == ("0.006", "mixed")
        assert says(rig.task("odd")) == ("0.006 + unpriced", "mixed")
        await rig.until(lambda: says(rig.swarm()) == ("0.012 + unpriced", "mixed"), "the sum")

    play(scenario)


def test_what_is_deleted_stays_counted_for_worker_swarm_and_project(play):
    async def scenario(rig):
        charge(rig, m="2")
        rig.provider.script = using(1000)
        rig.apply(swarm(replicas=1), project(budget={"maxCostUsd": "1"}))
        rig.apply(applied("demo.x"), applied("demo.y"))
        await rig.phase("Project", "demo", "Completed")
        await rig.until(lambda: says(rig.project()) == ("0.004", "m"), "a sum")
        await rig.until(lambda: says(rig.swarm()) == ("0.004", "m"), "a sum")
        rig.delete("Task", "demo.x")
        seen = set()
        for _ in range(300):
            seen |= {rig.project()["costUsd"], rig.swarm()["costUsd"]}
            seen.add(rig.swarm()["workers"][0]["costUsd"])
            await rig.pass_time(0.01)
        assert seen == {"0.004"}
        assert rig.project()["foldedByModel"][0]["costUsd"] == "0.002"
        job = rig.swarm()["workers"][0]["job"]
        rig.provider.kill(job)
        await rig.until(lambda: rig.swarm()["workers"][0]["job"] != job, "another worker")
        await rig.pass_time(10)
        assert "costUsd" not in rig.swarm()["workers"][0]
        assert says(rig.swarm()) == ("0.004", "m")

    play(scenario)


def test_children_of_a_prompt_are_added_up(play):
    async def scenario(rig):
        charge(rig, m="2")
        rig.provider.script = using(1000)
        rig.apply(swarm(replicas=2))
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 2, "workers")
        rig.apply(prompt("p", target=ALL))
        await rig.phase("Task", "p", "Succeeded")
        assert says(rig.task("p")) == ("0.004", "m")
        assert rig.task("p")["usage"]["totalTokens"] == 2000
        await rig.until(lambda: says(rig.swarm()) == ("0.004", "m"), "the sum, once")

    play(scenario)


def test_a_system_prompt_is_part_of_its_worker_and_outlives_it(play):
    async def scenario(rig):
        charge(rig, m="1")
        rig.apply(swarm(replicas=1, systemPrompt="Be brief."), prompt("p"))
        rig.provider.script = using(100)
        await rig.phase("Task", "p", "Succeeded")
        # 10 tokens read and 1 written for the system prompt
        await rig.until(lambda: says(rig.swarm()) == ("0.00012", "m"), "the sum")
        worker = rig.swarm()["workers"][0]
        assert worker["systemUsage"][0]["costUsd"] == "0.00002"
        assert worker["costUsd"] == "0.00012"
        rig.provider.kill(worker["job"])
        await rig.until(lambda: says(rig.swarm()) == ("0.00014", "m"), "a second worker's")
        await rig.crash()
        rig.start()
        await rig.pass_time(30)
        assert says(rig.swarm()) == ("0.00014", "m")

    play(scenario)


def test_the_past_keeps_its_prices_and_the_unpriced_gets_one(play):
    async def scenario(rig):
        rig.settings = prices(m="2")
        await rig.crash()
        rig.start()
        rig.provider.script = using(1000)
        rig.apply(swarm(replicas=1), prompt("old"))
        await rig.phase("Task", "old", "Succeeded")
        rig.provider.script = using(1000, "late")
        budget = {"maxCostUsd": "1"}
        rig.apply(project(tasks=[work("a"), work("b", dependsOn=["a"])], budget=budget))
        await rig.phase("Task", "demo.a", "Succeeded")
        await rig.until(
            lambda: rig.task("demo.b").get("blocker", {}).get("reason") == "Unpriced", "a halt"
        )
        assert "late" in rig.task("demo.b")["blocker"]["message"]
        assert says(rig.project()) == ("unpriced", "unpriced")
        rig.apply(prompt("gone"))
        await rig.phase("Task", "gone", "Succeeded")
        await rig.until(lambda: rig.swarm()["usage"]["totalTokens"] == 3000, "the sum")
        rig.delete("Task", "gone")
        await rig.until(lambda: rig.get("Task", "gone") is None, "the end")
        await rig.pass_time(20)
        assert says(rig.swarm()) == ("0.002 + unpriced", "mixed")

        await rig.crash()
        rig.settings = prices(m="50", late="4")
        rig.start()
        await rig.phase("Project", "demo", "Completed")
        assert says(rig.task("old")) == ("0.002", "m")
        assert says(rig.task("demo.a")) == ("0.004", "late")
        await rig.until(lambda: says(rig.swarm()) == ("0.014", "mixed"), "all of it")

    play(scenario)


def test_a_label_that_is_given_later_prices_what_had_no_price(play):
    async def scenario(rig):
        charge(rig, m="2")
        rig.provider.script = using(1000, "alias")
        rig.apply(swarm(replicas=1, agent=agent()), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        assert says(rig.task("p")) == ("unpriced", "unpriced")
        rig.patch("Swarm", "builders", agent=agent(pricingModel="M"))
        await rig.until(lambda: says(rig.task("p")) == ("0.002", "m"), "its cost")

    play(scenario)


def test_a_profile_names_the_model(play):
    async def scenario(rig):
        profiles = {"gateway": EnvProfile({}, model="m")}
        rig.settings = Settings(env_profiles=profiles)
        charge(rig, m="2")
        rig.provider.script = using(1000, "whatever")
        rig.apply(swarm(replicas=1, agent=agent(envProfile="gateway")), prompt("p"))
        await rig.phase("Task", "p", "Succeeded")
        assert says(rig.task("p")) == ("0.002", "m")

    play(scenario)


# --- budgets -----------------------------------------------------------------------------------


def halted(rig, kind, name):
    condition = rig.condition(kind, name, "WithinBudget")
    return condition.get("reason") if condition.get("status") == "False" else ""


def test_running_turns_end_at_the_limit_and_go_on_when_it_is_raised(play):
    async def scenario(rig):
        charge(rig, m="1000000")
        rig.provider.work, good = spending(rig, 1), rig.provider.work
        tasks = [work("a"), work("b")]
        rig.apply(swarm(replicas=2), project(tasks=tasks, budget={"maxCostUsd": "20"}))
        await rig.until(lambda: halted(rig, "Project", "demo") == "BudgetExceeded", "the limit")
        await rig.until(
            lambda: (
                {rig.task(f"demo.{n}").get("blocker", {}).get("reason") for n in "ab"}
                == {"BudgetExceeded"}
            ),
            "both to wait",
        )
        spent = Decimal(rig.project()["costUsd"])
        assert 20 <= spent <= 26  # what was used in the second until it was seen
        for name in ("demo.a", "demo.b"):
            task = rig.task(name)
            attempt = task["attempts"][0]
            assert (attempt["class"], attempt["reason"]) == ("Superseded", "BudgetExceeded")
            assert (task["phase"], task["reason"]) == ("Waiting", "BudgetExceeded")
            assert not task.get("failures", {}).get("task")
        await rig.pass_time(120)
        assert Decimal(rig.project()["costUsd"]) == spent
        assert not any(job.running for job in rig.provider.live())
        rig.provider.work = good
        rig.patch("Project", "demo", budget={"maxCostUsd": "100"})
        await rig.phase("Project", "demo", "Completed")
        assert not halted(rig, "Project", "demo")
        assert rig.task("demo.a")["attempts"][1]["state"] == "Succeeded"

    play(scenario)


def test_a_swarm_s_limit_of_tokens_ends_prompts_that_run(play):
    async def scenario(rig):
        rig.provider.work = spending(rig, 100)
        rig.apply(swarm(replicas=1, budget={"maxTokens": 500}), prompt("p"))
        await rig.until(lambda: rig.task("p").get("reason") == "BudgetExceeded", "its end")
        assert 500 <= rig.swarm()["usage"]["totalTokens"] <= 800
        await rig.until(lambda: halted(rig, "Swarm", "builders") == "BudgetExceeded", "a condition")

    play(scenario)


def test_a_used_up_budget_starts_no_workers_that_begin_with_a_turn(play):
    async def scenario(rig):
        # each system prompt uses 11 tokens
        rig.apply(swarm(replicas=1, systemPrompt="Be brief.", budget={"maxTokens": 10}))
        await rig.until(lambda: halted(rig, "Swarm", "builders") == "BudgetExceeded", "the limit")
        rig.provider.kill(rig.swarm()["workers"][0]["job"])
        rig.patch("Swarm", "builders", replicas=3)
        await rig.until(lambda: not rig.swarm()["workers"], "its end")
        await rig.pass_time(300)
        assert not rig.swarm()["workers"]
        assert rig.swarm()["usage"]["totalTokens"] == 11
        available = rig.condition("Swarm", "builders", "Available")
        assert available["reason"] == rig.swarm()["reason"] == "BudgetExceeded"
        assert "11 of 10 tokens" in available["message"]
        rig.patch("Swarm", "builders", budget={"maxTokens": 1000})
        await rig.until(lambda: rig.swarm().get("readyReplicas") == 3, "workers", 10)

    play(scenario)


def test_a_limit_that_is_lowered_ends_what_runs(play):
    async def scenario(rig):
        rig.provider.work = spending(rig, 100, every=600)
        rig.apply(swarm(replicas=1, budget={"maxTokens": 500}), prompt("p"))
        await rig.until(lambda: rig.task("p").get("usage"), "usage")
        rig.patch("Swarm", "builders", budget={"maxTokens": 50})
        await rig.until(lambda: rig.task("p").get("reason") == "BudgetExceeded", "its end", 5)

    play(scenario)


def test_a_limit_holds_after_a_restart(play):
    async def scenario(rig):
        rig.provider.work = spending(rig, 100)
        rig.apply(swarm(replicas=1, budget={"maxTokens": 500}), prompt("p"))
        await rig.until(lambda: rig.task("p").get("usage"), "usage")
        await rig.crash()
        await rig.pass_time(20)
        rig.start()
        await rig.until(lambda: rig.task("p").get("reason") == "BudgetExceeded", "its end", 10)
        assert len(rig.task("p")["attempts"]) == 1

    play(scenario)


def test_unpriced_usage_ends_no_turn_but_starts_none(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 30
        told_at_once = rig.provider.work

        async def work_it(job, record):
            told(job, record["injection_id"], 5, "nobody-s")
            await told_at_once(job, record)

        rig.provider.work = work_it
        rig.apply(swarm(replicas=1, budget={"maxCostUsd": "1"}), prompt("p"), prompt("q"))
        await rig.until(lambda: halted(rig, "Swarm", "builders") == "Unpriced", "a condition")
        message = rig.condition("Swarm", "builders", "WithinBudget")["message"]
        assert "nobody-s" in message and "modelPricing" in message
        await rig.until(
            lambda: "Succeeded" in {rig.task(n).get("phase") for n in "pq"}, "the first one"
        )
        await rig.pass_time(20)
        assert {rig.task(n).get("reason") for n in "pq"} == {None, "Unpriced"}

    play(scenario)


# --- folding -----------------------------------------------------------------------------------

rows = st.fixed_dictionaries(
    {
        "session": st.sampled_from(["s", "t"]),
        "model": st.sampled_from(["m", "n", ""]),
        "tokens": st.integers(0, 10**9),
    },
    optional={
        "costUsd": st.decimals(0, 1000, places=6).map(lambda d: format(d.normalize(), "f")),
        "pricingModel": st.just("label"),
    },
).map(lambda r: {**to_status(Usage(input=r["tokens"], total=r.pop("tokens"))), **r})
attempts = st.lists(st.tuples(st.integers(0, 3), st.lists(rows, max_size=4)), max_size=40)


@given(attempts)
def test_folding_attempts_changes_no_sum(script):
    status = {"attempts": [], "folded": {}}
    plain = []
    for number, (worker, used) in enumerate(script, 1):
        attempt = {"number": number, "swarm": f"s{worker % 2}", "job": f"j{worker}",
                   "state": "Failed", "usage": used}  # fmt: skip
        plain.append(attempt)
        status["attempts"] = [*map(_shortened, status["attempts"]), attempt]
        fold_old_attempts(status)
    assert len(status["attempts"]) <= 10
    assert len((status["folded"] or {}).get("usage", ())) <= MAX_FOLDED
    true = {"attempts": plain}
    assert {(s.swarm, s.job): s.spent for s in shares_of(status)} == {
        (s.swarm, s.job): s.spent for s in shares_of(true)
    }
    sum_usage(status)
    sum_usage(true)
    for name in ("usage", "costUsd", "pricingModel"):
        assert status.get(name) == true.get(name)


def test_rows_of_many_workers_and_models_are_bounded():
    status = {"attempts": [], "folded": {}}
    for number in range(1, 301):
        used = [{"session": "", "model": f"m{number % 70}", "costUsd": "1", **to_status(Usage(1))}]
        attempt = {"number": number, "swarm": "s", "job": f"j{number}", "state": "Failed",
                   "usage": used}  # fmt: skip
        status["attempts"] = [*status["attempts"], attempt]
        fold_old_attempts(status)
    assert len(status["folded"]["usage"]) <= MAX_FOLDED
    spent = spent_of_rows(
        [*status["folded"]["usage"], *(a["usage"][0] for a in status["attempts"])]
    )
    assert (spent.usage.input, spent.cost) == (300, 300)
