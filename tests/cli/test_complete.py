"""Completion in a shell: kinds and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from cli.main import cli
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import project, seed, swarm, task


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    shell = BashComplete(cli, {}, "codeswarm", "_CODESWARM_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("get", "pro"), ["project"]),
        (("get", "task", "gr"), ["greeter.library"]),
        (("explain", "task/"), ["task/greeter.library"]),
        (("logs", "gree"), ["greeter.library", "greeter"]),
        (("retry", "g"), ["greeter.library"]),
        (("prompt", ""), ["builders"]),
        (("project", "resume-preview", ""), ["greeter"]),
        (("get", "nothing", "gr"), []),
        (("get", "-n", "other", "task", "gr"), []),
    ],
)
def test_words(db: Database, words: tuple[str, ...], found: list[str]) -> None:
    seed(db, swarm())
    seed(db, project())
    seed(db, task("greeter.library"))
    assert offered(*words) == found


def test_nothing_is_made_for_it(tmp_path: Path) -> None:
    assert offered("--home", str(tmp_path / "none"), "explain", "task/") == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "words", [["get", "swarms"], ["status"], ["explain", "task/x"], ["retry", "x"], ["top"]]
)
def test_what_only_looks_makes_no_home(run: Run, tmp_path: Path, words: list[str]) -> None:
    result = run(*words, "--home", str(tmp_path / "typo"))
    assert result.exit_code == 5
    assert f"there is no Codeswarm home at {tmp_path / 'typo'}" in result.stderr
    assert not (tmp_path / "typo").exists()
