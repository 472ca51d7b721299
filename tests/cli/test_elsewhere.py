"""What the command line says of workers on other machines: in a queue, suspended, out of reach."""

from __future__ import annotations

from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import condition, prompt, seed, swarm, swarm_status

LATER = ("Available", "RolledOut", "QuotaAvailable", "WithinBudget", "Ready")
AWAY = condition(
    "ProviderReachable", "False", "HostNotFound", "login host 'lab' cannot be resolved; check it"
)


def seed_swarm(db: Database, *conditions: dict, **status: object) -> None:
    rest = [condition("Accepted", "True"), *conditions]
    obj = swarm()
    seed(db, obj, swarm_status(conditions=rest, **status))


def test_a_host_out_of_reach_is_told_wherever_one_looks(run: Run, db: Database) -> None:
    rest = [condition(t, "Unknown", "ProviderUnreachable", AWAY["message"]) for t in LATER]
    seed_swarm(db, AWAY, *rest, workers=[], reason="HostNotFound", phase="Pending")
    seed(db, prompt("p", target={"swarm": "builders"}))
    assert "HostNotFound" in run("get", "swarms").stdout
    assert "cannot be resolved" in run("status").stdout
    assert "because HostNotFound: login host 'lab'" in run("explain", "swarm/builders").stdout
    told = run("explain", "p").stdout
    assert "because ProviderUnreachable" in told and "cannot be resolved" in told


def at_work(*conditions: dict) -> dict:
    attempt = {
        "number": 1, "revision": 1, "injectionId": "i.1", "swarm": "builders", "worker": 0,
        "job": "j0", "state": "Running", "assignedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    rest = [condition("Accepted", "True"), *conditions]
    return {"phase": "Running", "attempts": [attempt], "conditions": rest}


def test_a_task_at_work_says_that_nothing_is_heard_of_it(run: Run, db: Database) -> None:
    seed_swarm(db, AWAY)
    seed(db, prompt("p", target={"swarm": "builders"}), at_work())
    told = run("explain", "p").stdout
    assert "Running (attempt 1)" in told
    assert "builders is out of reach: HostNotFound: login host 'lab'" in told


def test_a_task_says_that_its_repository_is_on_its_way(run: Run, db: Database) -> None:
    seed_swarm(db, condition("ProviderReachable", "True"))
    home = condition("BranchDurable", "Unknown", "BringingHome", "carrying the work from lab")
    seed(db, prompt("p", target={"swarm": "builders"}), at_work(home))
    told = run("explain", "p").stdout
    assert "BranchDurable is Unknown because BringingHome: carrying the work from lab" in told


def test_a_refused_submission_is_told(run: Run, db: Database) -> None:
    refused = condition("Available", "False", "PartitionNotFound", "there is no partition a100")
    seed_swarm(db, condition("ProviderReachable", "True"), refused, workers=[], phase="Launching")
    assert "no partition a100" in run("status").stdout
    assert "because PartitionNotFound" in run("explain", "swarm/builders").stdout


def test_workers_in_a_queue_or_suspended_say_why(run: Run, db: Database) -> None:
    rows = [
        {"index": 0, "job": "j0", "phase": "Starting", "reason": "Resources"},
        {"index": 1, "job": "j1", "phase": "Busy", "reason": "Suspended"},
    ]
    note = "1 of 2 workers are ready; 1 waits in the queue: Resources (1)"
    seed_swarm(
        db,
        condition("ProviderReachable", "True"),
        condition("Available", "False", "Launching", note),
        workers=rows,
    )
    told = run("explain", "swarm/builders").stdout
    assert note in told
    assert "worker 0 is Starting (Resources)" in told and "worker 1 is Busy (Suspended)" in told
    described = run("describe", "swarm", "builders").stdout
    assert "Resources" in described and "Suspended" in described


def test_a_swarm_is_let_go_only_if_asked(run: Run, db: Database) -> None:
    for name in ("one", "two"):
        obj = swarm(name)
        obj["metadata"]["finalizers"] = ["codeswarm.dev/workers"]
        seed(db, obj, swarm_status())
    run("delete", "swarm", "one", "--abandon")
    run("delete", "swarm", "two", "--force")
    marks = {
        name: (run_annotations(db, name)).get("codeswarm.dev/abandon") for name in ("one", "two")
    }
    assert marks == {"one": "true", "two": None}


def run_annotations(db: Database, name: str) -> dict[str, str]:
    obj = next(o for o in db.list("Swarm") if o["metadata"]["name"] == name)
    return dict(obj["metadata"].get("annotations") or {})
