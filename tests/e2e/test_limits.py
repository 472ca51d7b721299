"""Limits of the configuration hold for everything that the controller does."""

from __future__ import annotations

from tests.lab import Lab, swarm


def test_no_more_workers_than_this_machine_may_have(lab: Lab) -> None:
    lab.home.config.write_text("limits: {localWorkers: 3}\n")
    lab.start()
    lab.apply(swarm("first", 2))
    lab.wait_phase("Swarm", "first", "Running")
    lab.apply(swarm("second", 2))

    def limited() -> bool:
        ready = lab.swarm("second").get("readyReplicas") == 1
        return ready and lab.condition("Swarm", "second", "Available")["reason"] == "WorkerLimit"

    lab.wait(limited, "one worker, and the limit to be named")
    lab.patch("Swarm", "first", lambda o: o["spec"].update(replicas=1))
    lab.wait_phase("Swarm", "second", "Running")
