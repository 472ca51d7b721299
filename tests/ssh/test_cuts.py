"""Connections that are cut, hosts that go away and come back, hosts that stand still."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from providers.base import OutcomeUnknown, ProviderUnreachable
from providers.ssh import Retry, SshHost
from tests.ssh.hosts import target_of, until, using, words
from tests.sshd import Sshd


@pytest.fixture
def sshd(login_host: Sshd) -> Sshd:
    login_host.start()
    return login_host


def _counting(file: Path, then: str) -> list[str]:
    return ["sh", "-c", f"echo x >> {file}; {then}"]


def test_cut_in_the_middle_of_a_command(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "runs"

    async def main(host: SshHost) -> None:
        running = asyncio.create_task(host.run(_counting(file, "sleep 600"), seconds=30))
        await until(lambda: words(file), "the command to begin")
        sshd.cut()
        with pytest.raises(OutcomeUnknown) as caught:
            await running
        assert caught.value.reason == "ConnectionLost"
        assert words(file) == "x\n", "it was run again"
        assert (await host.run(["true"], seconds=20)).code == 0

    using(target_of(sshd), main)


def test_what_may_be_repeated_is_repeated(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "runs"
    script = f'[ "$(wc -l < {file})" -ge 2 ] || sleep 600'

    async def main(host: SshHost) -> None:
        running = asyncio.create_task(
            host.run(_counting(file, script), seconds=30, repeatable=True)
        )
        await until(lambda: words(file) == "x\n", "the first time")
        sshd.cut()
        assert (await running).code == 0
        assert words(file) == "x\nx\n"

    using(target_of(sshd), main)


def test_but_not_for_ever(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "runs"

    async def main(host: SshHost) -> None:
        running = asyncio.create_task(
            host.run(_counting(file, "sleep 600"), seconds=30, repeatable=True)
        )
        for number in (1, 2):
            await until(lambda n=number: words(file) == n * "x\n", "the next time")  # type: ignore[misc]
            sshd.cut()
        with pytest.raises(ProviderUnreachable) as caught:
            await running
        assert caught.value.reason == "ConnectionLost" and words(file) == "x\nx\n"

    using(target_of(sshd), main, retry=Retry(1, 0.05))


def test_cut_in_the_middle_of_a_stream(sshd: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["sh", "-c", "echo half; exec sleep 600"])
        assert await channel.reader.readline() == b"half\n"
        sshd.cut()
        assert await channel.reader.read() == b""
        assert await channel.wait_closed() is None
        with pytest.raises(ConnectionResetError):
            await channel.writer.drain()
        again = await host.open(["echo", "again"])
        assert await again.reader.read() == b"again\n"

    using(target_of(sshd), main)


def test_a_host_that_is_away_and_comes_back(sshd: Sshd) -> None:
    async def main(host: SshHost) -> None:
        assert (await host.run(["true"], seconds=20)).code == 0
        sshd.stop()
        for _ in range(3):
            with pytest.raises(ProviderUnreachable) as caught:
                await host.run(["true"], seconds=20)
            assert caught.value.reason in ("ConnectionRefused", "ConnectionLost")
        sshd.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await host.run(["true"], seconds=20)
                    return
                except ProviderUnreachable:
                    await asyncio.sleep(0.02)

    using(target_of(sshd), main)


def test_who_waits_for_a_host_that_comes_back_is_served(sshd: Sshd) -> None:
    async def main(host: SshHost) -> None:
        sshd.stop()
        waiting = [asyncio.create_task(host.run(["true"], seconds=30)) for _ in range(5)]
        await asyncio.sleep(0.3)
        sshd.start()
        assert all(done.code == 0 for done in await asyncio.gather(*waiting))

    using(target_of(sshd), main, retry=Retry(29, 0.05))


def test_a_host_that_is_away_is_not_stormed(sshd: Sshd) -> None:
    async def main(host: SshHost) -> None:
        sshd.stop()
        attempts = 0
        connect = host._line._make

        async def counted() -> object:
            nonlocal attempts
            attempts += 1
            return await connect()

        host._line._make = counted  # type: ignore[method-assign,assignment]
        for _ in range(5):
            storm = (host.run(["true"], seconds=20) for _ in range(40))
            for result in await asyncio.gather(*storm, return_exceptions=True):
                assert isinstance(result, ProviderUnreachable)
        assert attempts == 1, "each of 200 calls tried by itself"

    using(target_of(sshd), main, retry=Retry(1, 1.0), sessions=3)


def test_a_host_that_stands_still_is_noticed(sshd: Sshd) -> None:
    async def main(host: SshHost) -> None:
        channel = await host.open(["cat"])
        sshd.freeze()
        try:
            async with asyncio.timeout(10):
                assert await channel.wait_closed() is None
            with pytest.raises(ProviderUnreachable) as caught:
                await host.run(["true"], seconds=20)
            assert caught.value.reason == "ConnectTimedOut"
        finally:
            sshd.thaw()

    using(target_of(sshd), main, keepalive_seconds=0.2, connect_seconds=0.5, retry=Retry(0, 0.05))
