"""``describe``, ``explain``, ``project resume-preview``: objects for people."""

from __future__ import annotations

import re
import shlex
import time
from datetime import UTC, datetime

import pytest

from controller.runtime.home import Home
from controller.store.base import Key
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import (
    AT,
    COMMIT,
    attempt,
    condition,
    manifest,
    project,
    project_status,
    prompt,
    seed,
    set_status,
    swarm,
    swarm_status,
    task,
)

VOLATILE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z \(3h ago\)|(?<=\s)\d+[dy]\S*"
)


def shown(run: Run, *words: str) -> list[str]:
    """The output, without what differs from run to run."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    lines = [VOLATILE.sub("~", line) for line in result.stdout.splitlines()]
    return [re.sub(r" {2,}", "  ", line) for line in lines]


def test_describe_a_task(run: Run, db: Database) -> None:
    failed = attempt(
        1, "Failed", **{"class": "Task"}, reason="AgentFailed", message="it broke", finishedAt=AT
    )
    seed(
        db,
        task("greeter.library", prompt="\n".join(f"line {n}" for n in range(9))),
        {
            "phase": "Waiting",
            "blocker": {
                "reason": "NoIdleWorker",
                "message": "no worker of swarm builders is idle",
                "on": {"kind": "Swarm", "name": "builders"},
            },
            "branch": "codeswarm/greeter/library",
            "headCommit": COMMIT,
            "filesChanged": ["a.py", "b\x1b.py"],
            "filesChangedCount": 2,
            "answer": 'All well.\nTASK_RESULT\n{"status": "failed", "notes": "no key"}',
            "usage": {"totalTokens": 1050, "inputTokens": 1000, "outputTokens": 50},
            "costUsd": "0.12",
            "pricingModel": "gpt-5.4",
            "attempts": [failed],
            "conditions": [condition("Failed", "False"), condition("Accepted", "True", "Accepted")],
        },
    )
    db.record_event(Key("Task", "default", "greeter.library"), "Warning", "Retried", "once more")
    assert shown(run, "describe", "task", "greeter.library") == [
        "Name:  greeter.library",
        "Namespace:  default",
        "Labels:  codeswarm.dev/project=greeter",
        "Annotations:  <none>",
        "API Version:  codeswarm.dev/v1alpha1",
        "Kind:  Task",
        "UID:  ~",
        "Created:  ~",
        "Phase:  Waiting",
        "Spec:",
        "  Project:  greeter",
        "  Prompt:",
        *[f"  line {n}" for n in range(6)],
        "  ... (3 lines more)",
        "  Revision:  1",
        "  When Busy:  queue",
        "  Priority:  0",
        "  Suspend:  false",
        "  Cancel:  false",
        "Status:",
        "  Waits:  NoIdleWorker: no worker of swarm builders is idle (swarm/builders)",
        "  Branch:  codeswarm/greeter/library",
        "  Head:  0123456789",
        "  Tokens:  1,050 (1,000 in, 50 out)",
        "  Cost:  $0.1200 (gpt-5.4)",
        "Files Changed (2):",
        "  a.py",
        "  b�.py",
        "Answer:",
        "  All well.",
        "  reports failed: no key",
        "Attempts:",
        "  NUMBER  STATE  CLASS  WORKER  STARTED  TOOK  HEAD  COST  REASON",
        "  1  Failed  Task  builders/0  ~  0.0s  AgentFailed: it broke",
        "Conditions:",
        "  TYPE  STATUS  REASON  SINCE  MESSAGE",
        "  Accepted  True  Accepted  ~",
        "  Failed  False  Because  ~",
        "Events:",
        "  TYPE  REASON  AGE  MESSAGE",
        "  Warning  Retried  3h  once more",
    ]


def test_describe_a_swarm_and_a_project(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    seed(
        db,
        project(),
        project_status(
            attention=["greeter.library"],
            integration={
                "state": "Running",
                "merges": [{"task": "library", "state": "merged", "commit": COMMIT}],
            },
        ),
    )
    seed(db, task("greeter.library"), {"phase": "Running", "attempts": [attempt()]})
    lines = shown(run, "describe", "swarm/builders", "project/greeter")
    assert "  0  Busy  greeter.library  builders-1a2b3c4d-0-1  ~" in lines
    assert "  Tasks:  2 (below)" in lines
    assert "  Needs attention:  greeter.library" in lines
    assert "  greeter.library  Running  1" in lines
    assert "  library  merged  0123456789" in lines
    assert lines.count("Events:  <none>") == 2


def test_describe_tells_what_machines_cost(run: Run, db: Database) -> None:
    machines = {"count": 2, "hours": "3.25", "costUsd": "2.3205", "running": [], "ended": []}
    made = seed(db, swarm(), swarm_status(machines=machines, costUsd="14.7"))
    lines = shown(run, "describe", "swarm/builders")
    assert "  Machines:  2, 3.25 hours so far, $2.33 of its cost" in lines
    machines |= {"costUsd": "unpriced", "unpriced": ["c7i.4xlarge"]}
    set_status(db, made, machines=machines)
    lacks = "without a price in instancePricing: c7i.4xlarge"
    assert f"  Machines:  2, 3.25 hours so far, {lacks}" in shown(run, "describe", "swarm/builders")


def test_describe_tells_where_an_agents_environment_comes_from(run: Run, db: Database) -> None:
    env = [{"name": "API_KEY", "valueFrom": {"env": "K"}}, {"name": "MODE"}]
    agent = {"runtime": "mock", "envProfile": "gateway", "env": env, "persona": {"path": "./p"}}
    seed(db, swarm(), swarm_status(effective={"provider": {"local": {}}, "agent": agent}))
    lines = shown(run, "describe", "swarm/builders")
    assert "  Environment:  profile gateway; API_KEY; MODE" in lines
    assert "  Persona:  ./p" in lines


def test_events_of_an_object_before_are_not_shown(run: Run, home: Home, db: Database) -> None:
    seed(db, swarm())
    key = Key("Swarm", "default", "builders")
    db.record_event(key, "Warning", "WorkerLost", "of the first one")
    db.delete(key)
    with Database(home.state) as now:
        seed(now, swarm())
        now.record_event(key, "Normal", "Running", "of the second one")
    out = run("describe", "swarm", "builders").stdout
    assert "of the second one" in out
    assert "of the first one" not in out


def test_describe_hides_secrets(run: Run, db: Database) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key"},
        "stringData": {"api-key": "hush"},
    }
    seed(db, secret)
    out = run("describe", "secret", "key").stdout
    assert "api-key   4" in out
    assert "hush" not in out
    assert "aHVzaA" not in out


def test_explain_follows_the_chain(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status())
    seed(db, task("greeter.library"), {"phase": "Running", "attempts": [attempt()]})
    seed(db, task("greeter.command", ("library",)), {"phase": "Waiting"})
    assert run("explain", "task/greeter.command").stdout.splitlines() == [
        "task/greeter.command is Waiting",
        "because DependencyNotDone: waits for greeter.library, which is Running (attempt 1)",
        "  task/greeter.library: Running (attempt 1) on builders/0",
        "no controller runs, so nothing will change: start it with `codeswarm up`",
    ]
    out = run("explain", "project/greeter").stdout
    assert "  task/greeter.library: Running (attempt 1) on builders/0" in out
    assert "    because DependencyNotDone: waits for greeter.library" in out


def test_explain_what_failed_or_is_done(run: Run, db: Database) -> None:
    why = condition("Failed", "True", "RetriesExhausted", "failed in 3 attempts")
    made = seed(db, task("greeter.library"), {"phase": "Failed", "conditions": [why]})
    out = run("explain", "task/greeter.library").stdout.splitlines()
    assert out[:2] == [
        "task/greeter.library is Failed",
        "because RetriesExhausted: failed in 3 attempts",
    ]
    assert "codeswarm retry greeter.library" in out[2]
    set_status(db, made, phase="Succeeded", conditions=[condition("Complete", "True")])
    assert run("explain", "ct/greeter.library").stdout == "task/greeter.library is Succeeded\n"


def test_explain_a_swarm(run: Run, db: Database) -> None:
    workers = [{"index": 0, "phase": "Starting", "job": "j", "reason": "Booting"}]
    conditions = [condition("Ready", "False", "NotReady", "0 of 2 are ready")]
    status = swarm_status(phase="Launching", workers=workers, conditions=conditions)
    seed(db, swarm(), status)
    assert run("explain", "swarm/builders").stdout.splitlines()[:3] == [
        "swarm/builders is Launching",
        "because NotReady: 0 of 2 are ready",
        "  worker 0 is Starting (Booting)",
    ]


def test_explain_a_refused_project_says_why_once(run: Run, db: Database) -> None:
    why = "x cannot be read:\nfatal: no route"
    conditions = [
        condition("UpToDate", "Unknown", "RepositoryUnreadable", why),
        condition("Planned", "Unknown", "RepositoryUnreadable"),
        condition("Integrated", "False", "WaitingForTasks"),
        condition("Accepted", "Unknown", "RepositoryUnreadable", why),
    ]
    seed(db, project(), project_status(phase="Pending", conditions=conditions))
    seed(db, task("greeter.library"), {"phase": "Waiting"})
    assert run("explain", "project/greeter").stdout.splitlines()[:-1] == [
        "project/greeter is Pending",
        "because RepositoryUnreadable: x cannot be read:",
        "  fatal: no route",
    ]


def test_explain_a_failed_project(run: Run, db: Database) -> None:
    conditions = [
        condition("Accepted", "True"),
        condition("Integrated", "False", "WaitingForTasks"),
        condition("Complete", "False", "Failed"),
        condition("Failed", "True", "TasksFailed", "1 task failed"),
    ]
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status(phase="Failed", conditions=conditions))
    failed = [condition("Failed", "True", "RetriesExhausted", "no compiler")]
    seed(db, task("greeter.command", ("library",)), {"phase": "Waiting"})
    gone = {"phase": "Failed", "reason": "RetriesExhausted", "conditions": failed}
    seed(db, task("greeter.library"), gone)
    assert run("explain", "greeter").stdout.splitlines() == [
        "project/greeter is Failed",
        "because TasksFailed: 1 task failed",
        "  task/greeter.library: Failed (RetriesExhausted: no compiler)",
        "  task/greeter.command: Waiting",
        "    because DependencyFailed: depends on greeter.library, which is Failed "
        "(RetriesExhausted)",
    ]


def test_explain_a_pause_between_attempts(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status())
    soon = datetime.fromtimestamp(time.time() + 45, UTC).isoformat()
    lost = attempt(1, "Failed", reason="ReportedFailed", message="no compiler")
    seed(
        db, task("greeter.library"), {"phase": "Waiting", "attempts": [lost], "nextAttemptAt": soon}
    )
    lines = run("explain", "greeter.library").stdout.splitlines()
    assert lines[1].startswith("because Backoff: attempt 2 begins not before ")
    assert re.fullmatch(r"  that is in 4[0-5] s", lines[2])
    assert lines[3] == "  attempt 1 failed: ReportedFailed: no compiler"


def test_explain_a_question(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    seed(db, prompt("ask"), {"phase": "Running", "attempts": [attempt()]})
    request = {
        "id": "u.1/1", "task": "ask", "taskUid": "u", "attempt": 1, "injectionId": "u.1",
        "swarm": "builders", "worker": 0, "job": "j", "kind": "command", "command": "rm x",
        "reason": "why not", "decisions": ["approve", "deny"], "defaultDecision": "deny",
        "askedAt": AT, "expiresAt": AT,
    }  # fmt: skip
    seed(db, manifest("Approval", "ask.1.ab", {"request": request}), {"phase": "Pending"})
    lines = run("explain", "task/ask").stdout.splitlines()
    assert lines[1:4] == [
        "because it asks for approval (approval/ask.1.ab): rm x",
        "  its reason: why not",
        "  answer with one of approve, deny:",
    ]
    answer = shlex.split(lines[4])
    assert answer == ["codeswarm", "approve", "ask.1.ab"]
    assert run(*answer[1:]).exit_code == 0
    approval = db.get(Key("Approval", "default", "ask.1.ab"))
    assert approval is not None
    assert approval["spec"]["decision"]["value"] == "approve"
    assert "asks for approval" not in run("explain", "task/ask").stdout


def test_explain_fields(run: Run) -> None:
    out = run("explain", "swarm.spec.agent").stdout
    assert "KIND:       Swarm" in out
    assert "FIELD: agent <Object>" in out
    assert re.search(r"^  runtime\t<string>$", out, re.MULTILINE)
    assert "  url\t<string> -required-" in run("explain", "proj.spec.repository").stdout
    listed = run("explain", "project.spec.tasks").stdout
    assert "FIELD: tasks <[]Object>" in listed
    assert "  name\t<string> -required-" in listed
    limited = run("explain", "swarm.spec.agent.runtime").stdout
    assert "One of: codex, claude, mock" in limited


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("swarm.spec.agnt", 'swarm.spec has no field "agnt"; did you mean "agent"?'),
        ("secret", "kubectl explain secrets"),
        ("nothing", 'has the name "nothing" (task, project, swarm)'),
        ("task/nope", 'task "nope" not found'),
    ],
)
def test_explain_what_is_not_there(run: Run, db: Database, what: str, message: str) -> None:
    result = run("explain", what)
    assert result.exit_code == 1
    assert message in result.stderr


def test_resume_preview(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    durable = condition("BranchDurable", "False", "BranchLost", "the head is in no branch")
    names = ["kept", "lost", "running", "orphaned", "waiting", "failed", "new"]
    tasks = [{"name": name, "prompt": "Do."} for name in names]
    owner = seed(db, project(tasks=tasks), project_status())
    seed(db, task("greeter.kept"), {"phase": "Succeeded", "headCommit": COMMIT})
    seed(db, task("greeter.lost"), {"phase": "Succeeded", "conditions": [durable]})
    seed(db, task("greeter.running"), {"phase": "Running", "attempts": [attempt()]})
    gone = attempt(job="builders-1a2b3c4d-0-0")
    seed(db, task("greeter.orphaned"), {"phase": "Running", "attempts": [gone]})
    seed(db, task("greeter.waiting"), {"phase": "Waiting"})
    seed(db, task("greeter.failed"), {"phase": "Failed", "reason": "RetriesExhausted"})
    leftover = task("greeter.leftover")
    leftover["metadata"]["ownerReferences"] = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": "Project",
            "name": "greeter",
            "uid": owner["metadata"]["uid"],
        }
    ]
    seed(db, leftover)
    revision = db.revision()
    rows = shown(run, "project", "resume-preview", "greeter")
    assert rows == [
        "TASK  NOW  NEXT",
        "greeter.kept  Succeeded  kept at 0123456789",
        "greeter.lost  Succeeded  goes back to Pending: the head is in no branch",
        "greeter.running  Running (attempt 1)  goes on at builders/0",
        "greeter.orphaned  Running (attempt 1)  worker builders/0 is gone: taken from its pushed "
        "attempt if finished, else starts again",
        "greeter.waiting  Waiting  starts on the next idle worker",
        "greeter.failed  Failed  stays Failed: RetriesExhausted (codeswarm retry)",
        "greeter.new  -  will be created",
        "greeter.leftover  Pending  will be cancelled: removed from the project",
    ]
    assert db.revision() == revision  # it only looked


def test_preview_of_a_project_that_is_not_planned(run: Run, db: Database) -> None:
    planner = {"swarm": "planners", "specification": "A calculator."}
    spec = {
        "repository": {"url": "./r.git"},
        "workers": [{"swarm": "builders"}],
        "planner": planner,
    }
    seed(db, manifest("Project", "calculator", spec))
    assert "swarm planners will plan" in run("project", "resume-preview", "calculator").stdout
