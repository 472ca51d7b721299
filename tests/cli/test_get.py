"""``get``: tables, other outputs, selections, and what is not there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from controller.runtime.home import Home
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import (
    attempt,
    project,
    project_status,
    prompt,
    seed,
    swarm,
    swarm_status,
    task,
)


@pytest.fixture
def filled(db: Database) -> Database:
    """A swarm, a project and its tasks."""
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status())
    seed(db, task("greeter.library"), {"phase": "Running", "attempts": [attempt()]})
    seed(db, task("greeter.command", ("library",)), {"phase": "Waiting"})
    return db


def test_table_of_printer_columns(run: Run, filled: Database) -> None:
    result = run("get", "swarms")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "NAME       PHASE     READY   BUSY   RUNTIME   COST   AGE   REASON",
        "builders   Running   2/2     1      mock             3h",
    ]


def test_several_kinds_are_qualified_and_apart(run: Run, filled: Database) -> None:
    lines = run("get", "sw,proj", "--no-headers").stdout.splitlines()
    assert [line.split()[0] for line in lines if line] == [
        "swarm.codeswarm.dev/builders",
        "project.codeswarm.dev/greeter",
    ]
    assert lines[1] == ""


def test_all_is_every_kind_of_ours(run: Run, filled: Database) -> None:
    out = run("get", "all", "-o", "name").stdout.splitlines()
    assert out == [
        "swarm.codeswarm.dev/builders",
        "project.codeswarm.dev/greeter",
        "task.codeswarm.dev/greeter.command",
        "task.codeswarm.dev/greeter.library",
    ]


def test_wide_has_more_columns(run: Run, filled: Database) -> None:
    assert "MODEL" not in run("get", "swarms").stdout
    assert "MODEL" in run("get", "swarms", "-o", "wide").stdout.splitlines()[0]


def test_one_object_as_json_and_yaml(run: Run, filled: Database) -> None:
    as_json = json.loads(run("get", "swarm/builders", "-o", "json").stdout)
    as_yaml = yaml.safe_load(run("get", "swarm", "builders", "-o", "yaml").stdout)
    assert as_json == as_yaml
    assert as_json["metadata"]["name"] == "builders"


def test_several_objects_are_a_list(run: Run, filled: Database) -> None:
    found = json.loads(run("get", "tasks", "-o", "json").stdout)
    assert found["kind"] == "List"
    assert [o["metadata"]["name"] for o in found["items"]] == ["greeter.command", "greeter.library"]
    empty = json.loads(run("get", "approvals", "-o", "json").stdout)
    assert empty["items"] == []


def test_jsonpath(run: Run, filled: Database) -> None:
    template = '{range .items[*]}{.metadata.name}={.status.phase}{"\\n"}{end}'
    out = run("get", "tasks", "-o", f"jsonpath={template}").stdout
    assert out == "greeter.command=Waiting\ngreeter.library=Running\n"


def test_label_selector(run: Run, filled: Database) -> None:
    seed(filled, prompt("hello"))
    chosen = run("get", "tasks", "-o", "name", "-l", "codeswarm.dev/project=greeter").stdout
    others = run("get", "tasks", "-o", "name", "-l", "codeswarm.dev/project!=greeter").stdout
    assert len(chosen.splitlines()) == 2
    assert others == "task.codeswarm.dev/hello\n"


def test_namespaces(run: Run, filled: Database) -> None:
    seed(filled, swarm("others", namespace="team-a"))
    assert run("get", "swarms", "-n", "team-a", "-o", "name").stdout.split("/")[1] == "others\n"
    assert run("-n", "team-a", "get", "swarms", "-o", "name").stdout.split("/")[1] == "others\n"
    everywhere = run("get", "swarms", "-A").stdout.splitlines()
    assert [line.split()[:2] for line in everywhere] == [
        ["NAMESPACE", "NAME"],
        ["default", "builders"],
        ["team-a", "others"],
    ]


def test_a_namespace_never_leaves_its_folder(run: Run) -> None:
    result = run("get", "swarms", "-n", "../x")
    assert result.exit_code == 2


def test_nothing(run: Run, db: Database) -> None:
    result = run("get", "swarms")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No resources found in default namespace.\n"
    assert run("get", "swarms", "-A").stderr == "No resources found\n"


def test_a_name_that_is_not_there(run: Run, filled: Database) -> None:
    result = run("get", "task", "greeter.library", "greeter.comand")
    assert result.exit_code == 1
    assert "greeter.library" in result.stdout
    assert result.stderr == (
        'error: task "greeter.comand" not found in namespace "default"; '
        'did you mean "greeter.command"?\n'
    )


def test_a_kind_that_is_not_there(run: Run, db: Database) -> None:
    result = run("get", "swarmz")
    assert result.exit_code == 1
    assert 'error: there is no kind "swarmz"; did you mean "Swarm"?' in result.stderr


@pytest.mark.parametrize("bad", ["xml", "jsonpath={.a", "jsonpath={range .a}{.b}"])
def test_bad_output(run: Run, db: Database, bad: str) -> None:
    result = run("get", "swarms", "-o", bad)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_what_agents_write_cannot_move_the_cursor(run: Run, db: Database) -> None:
    seed(db, prompt("evil"), {"phase": "Failed", "reason": "\x1b[2Jgone\nnext"})
    out = run("get", "tasks").stdout
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


def test_watch_prints_what_changes(home: Home, db: Database) -> None:
    seed(db, prompt("first"))
    command = [sys.executable, "-m", "cli.main", "get", "tasks", "-w", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "task.codeswarm.dev/first\n"
            seed(db, prompt("second"))
            assert process.stdout.readline() == "task.codeswarm.dev/second\n"
        finally:
            process.kill()
