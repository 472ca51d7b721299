"""``delete``, ``wait``, ``scale``, ``retry``, ``cancel``, ``suspend``, ``resume``, ``prompt``."""

from __future__ import annotations

from typing import Any

import pytest

from controller.store.base import Key, Resource
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import (
    attempt,
    condition,
    project,
    prompt,
    seed,
    set_status,
    swarm,
    swarm_status,
    task,
)


def stored(db: Database, kind: str, name: str) -> Resource:
    """An object that is there."""
    obj = db.get(Key(kind, "default", name))
    assert obj is not None
    return obj


def with_finalizer(obj: Resource) -> Resource:
    """As a swarm whose workers run."""
    metadata = {**obj["metadata"], "finalizers": ["codeswarm.dev/workers"]}
    return {**obj, "metadata": metadata}


def test_delete_by_name(run: Run, db: Database, started: list[str]) -> None:
    seed(db, swarm())
    seed(db, prompt("hello"))
    result = run("delete", "swarm/builders", "task/hello")
    assert result.stdout.splitlines() == [
        'swarm.codeswarm.dev "builders" deleted',
        'task.codeswarm.dev "hello" deleted',
    ]
    assert db.list("Swarm") == []
    assert started == []  # nothing is left for a controller to do


def test_delete_what_is_not_there(run: Run, db: Database) -> None:
    seed(db, prompt("hello"))
    result = run("delete", "task", "helo", "hello")
    assert result.exit_code == 1
    assert 'did you mean "hello"' not in result.stderr  # it is deleted by now
    assert 'error: task "helo" not found in namespace "default"' in result.stderr
    assert db.list("Task") == []
    assert run("delete", "task", "helo", "--ignore-not-found").exit_code == 0


def test_delete_all_and_by_label(run: Run, db: Database) -> None:
    seed(db, task("greeter.library"))
    seed(db, prompt("hello"))
    run("delete", "tasks", "-l", "codeswarm.dev/project=greeter")
    assert [o["metadata"]["name"] for o in db.list("Task")] == ["hello"]
    run("delete", "tasks", "--all")
    assert db.list("Task") == []
    assert run("delete", "tasks").exit_code == 2


def test_delete_by_force_and_by_asking_twice(run: Run, db: Database, started: list[str]) -> None:
    seed(db, with_finalizer(swarm("one")))
    seed(db, with_finalizer(swarm("two")))
    assert (
        'swarm.codeswarm.dev "one" force deleting' in run("delete", "swarm/one", "--force").stdout
    )
    force = "codeswarm.dev/force"
    assert stored(db, "Swarm", "one")["metadata"]["annotations"][force] == "true"
    assert '"two" deleting' in run("delete", "swarm/two").stdout
    assert force not in stored(db, "Swarm", "two")["metadata"].get("annotations", {})
    run("delete", "swarm/two")
    assert stored(db, "Swarm", "two")["metadata"]["annotations"][force] == "true"
    assert started  # somebody must end the workers


def test_delete_waits(run: Run, db: Database) -> None:
    seed(db, with_finalizer(swarm()))
    result = run("delete", "swarm/builders", "--wait", "--timeout", "0.05")
    assert result.exit_code == 3
    assert "timed out waiting for swarm/builders to be gone" in result.stderr


@pytest.mark.parametrize(
    ("goal", "code"),
    [
        ("condition=Ready", 0),
        ("condition=Ready=True", 0),
        ("condition=RolledOut=False", 0),
        ("condition=Ready=False", 3),
        ("condition=Nonsense", 2),
        ("condition=Available", 3),
        ("phase=Running", 0),
        ("phase=Failed", 3),
        ("delete", 3),
        ("nonsense", 1),
    ],
)
def test_wait_for(run: Run, db: Database, goal: str, code: int) -> None:
    conditions = [condition("Ready", "True"), condition("RolledOut", "False")]
    seed(db, swarm(), swarm_status(conditions=conditions))
    result = run("wait", f"--for={goal}", "swarm/builders", "--timeout", "0.05s")
    assert result.exit_code == code
    if code == 0:
        assert result.stdout == "swarm.codeswarm.dev/builders condition met\n"


def test_wait_for_what_is_gone_or_lost(run: Run, db: Database) -> None:
    seed(db, prompt("hello"), {"phase": "Failed", "conditions": [condition("Failed", "True")]})
    assert run("wait", "--for=delete", "task/other").exit_code == 0
    lost = run("wait", "--for=condition=Complete", "task/hello")
    assert lost.exit_code == 4
    assert "task/hello: failed: Because" in lost.stderr
    assert run("wait", "--for=phase=Succeeded", "task/hello").exit_code == 4
    assert run("wait", "--for=phase=Succeeded", "task/helo").exit_code == 1


