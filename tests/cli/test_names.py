"""Verbs take ``NAME`` where one object has it, ``KIND/NAME`` and ``KIND NAME``."""

from __future__ import annotations

import pytest

from controller.store.base import Key
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import project, project_status, prompt, seed, swarm, swarm_status, task


@pytest.fixture
def filled(db: Database) -> Database:
    """A swarm, a project with a task, and a prompt that is called as the project."""
    seed(db, swarm(), swarm_status())
    seed(db, project(), project_status())
    seed(db, task("greeter.library"), {"phase": "Failed", "reason": "RetriesExhausted"})
    seed(db, project("twin"), project_status())
    seed(db, prompt("twin"), {"phase": "Waiting"})
    return db


@pytest.mark.parametrize("verb", ["explain", "describe", "logs"])
@pytest.mark.parametrize(
    "words", [["greeter.library"], ["task/greeter.library"], ["task", "greeter.library"]]
)
def test_looking(run: Run, filled: Database, verb: str, words: list[str]) -> None:
    result = run(verb, *words)
    assert result.exit_code == 0, result.output
    assert verb == "logs" or "greeter.library" in result.stdout


@pytest.mark.parametrize("words", [["greeter"], ["project/greeter"], ["proj", "greeter"]])
def test_suspend_and_resume(run: Run, filled: Database, words: list[str]) -> None:
    for verb, value in (("suspend", True), ("resume", False)):
        assert run(verb, *words).exit_code == 0
        found = filled.get(Key("Project", "default", "greeter"))
        assert found is not None
        assert found["spec"]["suspend"] is value


@pytest.mark.parametrize(
    "words", [["greeter.library"], ["task/greeter.library"], ["task", "greeter.library"]]
)
def test_retry(run: Run, filled: Database, words: list[str]) -> None:
    assert "will be retried" in run("retry", *words).stdout


def test_a_name_of_two_objects(run: Run, filled: Database) -> None:
    result = run("explain", "twin")
    assert result.exit_code == 1
    assert '"twin" is the name of several objects: say task/twin or project/twin' in result.stderr
    assert run("explain", "project", "twin").exit_code == 0


def test_a_name_of_none(run: Run, filled: Database) -> None:
    result = run("suspend", "greeter.librari")
    assert result.exit_code == 1
    assert 'has the name "greeter.librari" (project, task); did you mean "greeter.library"' in (
        result.stderr
    )


def test_wait_by_name(run: Run, filled: Database) -> None:
    assert run("wait", "builders", "--for=condition=Ready").exit_code == 0
