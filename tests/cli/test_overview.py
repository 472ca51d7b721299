"""``status``, ``top``, ``doctor``, ``launch`` and the short words."""

from __future__ import annotations

import fcntl
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli import checks
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock
from controller.store.base import Key
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import (
    attempt,
    condition,
    manifest,
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
    """Something of everything, and a task that failed."""
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status(phase="Attention", reason="TasksFailed"))
    seed(db, task("greeter.library"), {"phase": "Running", "attempts": [attempt()]})
    seed(db, task("greeter.command"), {"phase": "Failed", "reason": "RetriesExhausted"})
    seed(db, prompt("hello"), {"phase": "Waiting"})
    return db


def test_status(run: Run, home: Home, filled: Database) -> None:
    wide = run("status").stdout.splitlines()
    assert [re.sub(r" {2,}", "  ", line) for line in wide] == [
        "Controller  stopped (not running; `codeswarm up` or the next apply starts it)",
        f"Home  {home.root}",
        "",
        "SWARM  PHASE  READY  BUSY  RUNTIME  COST  REASON",
        "builders  Running  2/2  1  mock",
        "",
        "PROJECT  PHASE  DONE  RUNNING  FAILED  BRANCH  COST  REASON",
        "greeter  Attention  0/2  1  0  codeswarm/greeter/integration  TasksFailed",
        "",
        "Prompts  1 Waiting",
        "",
        "Needs attention",
        "  project/greeter Attention (TasksFailed): codeswarm explain project/greeter",
        "  task/greeter.command Failed (RetriesExhausted): codeswarm explain task/greeter.command; "
        "codeswarm logs greeter.command",
    ]


def test_status_names_what_waits_for_ever(run: Run, db: Database) -> None:
    typo = condition("Assignable", "False", "SwarmNotFound", "swarm taem does not exist")
    gone = condition("Accepted", "False", "RepositoryNotFound", "x does not exist")
    refused = condition("Accepted", "False", "RuntimeNotAvailable", "no codex here")
    seed(db, swarm(), {"phase": "Pending", "conditions": [refused]})
    seed(db, project(), project_status())
    for name in ("library", "command"):
        held = {"phase": "Waiting", "reason": "SwarmNotFound", "conditions": [typo]}
        seed(db, task(f"greeter.{name}"), held)
    seed(db, project("other"), project_status(phase="Pending", conditions=[gone]))
    failed = condition("Failed", "True", "RetriesExhausted", "failed in 2 attempts")
    notes = {"result": {"notes": "no compiler\nhere"}, "conditions": [failed]}
    seed(db, prompt("hello"), {"phase": "Failed", **notes})
    out = run("status").stdout
    reasons = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line}
    assert reasons["builders"] == "RuntimeNotAvailable"
    assert reasons["greeter"] == "SwarmNotFound"
    assert out.partition("Needs attention\n")[2].splitlines() == [
        "  swarm/builders Pending (RuntimeNotAvailable: no codex here): "
        "codeswarm explain swarm/builders",
        "  project/other Pending (RepositoryNotFound: x does not exist): "
        "codeswarm explain project/other",
        "  task/greeter.command Waiting (SwarmNotFound: swarm taem does not exist): "
        "codeswarm explain task/greeter.command",
        "  task/hello Failed (RetriesExhausted: failed in 2 attempts: no compiler here): "
        "codeswarm explain task/hello; codeswarm logs hello",
    ]


def test_top_counts_failures_and_tells_how_long_a_worker_is_busy(
    run: Run, filled: Database
) -> None:
    running = filled.get(Key("Task", "default", "greeter.library"))
    assert running is not None
    running["status"]["attempts"][0]["assignedAt"] = datetime.fromtimestamp(
        time.time() - 42, UTC
    ).isoformat()
    filled.update_status(running)
    lines = run("top").stdout.splitlines()
    busy = next(line.split() for line in lines if line.startswith("builders/0"))
    assert busy[:3] == ["builders/0", "Busy", "greeter.library"]
    assert busy[3] in ("42s", "43s", "44s", "45s")
    assert "3 tasks: 1 running, 1 waiting, 1 failed" in run("top").stdout.replace(
        "0 succeeded, ", ""
    )
    assert "Needs attention" in lines


def test_status_of_one_swarm(run: Run, filled: Database) -> None:
    out = run("status", "builders").stdout
    assert "builders/0   Busy    greeter.library" in out
    assert "Waiting prompts: 1" in out
    assert run("status", "bilders").exit_code == 1


def test_status_of_nothing(run: Run, db: Database) -> None:
    assert "Nothing in namespace default" in run("status").stdout


def test_top_prints_one_frame_into_a_pipe(run: Run, filled: Database) -> None:
    result = run("top")
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line]
    assert ["builders", "Running", "2/2", "1", "mock"] in rows
    assert any(row[:2] == ["greeter.library", "builders/0"] for row in rows)
    assert run("top", "--once").exit_code == 0


def test_doctor_on_a_good_machine(run: Run, filled: Database) -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    levels = [line.split()[:2] for line in result.stdout.splitlines()]
    assert ["OK", "python"] in levels
    assert ["OK", "git"] in levels
    assert ["OK", "state"] in levels
    assert ["WARN", "controller"] in levels
    assert ["OK", "workers"] in levels


