"""A project's integration: what it takes in, and what is told of it."""

from __future__ import annotations

import json

from tests.lab import project, swarm, work
from tests.reconcile.given import applied


def test_more_heads_than_one_integration_takes(play):
    async def scenario(rig):
        rig.provider.turn_seconds = 0.01
        rig.apply(swarm(replicas=20), project())
        for number in range(1203):
            rig.apply(applied(f"demo.t{number}"))
        await rig.phase("Project", "demo", "Completed", seconds=2000)
        status = rig.project()["integration"]
        assert (status["merged"], status["total"]) == (1203, 1203)
        assert len(rig.task("demo.integration")["attempts"]) == 2
        spec = rig.get("Task", "demo.integration")["spec"]
        assert len(spec["integration"]["heads"]) == 203
        writes = len(rig.store.writes)
        await rig.crash()
        rig.start()
        await rig.pass_time(400)
        assert rig.project()["phase"] == "Completed"
        assert len(rig.store.writes) - writes <= 2

    play(scenario)


def test_an_integration_starts_again_when_a_head_changes_while_it_runs(play):
    async def scenario(rig):
        def slow(job, record):
            return None

        rig.provider.script = slow
        rig.apply(swarm(), project(tasks=[work("a"), work("b")]))
        await rig.until(lambda: rig.get("Task", "demo.integration"), "the integration")
        rig.apply(project(tasks=[work("a"), work("b", 'say: "more"')]))
        await rig.phase("Project", "demo", "Completed")
        heads = rig.get("Task", "demo.integration")["spec"]["integration"]["heads"]
        assert {h["task"]: h["commit"] for h in heads} == {
            name: rig.task(f"demo.{name}")["headCommit"] for name in "ab"
        }

    play(scenario)


def test_a_blocked_integration_is_for_a_person_to_decide(play):
    async def scenario(rig):
        def blocked(job, record):
            if record["task"]["kind"] != "integration":
                return None
            return {
                "answer": "TASK_RESULT\n"
                + json.dumps(
                    {"task_id": "integration", "status": "blocked", "notes": "a key is missing"}
                )
            }

        rig.provider.script = blocked
        obj = project(tasks=[work("a")])
        del obj["spec"]["integration"]
        rig.apply(swarm(), obj)
        await rig.phase("Project", "demo", "Attention")
        assert rig.condition("Project", "demo", "NeedsAttention")["reason"] == "Blocked"
        assert rig.condition("Project", "demo", "Stalled")["status"] == "False"

    play(scenario)


def test_merges_are_told_the_same_after_a_restart(play):
    async def scenario(rig):
        def merge(job, record):
            for head in (record.get("integration") or {}).get("merges", ()):
                job.emit(
                    "command_completed",
                    {
                        "source": "merge",
                        "task": head["task"],
                        "commit": head["commit"],
                        "state": "already",
                    },
                    record["injection_id"],
                )

        rig.provider.script = merge
        rig.apply(swarm(), project(tasks=[work("a")]))
        await rig.phase("Project", "demo", "Completed")
        assert [m["state"] for m in rig.project()["integration"]["merges"]] == ["already"]
        await rig.crash()
        rig.start()
        await rig.pass_time(60)
        assert [m["state"] for m in rig.project()["integration"]["merges"]] == ["already"]

    play(scenario)
