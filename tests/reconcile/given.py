"""What users apply, what planners answer, and a swarm that is up."""

from __future__ import annotations

import json

from controller.repository.problems import RepositoryProblem, RepositoryReason
from tests.lab import API, project, swarm

PLAN = {"tasks": [{"task_id": "T1", "title": "t", "prompt": "Do it."}]}
UNREADABLE = RepositoryProblem(RepositoryReason.UNREADABLE, "no route to host")


def applied(name, **spec):
    """A Task object of a project, as a user applies it."""
    return {"apiVersion": API, "kind": "Task", "metadata": {"name": name},
            "spec": {"project": "demo", "prompt": "Do it.", **spec}}  # fmt: skip


def answer(plan):
    return "TASK_GRAPH_JSON\n" + json.dumps(plan)


async def ready(rig, replicas=1, **spec):
    rig.apply(swarm(replicas=replicas, **spec))
    await rig.until(lambda: rig.swarm().get("readyReplicas") == replicas, "workers")


def planned(**spec):
    return project(planner={"swarm": "planners", "specification": "Something.", **spec})


def plans(plan=PLAN):
    def script(job, record):
        return {"answer": answer(plan)} if record["task"]["kind"] == "plan" else None

    return script