def test_doctor_on_a_damaged_state(run: Run, home: Home) -> None:
    home.ensure().state.write_bytes(b"no database" * 100)
    result = run("doctor")
    assert result.exit_code == 1
    assert "FAIL  state" in result.stdout


@pytest.mark.parametrize(
    ("text", "level"),
    [("git version 2.39.2 (Apple Git-143)\n", "OK"), ("git version 1.8.3\n", "FAIL")],
)
def test_git_versions(text: str, level: str) -> None:
    assert checks.git_version(text).level == level


def test_doctor_finds_a_stale_lock(home: Home) -> None:
    home.ensure().lock.write_text("123456789\nstart: 1\nepoch: 4\n")
    assert "(pid 123456789) ended without saying so" in checks.controller(home).text
    lock = ControllerLock(home)
    lock.acquire(7)
    assert checks.controller(home).level == "OK"
    lock.release()


def test_doctor_finds_workers_of_no_swarm(home: Home, db: Database) -> None:
    seed(db, swarm(), swarm_status())
    folder = home.workspaces / "default" / "builders-1a2b3c4d"
    handles = []
    for job in ("builders-1a2b3c4d-0-1", "builders-1a2b3c4d-5-9", "builders-1a2b3c4d-6-9"):
        (folder / job).mkdir(parents=True)
        (folder / job / "worker.pid").write_text(json.dumps({"pid": 4711, "start": "1"}))
        handles.append((folder / job / "worker.lock").open("w"))
    for handle in handles[:2]:
        fcntl.flock(handle, fcntl.LOCK_EX)
    check = checks.workers(home, db)
    for handle in handles:
        handle.close()
    assert check.level == "WARN"
    assert check.text == "1 running that no swarm knows: builders-1a2b3c4d-5-9 (pid 4711)"
    assert checks.workers(home, db).level == "OK"


def test_launch(run: Run, db: Database, tmp_path: Path, started: list[str]) -> None:
    persona = tmp_path / "personas" / "backend"
    persona.mkdir(parents=True)
    result = run(
        "launch", "team", "--nodes", "3", "--runtime", "mock", "--model", "m",
        "--prompt", "Be kind.",
        "--provider-param", "workspaceRoot=/scratch", "--agents", str(persona), "--detach",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout == "swarm.codeswarm.dev/team created\n"
    made = db.get(Key("Swarm", "default", "team"))
    assert made is not None
    assert made["spec"]["replicas"] == 3
    agent = made["spec"]["agent"]
    assert (agent["runtime"], agent["model"]) == ("mock", "m")
    assert agent["persona"] == {"path": "backend"}
    assert made["metadata"]["annotations"]["codeswarm.dev/base-dir"] == str(persona.parent)
    assert made["spec"]["systemPrompt"] == "Be kind."
    assert made["spec"]["provider"] == {"local": {"workspaceRoot": "/scratch"}}
    assert len(started) == 1
    again = run("launch", "team", "--runtime", "mock", "--detach")
    assert again.exit_code == 1
    assert "already exists" in again.stderr


def test_launch_with_a_class(run: Run, db: Database) -> None:
    seed(db, manifest("SwarmClass", "lab", {"provider": {"slurm": {"loginHost": "login"}}}))
    launched = run(
        "launch", "gpu", "--runtime", "mock", "--provider", "lab",
        "--provider-param", "partition=a100", "--detach",
    )  # fmt: skip
    assert launched.exit_code == 0, launched.stderr
    made = db.get(Key("Swarm", "default", "gpu"))
    assert made is not None
    assert made["spec"]["className"] == "lab"
    assert made["spec"]["provider"] == {"slurm": {"partition": "a100"}}
    assert (
        'swarmclass "lob" not found' in run("launch", "x", "--provider", "lob", "--detach").stderr
    )
    rows = [line.split() for line in run("providers").stdout.splitlines()]
    assert ["lab", "SwarmClass", "slurm"] in rows


@pytest.mark.parametrize("parameter", ["partition", "=x", "a.b=1"])
def test_bad_provider_parameters(run: Run, db: Database, parameter: str) -> None:
    result = run("launch", "x", "--provider-param", parameter, "--detach")
    assert result.exit_code == 1
    assert db.list("Swarm") == []


def test_short_words(run: Run, filled: Database) -> None:
    assert run("list").stdout == run("get", "swarms").stdout
    assert "created" in run("inject", "builders", "Go on.", "--nodes", "all").stdout
    assert 'swarm.codeswarm.dev "builders" deleted' in run("terminate", "builders").stdout
    assert filled.list("Swarm") == []


def test_stop_all(run: Run, filled: Database) -> None:
    seed(filled, swarm("others", namespace="team-a"))
    assert run("stop-all", input="n\n").exit_code == 130
    unasked = run("stop-all")
    assert unasked.exit_code == 2
    assert "nobody is there to answer; -y deletes without asking" in unasked.stderr
    assert len(filled.list("Swarm")) == 2
    result = run("stop-all", "-y")
    assert result.exit_code == 0
    assert "2 swarm(s) deleted" in result.stdout
    assert filled.list("Swarm") == []
    assert run("stop-all", "-y").stdout == "no swarms\n"
