"""What machines cost: in status, in budgets, exact through restarts, told at the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

from controller.store.base import Conflict
from providers.base import ProviderError, ProviderUnreachable
from tests.lab import project, prompt, swarm, work
from tests.reconcile.renter import AWS
from tests.reconcile.test_renting import annotate, event, gone, running


def priced(rig, **prices):
    """Prices an hour, by kind; holds for a controller that is started after this too."""
    found = {kind.replace("_", "."): Decimal(price) for kind, price in prices.items()}
    rig.settings = rig.ctx.settings = replace(rig.settings, instance_pricing=found)


def machines(rig):
    return rig.swarm().get("machines") or {}


def seconds(rig):
    return sum(row["seconds"] for row in machines(rig).get("ended") or ())


def test_hours_and_cost_are_in_status_and_do_not_tick(play):
    async def scenario(rig):
        priced(rig, c7i_large="3.6")
        await running(rig, 2)
        await rig.pass_time(30)
        assert machines(rig)["count"] == 2
        writes = len(rig.store.writes)
        await rig.pass_time(3570)
        assert len(rig.store.writes) - writes <= 6
        assert machines(rig)["costUsd"] == rig.swarm()["costUsd"]
        assert Decimal("6.0") <= Decimal(rig.swarm()["costUsd"]) <= Decimal("7.2")
        assert 1.66 <= float(machines(rig)["hours"]) <= 2
        assert rig.ctx.world.swarms  # the same for metrics
        (info,) = rig.ctx.world.swarms.values()
        assert (info.rented, str(info.machines.cost)) == (2, machines(rig)["costUsd"])

    play(scenario)


def test_a_local_swarm_has_no_machines(play):
    async def scenario(rig):
        rig.apply(swarm(replicas=1))
        await rig.phase("Swarm", "builders", "Running")
        assert "machines" not in rig.swarm()
        assert "costUsd" not in rig.swarm()

    play(scenario)


def test_the_cost_of_models_and_machines_is_one_sum(play):
    async def scenario(rig):
        priced(rig, c7i_large="3600")
        uid = await running(rig)

        def use(job, record):
            tokens = {"input": 1_000_000, "output": 0, "total": 1_000_000}
            data = {"session": "s", "model": "gpt-5.4", "total": tokens}
            job.emit("usage", data, record["injection_id"])

        rig.cloud.script = use
        rig.apply(project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        rig.patch("Swarm", "builders", replicas=0)
        (one,) = rig.cloud.there(uid)
        await rig.until(lambda: not rig.cloud.live(), "the worker to go")
        rig.cloud.end(one.id)
        await rig.until(lambda: machines(rig)["count"] == 0, "the books", 20)
        await rig.pass_time(5)
        status = rig.swarm()
        rented = Decimal(status["machines"]["costUsd"])
        assert rented == seconds(rig) >= 60
        models = Decimal(status["costUsd"]) - rented
        assert models > 0
        assert models == Decimal(rig.project()["costUsd"]), "a project pays for no machine"
        assert status["pricingModel"] == "gpt-5.4"

    play(scenario)


def test_every_machine_counts_once_whatever_happens_to_the_controller(play):
    async def scenario(rig):
        priced(rig, c7i_large="1")
        uid = await running(rig)
        for number in range(6):
            (one,) = rig.cloud.there(uid)
            await rig.pass_time(100 + 37 * number)
            if number % 3 == 0:
                await rig.crash()
            rig.cloud.end(one.id)
            rig.cloud.job(rig.swarm()["workers"][0]["job"]).end("machine gone")
            if number % 3 == 0:
                rig.start()
            if number % 3 == 1:
                await rig.pass_time(1)
                await rig.crash()
                rig.start()
            await rig.until(rig.cloud.live, "another worker", 90)
        rig.delete("Swarm", "builders")
        await gone(rig)
        assert len(rig.cloud.rented[uid]) == 7
        exact = sum(max(60, -int(-m.until // 1) - int(m.since)) for m in rig.cloud.rented[uid])
        text = event(rig, "MachinesEnded")
        assert f"{Decimal(exact) / 3600:.2f} hours" in text

    play(scenario)


def test_a_lost_write_changes_no_sum(play):
    async def scenario(rig):
        priced(rig, c7i_large="1")
        uid = await running(rig, 2)
        await rig.pass_time(200)
        first, second = rig.cloud.there(uid)
        write, failures = rig.ctx.store.update_status, []

        async def failing(obj):
            if len(failures) < 3 and obj["kind"] == "Swarm":
                failures.append(obj)
                await asyncio.sleep(0)
                raise Conflict("it was changed")
            return await write(obj)

        rig.cloud.end(first.id)
        rig.ctx.store.update_status = failing
        await rig.until(lambda: machines(rig)["count"] == 1, "the books", 60)
        assert len(failures) == 3
        once = seconds(rig)
        assert 200 <= once <= 220
        rig.cloud.hides.add(first.id)
        await rig.pass_time(20)
        rig.cloud.hides.clear()
        await rig.pass_time(20)
        assert seconds(rig) == once
        assert [row["id"] for row in machines(rig)["running"]] == [second.id]

    play(scenario)


def test_a_provider_that_cannot_tell_keeps_nobody_waiting(play):
    async def scenario(rig):
        async def fail(handle):
            raise ProviderError("Throttled", "slow down")

        tell, rig.cloud.machines = rig.cloud.machines, fail
        await running(rig)
        assert not machines(rig)
        rig.cloud.machines = tell
        await rig.until(lambda: machines(rig).get("count") == 1, "the books", 30)

        async def hang(handle):
            await asyncio.sleep(1000)

        rig.cloud.machines = hang
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Succeeded", seconds=60)

    play(scenario)


def test_machines_count_without_contact_to_the_workers(play):
    async def scenario(rig):
        priced(rig, c7i_large="1")
        await running(rig)
        await rig.pass_time(30)
        rig.cloud.observe_error = ProviderUnreachable("CoordinatorLost", "it is gone")
        before = Decimal(machines(rig)["hours"])
        await rig.pass_time(3600)
        assert Decimal(machines(rig)["hours"]) - before >= Decimal("0.8")

    play(scenario)


def test_machines_use_up_a_budget_and_go_when_they_have_idled(play):
    async def scenario(rig):
        priced(rig, c7i_large="36")  # a cent a second
        uid = await running(rig, budget={"maxCostUsd": "10"})
        rig.cloud.turn_seconds = 100_000
        rig.apply(prompt("p"))
        await rig.phase("Task", "p", "Running")
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "WithinBudget")["status"] == "False",
            "the budget to be used up", 1700,
        )  # fmt: skip
        found = rig.condition("Swarm", "builders", "WithinBudget")
        assert found["reason"] == "BudgetExceeded"
        assert "of them for machines" in found["message"]
        await rig.until(lambda: rig.task("p")["attempts"][0]["state"] != "Running", "its end", 30)
        await rig.pass_time(500)
        assert rig.cloud.live(), "somebody may raise it"
        await rig.until(lambda: not rig.cloud.live(), "the workers to go", 200)
        available = rig.condition("Swarm", "builders", "Available")
        assert available["reason"] == "BudgetExceeded"
        assert len(rig.cloud.there(uid)) == 1, "machines end by their provider's own rules"
        rig.patch("Swarm", "builders", budget={"maxCostUsd": "1000"})
        await rig.until(rig.cloud.live, "a worker again", 30)

    play(scenario)


def test_without_a_price_a_cost_limit_stops_turns_and_says_what_to_do(play):
    async def scenario(rig):
        await running(rig, budget={"maxCostUsd": "10"})
        rig.apply(prompt("p"))
        await rig.until(
            lambda: rig.condition("Swarm", "builders", "WithinBudget").get("reason") == "Unpriced",
            "it to be said", 20,
        )  # fmt: skip
        found = rig.condition("Swarm", "builders", "WithinBudget")["message"]
        assert "c7i.large" in found
        assert "instancePricing" in found
        assert rig.swarm()["costUsd"] == "unpriced"
        await rig.until(lambda: rig.task("p").get("reason") == "Unpriced", "the prompt to wait", 20)
        priced(rig, c7i_large="0.09")
        await rig.crash()
        rig.start()
        await rig.phase("Task", "p", "Succeeded", seconds=20)

    play(scenario)


def test_the_end_tells_what_all_of_it_came_to(play):
    async def scenario(rig):
        priced(rig, c7i_large="3.6")
        await running(rig, 2)
        await rig.pass_time(1800)
        rig.delete("Swarm", "builders")
        await gone(rig)
        text = event(rig, "MachinesEnded")
        hours, cost = text.split(" hours: ")
        assert 1.0 <= float(hours.split()[-1]) <= 1.02
        assert 3.6 <= float(cost.split()[0]) <= 3.7

    play(scenario)


def test_abandoned_machines_are_named(play):
    async def scenario(rig):
        uid = await running(rig)
        await rig.pass_time(10)
        (one,) = rig.cloud.there(uid)
        rig.cloud.cut = rig.cloud.away = True
        annotate(rig, "abandon")
        rig.delete("Swarm", "builders")
        await gone(rig, 20)
        assert one.id in event(rig, "Abandoned")
        assert not rig.reasons()["MachinesEnded"]

    play(scenario)


def test_a_move_leaves_no_machine_uncounted(play):
    async def scenario(rig):
        priced(rig, c7i_large="1")
        uid = await running(rig)
        await rig.pass_time(300)
        (old,) = rig.cloud.there(uid)
        rig.patch("Swarm", "builders", provider={"aws": {**AWS["aws"], "region": "eu-west-1"}})
        await rig.until(lambda: old.id not in {m.id for m in rig.cloud.there(uid)}, "the old", 60)
        await rig.phase("Swarm", "builders", "Running")
        await rig.pass_time(10)
        (gone_one,) = [m for m in rig.cloud.rented[uid] if m.id == old.id]
        assert seconds(rig) == -int(-gone_one.until // 1) - int(old.since)

    play(scenario)
