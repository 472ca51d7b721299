"""Getting onto a login host: its greetings, its Python, its disk, and what each lack is told as."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import remote_setup
from providers.base import ProviderUnreachable
from providers.remote_setup import MAX_NOISE, login
from tests.providers.harness import run, until
from tests.remote.harness import (
    FILES,
    JOB,
    SWARM,
    Controller,
    append,
    attendant,
    lab,
    on_lab,
    outbox,
)
from tests.remote.shells import LocalShell

TOOLS = ("sh", "bash", "base64", "cat", "sleep")


def profile(path: Path, text: str) -> None:
    """What the login shell of a host runs first."""
    (path / "home").mkdir(exist_ok=True)
    (path / "home" / ".bash_profile").write_text(text)


def bare_path(path: Path, **pythons: str) -> None:
    """Have a path with the usual tools and nothing for Python but these scripts."""
    folder = path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    for name, text in pythons.items():
        script = folder / name.replace("_", ".")
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    profile(path, f"PATH={folder}")


def refused(path: Path, **place: str | tuple[str, ...]) -> ProviderUnreachable:
    """Why a host cannot be reached."""
    found: list[ProviderUnreachable] = []

    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderUnreachable) as why:
            await one.host.known()
        found.append(why.value)

    on_lab(path, scenario, **place)
    return found[0]


def test_the_worker_goes_over_once(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        facts = await one.host.known()
        assert facts.root == str(tmp_path / "work")
        assert facts.home == str(tmp_path / "home")
        sent = Path(facts.worker)
        assert sent.parent == tmp_path / "work" / "worker" and sent.name.startswith("worker-")
        assert sent.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "work").stat().st_mode & 0o777 == 0o700
        before = sent.stat().st_mtime_ns
        async with Controller(one.shell, str(tmp_path / "work")) as other:
            assert (await other.host.known()).worker == facts.worker
        assert sent.stat().st_mtime_ns == before and one.shell.runs == 3  # probe, send; probe
        assert list(sent.parent.iterdir()) == [sent]

        sent.write_bytes(sent.read_bytes()[:-100])
        async with Controller(one.shell, str(tmp_path / "work")) as other:
            await other.host.known()
        assert sent.stat().st_mtime_ns != before, "a damaged one is sent again"

    on_lab(tmp_path, scenario)


def test_a_root_in_the_home_and_behind_a_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        shell = LocalShell(tmp_path / "home")
        (tmp_path / "scratch").mkdir()
        (tmp_path / "home" / "scratch").symlink_to(tmp_path / "scratch")
        async with Controller(shell, "~/scratch/codeswarm") as one:
            assert (await one.host.known()).root == str(tmp_path / "scratch" / "codeswarm")
        await shell.close()

    run(scenario)


def test_what_a_login_prints_is_passed_over(tmp_path: Path) -> None:
    profile(tmp_path, "echo Welcome; printf '\\0\\377 no newline'; echo oops >&2; cat <&-")

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        append(outbox(tmp_path), b"1")
        await one.hears([b"1"])
        await one.host.archive(SWARM, tmp_path / "archives")

    on_lab(tmp_path, scenario)


def test_a_login_that_prints_without_end(tmp_path: Path) -> None:
    profile(tmp_path, f"head -c {2 * MAX_NOISE} /dev/zero | tr '\\0' '\\n'")

    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderUnreachable, match="greeting, without end") as why:
            await one.host.known()
        assert why.value.reason == "LoginFailed"

    on_lab(tmp_path, scenario)


def test_a_login_that_ends_at_once(tmp_path: Path) -> None:
    profile(tmp_path, "echo 'your account has expired' >&2; exit 3")
    why = refused(tmp_path)
    assert why.reason == "LoginFailed"
    assert "exit status 3" in str(why) and "your account has expired" in str(why)


def test_there_is_no_python(tmp_path: Path) -> None:
    bare_path(tmp_path)
    why = refused(tmp_path)
    assert why.reason == "PythonNotFound"
    assert "python3.9" in str(why) and "setupCommands" in str(why) and "ada@lab" in str(why)


def test_python_is_too_old(tmp_path: Path) -> None:
    bare_path(tmp_path, python3="echo 3.6.8; exit 1", python3_9="exit 127")
    why = refused(tmp_path)
    assert why.reason == "PythonNotFound"
    assert "too old" in str(why) and "bin/python3(3.6.8)" in str(why)


def test_a_python_that_is_named_or_that_set_up_commands_find(tmp_path: Path) -> None:
    bare_path(tmp_path, python3="echo 3.6.8; exit 1")
    real = str(Path(sys.executable).resolve())

    said: list[str] = []

    async def scenario(one: Controller) -> None:
        said.append((await one.host.run(["sh", "-c", 'echo "$LOADED"'], effect=False)).out)

    on_lab(tmp_path, scenario, python=real)
    link, load = f"ln -sf {real} {tmp_path}/bin/python3.11", "export LOADED='a module' # it's there"
    on_lab(tmp_path, scenario, setup=(f"PATH=$PATH:{Path(real).parent}", load))
    (tmp_path / "bin" / "ln").symlink_to(str(shutil.which("ln")))
    on_lab(tmp_path, scenario, setup=(link, load))
    assert said == ["\n", "a module\n", "a module\n"]


def test_a_set_up_command_that_fails(tmp_path: Path) -> None:
    why = refused(tmp_path, setup=("true", "echo 'no module named python' >&2; false", "true"))
    assert why.reason == "SetupFailed"
    assert "no module named python" in str(why)


@pytest.mark.parametrize("root", ["/proc/nowhere/codeswarm", "/dev/null/codeswarm"])
def test_a_root_that_cannot_be_written(tmp_path: Path, root: str) -> None:
    async def scenario() -> None:
        shell = LocalShell(tmp_path / "home")
        async with Controller(shell, root) as one:
            with pytest.raises(ProviderUnreachable) as why:
                await one.host.known()
        await shell.close()
        assert why.value.reason == "WorkspaceNotWritable"
        assert root in str(why.value) and "shared file system" in str(why.value)

    run(scenario)


def test_a_relative_root(tmp_path: Path) -> None:
    async def scenario() -> None:
        shell = LocalShell(tmp_path / "home")
        async with Controller(shell, "work") as one:
            with pytest.raises(ProviderUnreachable, match="absolute"):
                await one.host.known()
        await shell.close()

    run(scenario)


def test_what_nobody_expected_is_no_reason_to_give_a_host_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = LocalShell.open, []

    async def sometimes(self: LocalShell, argv: Sequence[str]) -> Any:
        if not failed:
            failed.append(argv)
            raise RuntimeError("no idea")
        return await real(self, argv)

    monkeypatch.setattr(LocalShell, "open", sometimes)

    async def scenario(one: Controller) -> None:
        assert (await one.host.prepare()).root
        assert failed

    on_lab(tmp_path, scenario)


def test_a_root_that_is_cleaned_up_under_us(tmp_path: Path) -> None:
    """As clusters do with scratch space: the worker's file is sent again."""

    async def scenario(one: Controller) -> None:
        pid = await attendant(one)
        shutil.rmtree(tmp_path / "work")
        os.kill(pid, signal.SIGKILL)

        async def back() -> bool:
            try:
                return await attendant(one) != pid
            except ProviderUnreachable:
                return False

        await until(back, "a new attendant")

    on_lab(tmp_path, scenario)


