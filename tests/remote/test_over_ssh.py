"""The attendant over a real sshd: cuts, a host that goes away or stands still, and transfers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable, SwarmHandle
from providers.slurm_remote import RemoteLogins
from providers.ssh import Retry, SshHost
from tests.providers.harness import run, until
from tests.remote.harness import (
    FILES,
    JOB,
    SWARM,
    Controller,
    append,
    attendant,
    folder,
    gone,
    outbox,
)
from tests.ssh.hosts import FILES as FILES_OF_OURS
from tests.ssh.hosts import host_of, target_of
from tests.sshd import Sshd


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    monkeypatch.setattr("providers.remote.LONGEST_PAUSE", 0.3)


def over(
    sshd: Sshd,
    path: Path,
    scenario: Callable[[Controller], Coroutine[Any, Any, None]],
    **settings: Any,
) -> None:
    """Run a scenario with a root below ``path``."""

    async def whole() -> None:
        settings.setdefault("retry", Retry(1, 0.05))
        shell: SshHost = host_of(target_of(sshd), **settings)
        try:
            async with Controller(shell, str(path / "work")) as one:
                await scenario(one)
        finally:
            await shell.close()

    run(whole)


def test_records_survive_cuts_in_the_middle_of_their_stream(
    login_host: Sshd, tmp_path: Path
) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        for turn in range(4):
            for number in range(50):
                append(
                    outbox(tmp_path),
                    b"%d.%d " % (turn, number) + random.randbytes(9999).hex().encode(),
                )
            await asyncio.sleep(0.05)
            await asyncio.to_thread(login_host.cut)
        await one.hears(outbox(tmp_path).read_bytes().splitlines())

    over(login_host, tmp_path, scenario)


def test_a_call_that_is_cut_is_in_doubt(login_host: Sshd, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        pid = await attendant(one)
        command = ["sh", "-c", f"touch {tmp_path}/begun; sleep 0.7; touch {tmp_path}/done"]
        running = asyncio.create_task(one.host.run(command, effect=True, detached=True))

        async def begun() -> bool:
            return (tmp_path / "begun").exists()

        await until(begun, "the command")
        await asyncio.to_thread(login_host.cut)
        with pytest.raises(OutcomeUnknown):
            await running
        await gone(pid)

        async def done() -> bool:
            return (tmp_path / "done").exists()

        await until(done, "its end")
        assert await attendant(one) != pid

    over(login_host, tmp_path, scenario)


def test_a_login_host_that_is_away_and_comes_back(login_host: Sshd, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        await asyncio.to_thread(login_host.stop)
        try:

            async def away() -> bool:
                try:
                    await one.host.jobs(SWARM)
                except ProviderUnreachable as error:
                    return error.reason == "ConnectionRefused"
                return False

            await until(away, "the host to be away")
            append(outbox(tmp_path), b"1")
        finally:
            await asyncio.to_thread(login_host.start)
        await one.hears([b"1"])
        assert [facts.job for facts in await one.host.jobs(SWARM)] == [JOB]

    over(login_host, tmp_path, scenario)


def test_a_login_host_that_stands_still(
    login_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote.PING_SECONDS", 0.2)
    monkeypatch.setattr("providers.remote.SILENCE_SECONDS", 1.0)

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        await asyncio.to_thread(login_host.freeze)
        try:
            with pytest.raises(OutcomeUnknown):
                await one.host.deliver(SWARM, JOB, 0, {"type": "control"})
        finally:
            await asyncio.to_thread(login_host.thaw)
        append(outbox(tmp_path), b"1")
        await one.hears([b"1"])

    over(login_host, tmp_path, scenario, connect_seconds=2.0)


def test_an_attendant_that_is_killed_is_started_again(login_host: Sshd, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        for number in range(3):
            os.kill(await attendant(one), signal.SIGKILL)
            append(outbox(tmp_path), b"%d" % number)
            await one.hears([b"%d" % n for n in range(number + 1)])

    over(login_host, tmp_path, scenario)


def test_large_files_come_home_while_mail_goes_on(login_host: Sshd, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        one.host.follow(SWARM, JOB, 0, 0)
        (folder(tmp_path) / "large").write_bytes(os.urandom(16 << 20))
        packing = [
            asyncio.create_task(one.host.archive(SWARM, tmp_path / name)) for name in ("a", "b")
        ]
        slowest = 0.0
        number = 0
        while not all(task.done() for task in packing):
            begun = time.monotonic()
            append(outbox(tmp_path), b"%d" % number)
            await one.host.flush(JOB)
            slowest = max(slowest, time.monotonic() - begun)
            number += 1
        paths = [await task for task in packing]
        assert all(path.stat().st_size > 16 << 20 for path in paths)
        assert number > 3 and slowest < 5
        await one.hears([b"%d" % n for n in range(number)])

    over(login_host, tmp_path, scenario)


def test_a_transfer_that_is_cut_leaves_no_file(login_host: Sshd, tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        (folder(tmp_path) / "large").write_bytes(os.urandom(32 << 20))
        packing = asyncio.create_task(one.host.archive(SWARM, tmp_path / "archives"))
        part = tmp_path / "archives" / ".default-team-01234567.tar.gz.part"

        async def begun() -> bool:
            return part.exists() and part.stat().st_size > 0

        await until(begun, "the transfer")
        await asyncio.to_thread(login_host.cut)
        with pytest.raises(ProviderUnreachable):
            await packing
        assert list((tmp_path / "archives").iterdir()) == []
        assert (await one.host.archive(SWARM, tmp_path / "archives")).exists()

    over(login_host, tmp_path, scenario)


def test_many_roots_on_one_host_leave_sessions_for_commands(
    login_host: Sshd, tmp_path: Path
) -> None:
    """Each root has an attendant, which keeps a session for as long as it lives."""

    async def whole() -> None:
        logins = RemoteLogins(lambda: FILES_OF_OURS)
        logins.start(lambda batch: None, None)
        try:
            async with asyncio.timeout(50):
                for number in range(10):
                    parameters = login_host.parameters(workspaceRoot=str(tmp_path / f"{number}"))
                    swarm = SwarmHandle("default", "team", "0123456789abcdef", parameters)
                    login = logins.host(swarm)
                    assert (await login.run(["echo", "here"], seconds=10)).out == "here\n"
                    (tmp_path / f"a{number}").mkdir()
                    await login.archive(swarm, tmp_path / f"a{number}")
        finally:
            await logins.close()

    run(whole)


@pytest.mark.soak
def test_minutes_of_faults(
    login_host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cuts, kills, a host away or standing still, while fifty workers write and get mail."""
    monkeypatch.setattr("providers.remote.PING_SECONDS", 0.2)
    monkeypatch.setattr("providers.remote.SILENCE_SECONDS", 1.0)
    jobs = [f"team-{n}-1" for n in range(50)]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def fault(one: Controller) -> None:
        kind = chance.choice(["cut", "kill", "away", "still", "cut twice"])
        if kind == "kill":
            with suppress(ProviderError):
                os.kill(await attendant(one), signal.SIGKILL)
        elif kind == "away":
            await asyncio.to_thread(login_host.stop)
            await asyncio.sleep(chance.random() * 2)
            await asyncio.to_thread(login_host.start)
        elif kind == "still":
            await asyncio.to_thread(login_host.freeze)
            await asyncio.sleep(chance.random() * 3)
            await asyncio.to_thread(login_host.thaw)
        else:
            await asyncio.to_thread(login_host.cut)
            if kind == "cut twice":
                await asyncio.sleep(chance.random() * 0.3)
                await asyncio.to_thread(login_host.cut)

    async def scenario(one: Controller) -> None:
        for job in jobs:
            await one.host.make_job(SWARM, job, FILES)
            one.host.follow(SWARM, job, 0, 0)
        until_then = time.monotonic() + 120
        delivered: dict[str, set[str]] = {job: set() for job in jobs}

        async def write() -> None:
            number = 0
            while time.monotonic() < until_then:
                number += 1
                for job in jobs:
                    noise = b"x" * chance.randrange(3000)
                    append(outbox(tmp_path, job), b"%d " % number + noise)
                await asyncio.sleep(0.1)

        async def deliver() -> None:
            number = 0
            while time.monotonic() < until_then:
                job, number = chance.choice(jobs), number + 1
                record = {"type": "user", "injection_id": f"u.{number}"}
                while True:  # as the controller does: until it is known to have arrived
                    try:
                        await one.host.deliver(SWARM, job, 0, record)
                        break
                    except ProviderError:
                        await asyncio.sleep(0.05)
                delivered[job].add(record["injection_id"])

        async def disturb() -> None:
            while time.monotonic() < until_then:
                await asyncio.sleep(chance.random() * 2)
                await fault(one)

        await asyncio.gather(write(), disturb(), *(deliver() for _ in range(4)))
        for job in jobs:
            await one.hears(outbox(tmp_path, job).read_bytes().splitlines(), job)
            inbox = folder(tmp_path, job) / "mailbox" / "inbox" / f"{job}_00.jsonl"
            lines = inbox.read_bytes().splitlines() if inbox.exists() else []
            assert {json.loads(line)["injection_id"] for line in lines} >= delivered[job]

    over(login_host, tmp_path, scenario, connect_seconds=2.0)