def test_an_old_condition_does_not_count(run: Run, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    run("scale", "builders", "--replicas", "5")
    result = run("wait", "--for=condition=Ready", "swarm/builders", "--timeout", "0.05")
    assert result.exit_code == 3


def test_scale(run: Run, db: Database) -> None:
    seed(db, swarm())
    result = run("scale", "swarm/builders", "--replicas", "9")
    assert result.stdout == "swarm.codeswarm.dev/builders scaled\n"
    assert stored(db, "Swarm", "builders")["spec"]["replicas"] == 9
    assert run("scale", "swarm/builders", "--replicas", "-1").exit_code == 2
    assert run("scale", "task/builders", "--replicas", "1").exit_code == 1
    assert run("scale", "builders", "--replicas", "99999999").exit_code == 1


def test_retry(run: Run, db: Database) -> None:
    made = seed(db, task("greeter.library"), {"phase": "Running", "attempts": [attempt()]})
    refused = run("retry", "greeter.library")
    assert refused.exit_code == 1
    assert "is Running; only a failed or cancelled task can be retried" in refused.stderr
    set_status(db, made, phase="Failed")
    tokens = set()
    for _ in range(2):
        assert run("retry", "task/greeter.library").exit_code == 0
        annotations = stored(db, "Task", "greeter.library")["metadata"]["annotations"]
        tokens.add(annotations["codeswarm.dev/retry"])
    assert len(tokens) == 2


def test_retry_of_a_swarm(run: Run, db: Database) -> None:
    seed(db, swarm())
    assert (
        "swarm.codeswarm.dev/builders will be tried again" in run("retry", "swarm/builders").stdout
    )
    assert stored(db, "Swarm", "builders")["metadata"]["annotations"]["codeswarm.dev/retry"]
    assert run("retry", "project/greeter").exit_code == 1


def test_cancel_and_retry_of_a_cancelled_task(run: Run, db: Database) -> None:
    made = seed(db, task("greeter.library"))
    assert "greeter.library cancelled" in run("cancel", "greeter.library").stdout
    assert stored(db, "Task", "greeter.library")["spec"]["cancel"] is True
    set_status(db, made, phase="Cancelled")
    run("retry", "greeter.library")
    assert stored(db, "Task", "greeter.library")["spec"]["cancel"] is False
    set_status(db, made, phase="Succeeded")
    assert run("cancel", "greeter.library").exit_code == 1


def test_suspend_and_resume(run: Run, db: Database) -> None:
    seed(db, project())
    seed(db, swarm())
    assert "greeter suspended" in run("suspend", "project/greeter").stdout
    assert stored(db, "Project", "greeter")["spec"]["suspend"] is True
    assert "greeter resumed" in run("resume", "project", "greeter").stdout
    assert stored(db, "Project", "greeter")["spec"]["suspend"] is False
    assert "swarms cannot be suspended" in run("suspend", "swarm/builders").stderr


def only_task(db: Database) -> dict[str, Any]:
    """The spec of the one task there is."""
    (found,) = db.list("Task")
    spec: dict[str, Any] = found["spec"]
    return spec


def test_prompt(run: Run, db: Database, started: list[str]) -> None:
    seed(db, swarm())
    result = run(
        "prompt", "builders", "Hi.", "--workers", "1", "--priority", "5", "--timeout", "5m"
    )
    assert result.exit_code == 0
    assert result.stdout.startswith("task.codeswarm.dev/builders-")
    spec = only_task(db)
    assert spec["target"] == {"swarm": "builders", "workers": 1}
    assert (spec["prompt"], spec["priority"], spec["timeoutSeconds"]) == ("Hi.", 5, 300)
    assert len(started) == 1


def test_a_prompt_sent_twice_by_name_is_one(run: Run, db: Database) -> None:
    seed(db, swarm())
    assert "created" in run("prompt", "builders", "Hi.", "--name", "hi").stdout
    assert "unchanged" in run("prompt", "builders", "Hi.", "--name", "hi").stdout
    other = run("prompt", "builders", "Bye.", "--name", "hi")
    assert (other.exit_code, len(db.list("Task"))) == (1, 1)


def test_a_prompt_from_standard_input(run: Run, db: Database) -> None:
    seed(db, swarm())
    run("prompt", "builders", "-", "--workers", "0,2-3", input="Several\nlines.\n")
    spec = only_task(db)
    assert (spec["prompt"], spec["target"]["workers"]) == ("Several\nlines.\n", "0,2-3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("buildrs", "Hi."), 'swarm "buildrs" not found'),
        (("builders", "  "), "the prompt is empty"),
        (("builders", "Hi.", "--workers", "some"), '--workers: "some" must be'),
        (("builders", "Hi.", "--name", "Not_OK"), "metadata.name"),
    ],
)
def test_prompts_that_are_refused(
    run: Run, db: Database, words: tuple[str, ...], message: str
) -> None:
    seed(db, swarm())
    result = run("prompt", *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert db.list("Task") == []


@pytest.mark.parametrize("goal", ["phase=Complete", "condition=Bogus"])
def test_wait_for_what_a_kind_never_has(run: Run, db: Database, goal: str) -> None:
    seed(db, project(), {"phase": "Running"})
    result = run("wait", "project/greeter", f"--for={goal}")
    assert result.exit_code == 2
    assert "a Project has no" in result.stderr
    assert "Complete" in result.stderr