def test_a_host_that_is_away_is_told_as_the_transport_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote.LONGEST_PAUSE", 0.2)

    async def scenario() -> None:
        async with lab(tmp_path) as one:
            await one.host.known()
            one.shell.away = True
            one.shell.cut()

            async def away() -> bool:
                try:
                    await one.host.jobs(SWARM)
                except ProviderUnreachable as error:
                    return error.reason == "ConnectionRefused"
                return False

            await until(away, "the host to be away")
            one.shell.away = False

            async def back() -> bool:
                try:
                    return await one.host.jobs(SWARM) == []
                except ProviderUnreachable:
                    return False

            await until(back, "the host to be back")

    run(scenario)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_what_is_told_among_noise_is_found_or_nothing(before: bytes, after: bytes) -> None:
    told = {"python": "/p", "version": "3.9.1", "root": "/r", "path": "/r/w", "present": True}
    line = b"\ncodeswarm-setup " + json.dumps(told).encode() + b"\n"
    assert remote_setup._told(before + line + after) == told
    for half in (line[:-5], line.replace(b'"/r"', b"7"), line.replace(b"{", b"["), before):
        assert remote_setup._told(before + half) is None


def test_no_shell_meets_a_newline_of_ours() -> None:
    """A csh cannot take one inside quotes."""
    argv = login(("module load python", "a && b # c"), ["python3", "-I"])
    assert not any("\n" in text or "!" in text for text in argv)
