"""Commands on a host: arguments, output, deadlines, many at a time, and streams."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.ssh import Retry, SshHost, SshHosts
from providers.ssh_command import command_line
from tests.ssh.hosts import FILES, host_of, target_of, until, using, words
from tests.sshd import Sshd

ARGUMENTS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
    | st.sampled_from(["", "~", "*", "$HOME", "`id`", "a'b\"c", "-n", "!!", "a\\\\b", "x\ny", "#"]),
    max_size=6,
)


# --- arguments -----------------------------------------------------------------------------------


SHELLS = [name for name in ("sh", "bash", "tcsh", "fish", "zsh") if shutil.which(name)]


@pytest.mark.parametrize("program", SHELLS)
def test_any_argument_survives_any_login_shell(program: str) -> None:

    @settings(max_examples=40, deadline=None)
    @given(ARGUMENTS)
    def check(arguments: list[str]) -> None:
        line = command_line(["/usr/bin/printf", "%s\\0", "begin", *arguments])
        done = subprocess.run([program, "-c", line], capture_output=True, check=True, timeout=20)
        assert done.stdout.decode().split("\0")[1:-1] == arguments

    check()


def test_arguments_survive_the_way_to_a_host(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        loop = asyncio.get_running_loop()

        def check(arguments: list[str]) -> None:
            argv = ["/usr/bin/printf", "%s\\0", "begin", *arguments]
            done = asyncio.run_coroutine_threadsafe(
                host.run(argv, seconds=20, repeatable=True), loop
            ).result(30)
            assert done.out.decode().split("\0")[1:-1] == arguments

        await asyncio.to_thread(settings(max_examples=25, deadline=None)(given(ARGUMENTS)(check)))

    using(target_of(login_host), main)


def test_what_cannot_be_an_argument() -> None:
    for wrong in ([], ["a\0b"]):
        with pytest.raises(ValueError):
            command_line(wrong)
    assert (
        b"\xff"
        in subprocess.run(
            ["sh", "-c", command_line(["echo", os.fsdecode(b"\xff")])],
            capture_output=True,
            check=True,
        ).stdout
    )


def test_asyncssh_is_loaded_by_the_first_connection_only() -> None:
    script = "import sys, providers.ssh; print('asyncssh' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# --- input, output, exit -------------------------------------------------------------------------


def test_input_output_and_exit_status(login_host: Sshd) -> None:
    data = os.urandom(3 * 1024 * 1024)

    async def main(host: SshHost) -> None:
        done = await host.run(["cat"], input=data, seconds=30)
        assert (done.code, done.out, done.err) == (0, data, b"")
        done = await host.run(["sh", "-c", "echo out; echo err >&2; exit 7"], seconds=20)
        assert (done.code, done.out, done.err) == (7, b"out\n", b"err\n")
        assert (await host.run(["sh", "-c", "kill -TERM $$"], seconds=20)).code == 128 + 15
        assert (await host.run(["no-such-program"], seconds=20)).code == 127
        done = await host.run(["true"], input=data, seconds=20)  # reads nothing of it
        assert done.code == 0

    using(target_of(login_host), main)
    assert login_host.logins() >= 1


def test_a_flood_of_output_ends_in_an_error_not_in_less_output(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        with pytest.raises(ProviderError) as caught:
            await host.run(["yes"], seconds=20, limit=1024 * 1024)
        assert caught.value.reason == "OutputTooLarge"
        flood = ["sh", "-c", "head -c 20000000 /dev/zero >&2; echo last >&2"]
        done = await host.run(flood, seconds=20)
        assert done.err.endswith(b"last\n") and len(done.err) <= 64 * 1024
        await until(lambda: not _running(login_host, "yes"), "the end of `yes`")

    using(target_of(login_host), main)


def _running(sshd: Sshd, *command: str) -> bool:
    """Whether a command runs in some session of this sshd."""
    for process in psutil.process_iter():
        try:
            if process.cmdline() == list(command):
                return process.environ().get("HOME") == str(sshd.home)
        except psutil.Error:
            continue
    return False


def test_a_command_that_hangs_is_killed_there(login_host: Sshd, tmp_path: Path) -> None:
    script = f"trap '' TERM HUP; sleep 611 & echo $! > {tmp_path}/pid; wait; wait"

    async def main(host: SshHost) -> None:
        with pytest.raises(OutcomeUnknown) as caught:
            await host.run(["sh", "-c", script], seconds=1)
        assert caught.value.reason == "CommandTimedOut" and "1 s" in str(caught.value)
        pid = int(words(tmp_path / "pid"))
        await until(lambda: not _lives(pid), "the end of what hung")
        with pytest.raises(ProviderUnreachable) as repeatable:
            await host.run(["sleep", "600"], seconds=0.3, repeatable=True)
        assert repeatable.value.reason == "CommandTimedOut"
        assert (await host.run(["true"], seconds=20)).code == 0

    using(target_of(login_host), main)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- many at a time ------------------------------------------------------------------------------


def test_many_users_share_one_connection_and_its_sessions(login_host: Sshd) -> None:
    before = login_host.logins()

    async def main(host: SshHost) -> None:
        argv = ["sh", "-c", "sleep 0.1; echo $1", "sh"]
        tasks = (host.run([*argv, str(n)], seconds=30) for n in range(30))
        done = await asyncio.gather(*tasks)
        assert [int(one.out) for one in done] == list(range(30))

    using(target_of(login_host), main)
    assert login_host.logins() == before + 1


def test_a_host_with_fewer_sessions_than_were_hoped_for(tmp_path: Path) -> None:
    with Sshd(tmp_path / "a", max_sessions=2) as sshd:

        async def main(host: SshHost) -> None:
            channel = await host.open(["cat"])
            done = await asyncio.gather(*(host.run(["echo"], seconds=30) for _ in range(8)))
            assert all(one.code == 0 for one in done)
            channel.close()

        using(target_of(sshd), main)
    with Sshd(tmp_path / "b", max_sessions=1) as sshd:

        async def alone(host: SshHost) -> None:
            channel = await host.open(["cat"])
            with pytest.raises(ProviderUnreachable) as caught:
                await host.run(["echo"], seconds=2)
            assert caught.value.reason == "SessionRefused" and "MaxSessions" in str(caught.value)
            channel.close()
            await channel.wait_closed()
            assert (await host.run(["echo"], seconds=20)).code == 0

        using(target_of(sshd), alone)


def test_whoever_gives_up_waiting_takes_no_session_along(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        for _ in range(4):
            late = [
                asyncio.create_task(host.run(["sleep", "0.2"], seconds=0.01 * n, repeatable=True))
                for n in range(1, 12)
            ]
            await asyncio.gather(*late, return_exceptions=True)
        done = await asyncio.gather(*(host.run(["true"], seconds=20) for _ in range(10)))
        assert all(one.code == 0 for one in done)
        assert host._slots.used == 0

    using(target_of(login_host), main, sessions=3)


def test_equal_targets_are_one_host_and_another_credential_is_another(login_host: Sshd) -> None:
    async def main() -> None:
        hosts = SshHosts(FILES)
        target = target_of(login_host)
        host = hosts.host(target)
        assert hosts.host(target_of(login_host), Retry(7)) is host and host.retry.attempts == 7
        other = target_of(login_host, sshKey=login_host.key.read_text())
        assert hosts.host(other) is not host
        assert (await hosts.host(other).run(["true"], seconds=20)).code == 0
        await hosts.close()
        with pytest.raises(ProviderUnreachable):
            await host.run(["true"], seconds=5)

    asyncio.run(main())


# --- streams -------------------------------------------------------------------------------------


def test_a_stream_both_ways(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["sh", "-c", "echo ready >&2; exec cat"])
        channel.writer.write(b"one\n")
        await channel.writer.drain()
        assert await channel.reader.readline() == b"one\n"
        data = os.urandom(5 * 1024 * 1024)
        reading = asyncio.create_task(channel.reader.readexactly(len(data)))
        for begin in range(0, len(data), 100_000):
            channel.writer.write(data[begin : begin + 100_000])
            await channel.writer.drain()
        assert await reading == data
        assert channel.errors == b"ready\n" and not channel.ended and channel.code is None
        channel.writer.close()
        assert await channel.reader.read() == b""
        assert await channel.wait_closed() == 0

    using(target_of(login_host), main)


def test_a_stream_that_nobody_reads_stands_still_and_holds_little(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["sh", "-c", "yes 0123456789 | head -c 30000000"])
        await until(lambda: len(channel.reader._buffer) > 2 * 1024 * 1024, "a full buffer")  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        assert len(channel.reader._buffer) < 3 * 1024 * 1024  # type: ignore[attr-defined]
        assert (await host.run(["true"], seconds=20)).code == 0, "others are not held up"
        total = 0
        while chunk := await channel.reader.read(1 << 20):
            total += len(chunk)
        assert total == 30_000_000 and await channel.wait_closed() == 0

    using(target_of(login_host), main)


def test_writing_to_a_command_that_does_not_read_waits(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["sleep", "600"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    channel.writer.write(bytes(100_000))
                    await channel.writer.drain()
        assert channel.writer.get_write_buffer_size() > 0
        channel.kill()
        with pytest.raises(ConnectionResetError):
            await channel.writer.drain()

    using(target_of(login_host), main)


def test_an_idle_connection_is_ended_and_made_again(login_host: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["cat"])
        await host.run(["true"], seconds=20)
        await asyncio.sleep(0.3)
        assert host.connected, "a stream is open"
        channel.close()
        await until(lambda: not host.connected, "the end of the connection")
        assert (await host.run(["true"], seconds=20)).code == 0

    using(target_of(login_host), main, idle_seconds=0.1)


def test_closing_ends_what_waits(login_host: Sshd) -> None:
    async def main() -> None:
        host = host_of(target_of(login_host))
        channel = await host.open(["cat"])
        running = asyncio.create_task(host.run(["sleep", "600"], seconds=60))
        await until(lambda: host._slots.used == 2, "the command to run")
        await host.close()
        assert await channel.wait_closed() is None
        with pytest.raises(OutcomeUnknown):
            await running

    asyncio.run(main())
