"""What real workers use, priced, shown and limited while their turns run."""

from __future__ import annotations

import time

from controller.resources.price_list import built_in
from tests.lab import Lab, project, prompt, script, swarm, work

OWN = '{inputTokensUsdPerM: "2", cachedInputTokensUsdPerM: "0.5", outputTokensUsdPerM: "10"}'
USE = "usage: {inputTokens: 1000, cachedInputTokens: 400, outputTokens: 100}"


def test_prices_of_the_configuration_and_of_the_list_in_one_project(lab: Lab) -> None:
    lab.repository()
    lab.home.config.write_text(f"modelPricing:\n  Our/Model-1: {OWN}\n")
    lab.start()
    tasks = [work("a", USE), work("b", USE, depends_on=["a"])]
    lab.apply(
        swarm(agent={"runtime": "mock", "model": "our-model_1"}, replicas=1),
        swarm("listed", agent={"runtime": "mock", "pricingModel": "gpt-5.4"}, replicas=1),
        swarm("nameless", replicas=1),
        project(tasks=tasks),
    )
    lab.wait_phase("Project", "demo", "Completed")
    for name in ("listed", "nameless"):
        lab.apply(prompt(name, script(USE), swarm=name))
        lab.wait_phase("Task", name, "Succeeded")
    assert built_in()["gpt54"].input  # 600 * 2.5 + 400 * 0.25 + 100 * 15 for a million
    assert lab.task("demo.a")["costUsd"] == "0.0024"
    assert (lab.task("listed")["costUsd"], lab.task("listed")["pricingModel"]) == (
        "0.0031",
        "gpt-5.4",
    )
    assert lab.task("nameless")["costUsd"] == "unpriced"
    lab.wait(lambda: lab.project("demo").get("costUsd") == "0.0048", "the project's cost")
    assert lab.project("demo")["pricingModel"] == "Our/Model-1"
    lab.wait(lambda: lab.swarm("builders").get("costUsd") == "0.0048", "the swarm's cost")
    lab.wait(lambda: lab.swarm("nameless").get("costUsd") == "unpriced", "what has no price")


def test_a_turn_that_runs_is_ended_at_the_limit(lab: Lab) -> None:
    lab.start()
    budget = {"maxCostUsd": "0.01"}
    lab.apply(swarm(replicas=1, agent={"runtime": "mock", "model": "gpt-5.4"}, budget=budget))
    lab.wait_phase("Swarm", "builders", "Running")
    begun = time.monotonic()
    lab.apply(prompt("p", script(USE, USE, USE, USE, "sleep: 60")))
    lab.wait(lambda: lab.task("p").get("blocker", {}).get("reason") == "BudgetExceeded", "its end")
    assert time.monotonic() - begun < 20
    (attempt,) = lab.task("p")["attempts"]
    assert (attempt["class"], attempt["costUsd"]) == ("Superseded", "0.0124")
    lab.stop()
    lab.start()
    lab.wait(
        lambda: lab.condition("Swarm", "builders", "WithinBudget")["reason"] == "BudgetExceeded",
        "the condition",
    )
    assert len(lab.task("p")["attempts"]) == 1
    lab.patch("Swarm", "builders", lambda o: o["spec"].update(budget={"maxCostUsd": "9"}))
    lab.wait(lambda: len(lab.task("p")["attempts"]) == 2, "another attempt")
