"""The program as a whole: imports, help, errors, exit codes, pipes, the controller's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import psutil
import pytest

from cli import process
from cli.errors import CliError
from cli.main import SECTIONS, cli
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock, ControllerRunning, start_time
from controller.store.base import StoreUnavailable
from controller.store.database import Database
from tests.cli.conftest import Run
from tests.cli.samples import prompt, seed, swarm

SLOW = ("asyncio", "jsonschema", "rich", "cel", "psutil", "subprocess")


@pytest.mark.parametrize("words", [["get", "swarms"], ["get", "all", "-o", "json"]])
def test_get_imports_nothing_slow(home: Home, db: Database, words: list[str]) -> None:
    seed(db, swarm())
    code = (
        "import sys, json\nfrom cli.main import cli\n"
        f"try: cli.main({words!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "sqlite3" in loaded  # it did its work
    assert not loaded & set(SLOW)


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every command, subcommands too."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for sub, found in command.commands.items():
                yield f"{name} {sub}", found


@pytest.mark.parametrize("name", [name for name, _ in verbs()])
def test_every_verb_has_help_with_an_example(run: Run, name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert "--namespace" in result.stdout
    if name not in ("project", "controller"):  # groups
        assert f"codeswarm {name}" in result.stdout
        assert "Example" in result.stdout


def test_help_of_the_whole(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for section, names in SECTIONS.items():
        assert f"{section}:" in result.stdout
        for name in names:
            assert f"\n  {name} " in result.stdout
    assert "130  interrupted (Ctrl-C)" in result.stdout


def test_unknown_commands_and_options(run: Run) -> None:
    result = run("aply")
    assert result.exit_code == 2
    assert 'no such command: aply; did you mean "apply"?' in result.stderr
    assert run("get", "swarms", "--nonsense").exit_code == 2
    assert run("apply").exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    assert "codeswarm" in run("completion", shell).stdout


def test_version(run: Run) -> None:
    assert run("version").stdout.startswith("codeswarm ")


def test_internal_errors_are_told_in_a_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("impossible")

    monkeypatch.setattr("cli.file_client.FileClient.list", broken)
    result = run("get", "swarms")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: internal error: RuntimeError: impossible")
    assert "Traceback" not in result.stderr
    assert isinstance(run("get", "swarms", "-v").exception, RuntimeError)


def test_a_home_that_cannot_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--home", str(tmp_path / "file" / "home"), "get", "swarms")
    assert result.exit_code == 5
    assert "CODESWARM_HOME" in result.stderr


def test_a_newer_state(run: Run, home: Home, db: Database) -> None:
    import sqlite3

    with sqlite3.connect(home.state) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    connection.close()
    result = run("get", "swarms")
    assert result.exit_code == 5
    assert "newer Codeswarm" in result.stderr


def test_a_closed_pipe_is_silent(home: Home, db: Database) -> None:
    for number in range(200):
        seed(db, prompt(f"prompt-{number}", "x" * 2000))
    command = [sys.executable, "-m", "cli.main", "get", "tasks", "-o", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        reader.stdout.read(10)
        reader.stdout.close()
        assert reader.stderr.read() == ""


WAITING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
import sys
from cli.file_client import FileWatch
from cli.main import cli
plain = FileWatch.wait
def wait(self, seconds):
    print("waiting", flush=True)
    return plain(self, seconds)
FileWatch.wait = wait
cli.main(sys.argv[1:])
"""


def test_ctrl_c_of_a_wait(home: Home, db: Database) -> None:
    seed(db, swarm())
    words = ["wait", "--for=condition=Ready", "swarm/builders", "--timeout", "-1"]
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        try:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "waiting\n"
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert waiting.returncode == 130
    assert err == "\ninterrupted; nothing was changed\n"


# --- the controller's process ---------------------------------------------------------------

FAKE = """
import signal, sys, time
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock
lock = ControllerLock(Home.from_env())
lock.acquire()
time.sleep(0.1)
lock.acquire(3)
signal.sigwait([signal.SIGTERM])
"""


def fake(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another program instead of the controller."""
    monkeypatch.setattr(process, "command", lambda: [sys.executable, "-c", code])


def test_a_controller_is_started_once_and_stopped(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    fake(monkeypatch, block + FAKE)
    said: list[str] = []
    assert not process.state(home).running
    process.ensure(home, said.append)
    process.ensure(home, said.append)
    assert len(said) == 1
    assert said[0].startswith("controller started (pid ")
    assert process.state(home).detail.endswith("epoch 3")
    pid = process.stop(home)
    assert pid is not None
    assert f"(pid {pid};" in said[0]
    assert process.stop(home) is None


def test_two_clis_start_one_controller(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    fake(monkeypatch, block + FAKE)
    said: list[str] = []
    threads = [threading.Thread(target=process.ensure, args=(home, said.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert process.stop(home) is not None
    end_all(home)


def end_all(home: Home) -> None:
    """End whatever runs in this home: one that lost the race may take over from a stopped one."""
    for found in psutil.process_iter():
        try:
            mine = found.environ().get("CODESWARM_HOME") == str(home.root)
        except psutil.Error:
            continue
        if mine and found.pid != os.getpid():
            found.kill()


def test_a_controller_that_does_not_start(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "import sys; print('the disk is on fire', file=sys.stderr); sys.exit(5)")
    with pytest.raises(CliError) as caught:
        process.ensure(home, print)
    assert caught.value.code == 5
    assert "ended with exit code 5" in str(caught.value)
    assert "  the disk is on fire" in str(caught.value)


def test_up_refuses_a_second_controller(run: Run, home: Home) -> None:
    lock = ControllerLock(home.ensure())
    lock.acquire(1)
    result = run("up")
    lock.release()
    assert result.exit_code == 5
    assert f"a controller already runs on {home.root}" in result.stderr


def test_down_where_none_runs(run: Run) -> None:
    assert run("down").stdout == "no controller runs\n"


# --- home and lock --------------------------------------------------------------------------


def test_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = Home.from_env({"CODESWARM_HOME": str(tmp_path / "a" / "b")}).ensure()
    for folder in (home.root, home.transcripts, home.workspaces, home.archives, home.logs):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert home.ensure() == home


def test_home_paths() -> None:
    assert Home.from_env({}).root == Path.home() / ".codeswarm"
    assert Home.from_env({"CODESWARM_HOME": "~/x"}).root == Path.home() / "x"
    assert Home.at("relative").root == Path.cwd() / "relative"


def test_a_home_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="CODESWARM_HOME"):
        Home.at(tmp_path / "file" / "home").ensure()


def test_the_lock_says_who_holds_it(home: Home) -> None:
    home.ensure()
    lock, other = ControllerLock(home), ControllerLock(home)
    assert other.holder() is None
    lock.acquire()
    holder = other.holder()
    assert holder is not None
    assert (holder.pid, holder.epoch) == (os.getpid(), 0)
    lock.acquire(12)
    again = other.holder()
    assert again is not None
    assert (again.epoch, again.start) == (12, start_time(os.getpid()))
    with pytest.raises(ControllerRunning, match=rf"pid {os.getpid()}"):
        other.acquire(13)
    lock.release()
    assert other.holder() is None
    other.acquire(13)
    other.release()


def test_a_lock_file_alone_proves_nothing(home: Home) -> None:
    home.ensure()
    home.lock.write_text(f"{os.getpid()}\nstart: {start_time(os.getpid())}\nepoch: 1\n")
    lock = ControllerLock(home)
    assert lock.holder() is None
    assert lock.stale() == os.getpid()


def test_the_start_time_of_a_process() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) != ""
    assert start_time(2**22 + 1) == ""
