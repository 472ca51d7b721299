"""Commands on a login host: deadlines, output, and locks that outlive who took them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from providers.base import ProviderError, ProviderUnreachable
from providers.slurm_remote import RemoteLogin
from providers.ssh_target import SshTarget
from tests.providers.harness import run, until
from tests.remote.harness import Controller, attendant, gone, lab, on_lab
from tests.remote.shells import LocalShell

LOCK = ("default", "team-01234567", "submit.lock")


def test_input_output_environment_and_place(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        script = 'cat; printf "\\377%s|%s|%s" "$A" "${B-none}" "$PWD"; echo bad >&2; exit 7'
        done = await one.host.run(
            ["sh", "-c", script], effect=False, input="in é", env={"A": "a b", "HOME": None}
        )
        assert done.out == f"in é\ufffda b|none|{tmp_path}/work"
        assert (done.code, done.err, done.timed_out, done.cut) == (7, "bad\n", False, False)
        bare = await one.host.run(["cat"], effect=False)
        assert bare.out == ""

    on_lab(tmp_path, scenario)


def test_a_login_does_not_change_what_commands_do(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        done = await one.host.run(["env"], effect=False)
        told = dict(line.split("=", 1) for line in done.out.splitlines() if "=" in line)
        assert told["SLURM_CONF"] == "/x" and told["SBATCH_ACCOUNT"] == "ai" and told["MINE"] == "1"
        names = {"SBATCH_HOLD", "SQUEUE_STATES", "SCANCEL_STATE", "SLURM_CLUSTERS", "SSH_AUTH_SOCK"}
        assert not names & set(told)

    given = "SBATCH_HOLD=1 SQUEUE_STATES=PD SCANCEL_STATE=PD SLURM_CLUSTERS=x SSH_AUTH_SOCK=/y"
    kept = "SLURM_CONF=/x SBATCH_ACCOUNT=ai MINE=1"
    on_lab(tmp_path, scenario, setup=(f"export {given} {kept}",))


def test_half_an_answer_is_none(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        login = RemoteLogin(one.host, SshTarget(host="lab", user="ada"))
        argv = ["sh", "-c", "head -c 6000000 /dev/zero | tr '\\0' x"]
        with pytest.raises(ProviderUnreachable) as refused:
            await login.run(argv, seconds=20)
        assert refused.value.reason == "AnswerTooLong"

    on_lab(tmp_path, scenario)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderError, match="sbatch-of-nobody") as refused:
            await one.host.run(["sbatch-of-nobody"], effect=True)
        assert refused.value.reason == "CommandNotFound"

    on_lab(tmp_path, scenario)


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        script = "sleep 300 & echo $! $$; wait"
        begun = time.monotonic()
        done = await one.host.run(["sh", "-c", script], effect=False, seconds=0.3)
        assert done.timed_out and done.code == -signal.SIGKILL
        assert time.monotonic() - begun < 5
        for pid in map(int, done.out.split()):
            await gone(pid)

    on_lab(tmp_path, scenario)


def test_output_without_end_is_cut(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        script = "head -c 20000000 /dev/zero | tr '\\0' x"
        done = await one.host.run(["sh", "-c", script], effect=False)
        assert done.cut and 0 < len(done.out) < 6 << 20 and done.code == 0
        assert one.host.connected

    on_lab(tmp_path, scenario)


def test_many_commands_run_at_once(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        begun = time.monotonic()
        runs = [one.host.run(["sh", "-c", f"sleep 0.5; echo {n}"], effect=False) for n in range(20)]
        assert [int(done.out) for done in await asyncio.gather(*runs)] == list(range(20))
        assert time.monotonic() - begun < 8

    on_lab(tmp_path, scenario)


def test_looking_ends_with_the_connection(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        note = tmp_path / "pid"
        command = ["sh", "-c", f"echo $$ > {note}.part; mv {note}.part {note}; sleep 300"]
        running = asyncio.create_task(one.host.run(command, effect=False))

        async def noted() -> bool:
            return note.exists()

        await until(noted, "the command")
        one.shell.cut()
        with pytest.raises(ProviderError):
            await running
        await gone(int(note.read_text()))

    on_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"argv": []},
        {"argv": ["a\0b"], "seconds": 1},
        {"argv": ["true"]},
        {"argv": ["true"], "seconds": -1},
        {"argv": ["true"], "seconds": 1, "env": {"A=B": "c"}},
        {"argv": ["true"], "seconds": 1, "env": {"A": 1}},
        {"argv": ["true"], "seconds": 1, "lock": "unknown"},
        {"argv": ["true"], "seconds": 1, "cwd": [".."]},
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, arguments: dict[str, object]) -> None:
    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderError) as refused:
            await one.host.call("run", arguments)
        assert refused.value.reason in ("BadRequest", "LockLost", "InvalidName")

    on_lab(tmp_path, scenario)


# --- locks -----------------------------------------------------------------------------------


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        async with Controller(one.shell, str(tmp_path / "work")) as other:
            async with one.host.lock(*LOCK):
                for host in (one.host, other.host):
                    with pytest.raises(ProviderError) as refused:
                        async with host.lock(*LOCK, seconds=0.2):
                            pass
                    assert refused.value.reason == "LockHeld"
            async with other.host.lock(*LOCK):
                pass

    on_lab(tmp_path, scenario)


def test_a_lock_outlives_its_attendant_as_long_as_its_command_runs(tmp_path: Path) -> None:
    """So nobody submits what a submission that is under way may already have submitted."""
    done = tmp_path / "done"

    async def scenario() -> None:
        async with lab(tmp_path) as one, Controller(one.shell, str(tmp_path / "work")) as other:
            with pytest.raises(ProviderError):
                async with one.host.lock(*LOCK) as name:
                    pid = await attendant(one)
                    command = ["sh", "-c", f"touch {tmp_path}/begun; sleep 1; touch {done}"]
                    running = asyncio.create_task(one.host.run(command, effect=True, lock=name))

                    async def begun() -> bool:
                        return (tmp_path / "begun").exists()

                    await until(begun, "the command")
                    os.kill(pid, signal.SIGKILL)
                    await running
            assert not done.exists()
            async with other.host.lock(*LOCK):
                assert done.exists()

    run(scenario)


def test_a_lock_goes_with_its_connection(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        shell = LocalShell(tmp_path / "home")
        async with Controller(shell, str(tmp_path / "work")) as other:
            await other.host.known()
            with pytest.raises(ProviderError) as lost:
                async with one.host.lock(*LOCK) as name:
                    one.shell.cut()
                    async with other.host.lock(*LOCK):
                        pass
                    await one.host.run(["true"], effect=True, lock=name)
            assert lost.value.reason == "LockLost"
        await shell.close()

    on_lab(tmp_path, scenario)


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        async with Controller(one.shell, str(tmp_path / "work")) as other:
            async with one.host.lock(*LOCK):
                waiting = asyncio.create_task(_hold(other))
                await other.host.known()
                tmp_path.joinpath("work", *LOCK).unlink()
            await waiting
            assert tmp_path.joinpath("work", *LOCK).exists()

    on_lab(tmp_path, scenario)


async def _hold(one: Controller) -> None:
    async with one.host.lock(*LOCK):
        pass


@pytest.mark.parametrize("place", [(), ("..", "x"), ("a", "/etc/passwd"), (".hidden",)])
def test_no_lock_lies_outside(tmp_path: Path, place: tuple[str, ...]) -> None:
    async def scenario(one: Controller) -> None:
        with pytest.raises(ProviderError) as refused:
            async with one.host.lock(*place):
                pass
        assert refused.value.reason in ("BadRequest", "InvalidName")

    on_lab(tmp_path, scenario)
