"""A home with objects in it, and the command line run in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.file_client import FileClient
from cli.main import cli
from controller.runtime.home import Home
from controller.store.database import Database

Run = Callable[..., Result]
AGE_SECONDS = 3 * 3600.0
"""How old seeded objects are: far from where the text of an age changes."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home that the environment names."""
    made = Home.at(tmp_path / "home")
    monkeypatch.setenv("CODESWARM_HOME", str(made.root))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return made


@pytest.fixture
def db(home: Home) -> Iterator[Database]:
    """The state of the home, another process's view; what it makes is three hours old."""
    with Database(home.ensure().state, clock=lambda: time.time() - AGE_SECONDS) as database:
        yield database


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of starting a controller: the homes for which one was asked."""
    asked: list[str] = []

    def ensure(self: FileClient, say: Callable[[str], None]) -> None:
        asked.append(str(self._home.root))

    monkeypatch.setattr(FileClient, "ensure_controller", ensure)
    return asked


@pytest.fixture
def run(home: Home, started: list[str]) -> Run:
    """Run ``codeswarm`` with these words; no controller is started."""

    def invoke(*words: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(words), input=input, prog_name="codeswarm")

    return invoke
