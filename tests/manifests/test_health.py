"""Argo CD's health checks, run by the Lua that it runs them with (5.1, base and table only)."""

from __future__ import annotations

import pytest
import yaml
from lupa import lua51

from controller.resources.conditions import initial_conditions
from controller.resources.kinds import GROUP, kinds
from tests.manifests.documents import MANIFESTS, ROOT, load

(CHECKS,) = load(MANIFESTS / "argocd" / "argocd-cm.yaml")
PREFIX = "resource.customizations.health.codeswarm.dev_"
FULL = yaml.safe_load((ROOT / "tests" / "resources" / "status.yaml").read_text())
STATES = {"Healthy", "Progressing", "Degraded", "Suspended", "Unknown"}


def judge(kind, status, spec=None, generation=2):
    """What Argo CD shows of an object."""
    runtime = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    names = runtime.globals()
    for library in ("string", "math", "io", "debug", "package", "coroutine", "python"):
        names[library] = None
    obj = {"metadata": {"name": "x", "generation": generation}, "spec": spec or {}}
    if status is not None:
        obj["status"] = status
    names.obj = runtime.table_from(obj, recursive=True)
    answer = runtime.execute(CHECKS["data"][PREFIX + kind])
    assert answer.status in STATES
    assert answer.message
    return answer.status, answer.message


def conditions(**given):
    """Conditions as ``Type="Status Reason"``."""
    return [
        {"type": type_, "status": text.split()[0], "reason": text.split()[1], "message": ""}
        for type_, text in given.items()
    ]


def seen(**given):
    status = {name: value for name, value in given.items() if name[0].islower()}
    rest = {name: value for name, value in given.items() if name[0].isupper()}
    return {"observedGeneration": 2, "conditions": conditions(**rest), **status}


def test_every_kind_has_a_check():
    ours = {kind.kind for kind in kinds() if kind.group == GROUP}
    assert {name.removeprefix(PREFIX) for name in CHECKS["data"]} == ours


@pytest.mark.parametrize("kind", ["Swarm", "Project", "Task", "Approval"])
def test_what_the_controller_has_not_looked_at_is_on_its_way(kind):
    first = initial_conditions(kind, generation=1, now="2026-01-02T03:04:05Z")
    expected = "Suspended" if kind == "Approval" else "Progressing"
    assert judge(kind, None)[0] == "Progressing"
    assert judge(kind, {})[0] == "Progressing"
    assert judge(kind, {"observedGeneration": 1, "conditions": first})[0] == "Progressing"
    assert judge(kind, {"observedGeneration": 2, "conditions": first})[0] == expected


@pytest.mark.parametrize("kind", ["Swarm", "Project", "Task", "Approval"])
def test_an_old_verdict_does_not_count(kind):
    status = seen(Ready="True WorkersReady", Complete="True Completed", Delivered="True Confirmed")
    status["outcome"] = "approve"
    assert judge(kind, status)[0] == "Healthy"
    assert judge(kind, status, generation=3)[0] == "Progressing"


@pytest.mark.parametrize("kind", ["Swarm", "Project", "Task", "Approval"])
def test_a_full_status_gets_a_verdict(kind):
    judge(kind, FULL[kind])


SWARMS = {
    "True WorkersReady": "Healthy",
    "False Progressing": "Progressing",
    "False Terminating": "Progressing",
    "False Failed": "Degraded",
    "False SwarmClassNotFound": "Degraded",
    "Unknown ProviderUnreachable": "Unknown",
    "Unknown NotSeen": "Progressing",
}


@pytest.mark.parametrize("ready", SWARMS)
def test_swarms(ready):
    health, message = judge("Swarm", seen(Ready=ready))
    assert health == SWARMS[ready]
    assert ready.split()[1] in message or health == "Progressing"


def test_a_swarm_without_budget_waits_for_a_person():
    status = seen(Ready="True WorkersReady", WithinBudget="False BudgetExceeded")
    assert judge("Swarm", status) == ("Suspended", "BudgetExceeded")


def project(**given):
    defaults = {
        "Accepted": "True Accepted",
        "WithinBudget": "True NoLimit",
        "NeedsAttention": "False NothingToDecide",
        "Complete": "False InProgress",
        "Failed": "False NotFailed",
        "Stalled": "False NotStalled",
        "phase": "Running",
        "progress": "1/3",
    }
    return seen(**{**defaults, **given})


PROJECTS = [
    ({}, "Progressing", "Running: 1/3 tasks done"),
    ({"Complete": "True Completed"}, "Healthy", "Completed"),
    (
        {"Failed": "True TasksFailed", "Stalled": "True TasksFailed"}
        | {"NeedsAttention": "True TasksFailed"},
        "Degraded",
        "TasksFailed",
    ),
    ({"NeedsAttention": "True Blocked"}, "Suspended", "Blocked"),
    ({"Accepted": "False RepositoryNotFound"}, "Degraded", "RepositoryNotFound"),
    ({"Accepted": "Unknown RepositoryUnreadable"}, "Unknown", "RepositoryUnreadable"),
    ({"Complete": "True Completed", "Accepted": "Unknown X"}, "Healthy", "Completed"),
    ({"WithinBudget": "False Unpriced"}, "Suspended", "Unpriced"),
]


@pytest.mark.parametrize(("given", "health", "message"), PROJECTS)
def test_projects(given, health, message):
    assert judge("Project", project(**given)) == (health, message)


def test_a_suspended_project_is_suspended_until_it_is_complete():
    assert judge("Project", project(), {"suspend": True})[0] == "Suspended"
    done = project(Complete="True Completed")
    assert judge("Project", done, {"suspend": True})[0] == "Healthy"


def task(**given):
    defaults = {"Accepted": "True Accepted", "Complete": "False X", "Failed": "False X"}
    return seen(**{**defaults, **given})


def blocked(reason):
    return {"phase": "Waiting", "blocker": {"reason": reason, "message": "since"}}


TASKS = [
    ({"phase": "Running"}, "Progressing", "Running"),
    ({"Complete": "True Succeeded"}, "Healthy", "Succeeded"),
    ({"phase": "Failed", "Failed": "True RetriesExhausted"}, "Degraded", "RetriesExhausted"),
    ({"phase": "Cancelled", "Failed": "True Cancelled"}, "Suspended", "Cancelled"),
    ({"Accepted": "False ConfigMapNotFound"}, "Degraded", "ConfigMapNotFound"),
    (blocked("NoIdleWorker"), "Progressing", "NoIdleWorker: since"),
    (blocked("Suspended"), "Suspended", "Suspended: since"),
    (blocked("BudgetExceeded"), "Suspended", "BudgetExceeded: since"),
]


@pytest.mark.parametrize(("given", "health", "message"), TASKS)
def test_tasks(given, health, message):
    assert judge("Task", task(**given)) == (health, message)


APPROVALS = [
    ({"Decided": "False Waiting", "Delivered": "False NotDecided"}, "Suspended"),
    ({"Decided": "True Person", "Delivered": "False Sending"}, "Progressing"),
    (
        {"Decided": "True Person", "Delivered": "True Confirmed", "outcome": "approve"},
        "Healthy",
    ),
    (
        {"Decided": "True Expiry", "Delivered": "False QuestionGone", "expired": True},
        "Healthy",
    ),
]


@pytest.mark.parametrize(("given", "health"), APPROVALS)
def test_approvals(given, health):
    assert judge("Approval", seen(**given))[0] == health


def test_a_class_is_healthy():
    assert judge("SwarmClass", None)[0] == "Healthy"
