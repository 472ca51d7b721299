"""Repositories to a login host and back, and transfers that are cut."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.remote_stores import StoresOverSsh
from tests.providers.harness import until
from tests.remote.harness import FILES, JOB, SWARM, Controller, folder, on_lab

STORE = "0b1c2d3e.git"


def git(path: Path, *arguments: str) -> str:
    """Run git in a repository."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(path), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits and some megabytes."""
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    for name in ("a", "b"):
        (path / name).write_bytes(os.urandom(2 << 20))
        git(path, "add", ".")
        git(path, "commit", "-q", "-m", name)
    return path


def bundle(repository: Path, path: Path, *what: str) -> Path:
    """A bundle of a repository."""
    git(repository, "bundle", "create", "-q", str(path), *what)
    return path


def test_commits_go_there_and_come_back(tmp_path: Path, repository: Path) -> None:
    head, first = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD~1")

    async def scenario(one: Controller) -> None:
        stores = StoresOverSsh(lambda swarm: one.host)
        assert stores.place(SWARM) == f"ada@lab:{tmp_path}/work"
        place = await stores.locate(SWARM, STORE)
        assert place == f"{tmp_path}/work/stores/{STORE}"
        assert await stores.lacking(SWARM, STORE, [head, first]) == {head, first}
        sent = bundle(repository, tmp_path / "out.bundle", "main")
        for _ in range(2):
            await stores.put(SWARM, STORE, sent, [head])
        assert await stores.lacking(SWARM, STORE, [head, first]) == frozenset()
        assert head in await stores.tips(SWARM, STORE)

        git(repository, "push", "-q", place, f"{head}:refs/codeswarm/u/1")
        back = tmp_path / "back.bundle"
        await stores.get(SWARM, STORE, "refs/codeswarm/u/1", [first], back, limit=16 << 20)
        assert git(repository, "bundle", "list-heads", str(back)).split()[0] == head
        assert 2 << 20 < back.stat().st_size < 3 << 20, "less what is known"

        with pytest.raises(ProviderError) as refused:
            await stores.get(SWARM, STORE, "refs/codeswarm/u/2", [], tmp_path / "x", limit=1 << 20)
        assert refused.value.reason == "RefNotFound"
        with pytest.raises(ProviderError) as refused:
            ref = "refs/codeswarm/u/1"
            await stores.get(SWARM, STORE, ref, [], tmp_path / "x", limit=1 << 20)
        assert refused.value.reason == "BundleTooLarge"
        assert not (tmp_path / "x").exists() and not (tmp_path / ".x.part").exists()

        await stores.discard(SWARM, STORE)
        assert not Path(place).exists()
        assert await stores.lacking(SWARM, STORE, [head]) == {head}

    on_lab(tmp_path, scenario)


def test_an_upload_that_is_cut_is_in_doubt_and_can_be_repeated(
    tmp_path: Path, repository: Path
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    sent = bundle(repository, tmp_path / "out.bundle", "main")

    async def scenario(one: Controller) -> None:
        stores = StoresOverSsh(lambda swarm: one.host)
        await one.host.known()
        before = len(one.shell.channels)

        async def begun() -> bool:
            return len(one.shell.channels) > before

        for kill in (True, False):
            putting = asyncio.create_task(stores.put(SWARM, STORE, sent, [head]))
            await until(begun, "the transfer")
            channel = one.shell.channels[-1]
            (channel.kill if kill else channel.close)()
            with pytest.raises((OutcomeUnknown, ProviderUnreachable)):
                await putting
            before = len(one.shell.channels)
        await stores.put(SWARM, STORE, sent, [head])
        assert await stores.lacking(SWARM, STORE, [head]) == frozenset()

    on_lab(tmp_path, scenario)


def test_a_download_that_stalls_is_given_up_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.remote_transfer.STALL_SECONDS", 0.5)

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        with (folder(tmp_path) / "large").open("wb") as file:
            for _ in range(32):
                file.write(os.urandom(1 << 20))
        before = len(one.shell.channels)
        packing = asyncio.create_task(one.host.archive(SWARM, tmp_path / "archives"))
        part = tmp_path / "archives" / ".default-team-01234567.tar.gz.part"

        async def begun() -> bool:
            return len(one.shell.channels) > before and part.exists() and part.stat().st_size > 0

        await until(begun, "the transfer")
        channel = one.shell.channels[-1]
        channel.signal(signal.SIGSTOP)
        try:
            with pytest.raises(ProviderUnreachable, match="no progress"):
                await packing
        finally:
            channel.kill()
        assert list((tmp_path / "archives").iterdir()) == []
        monkeypatch.setattr("providers.remote_transfer.STALL_SECONDS", 30.0)
        await one.host.archive(SWARM, tmp_path / "archives")

    on_lab(tmp_path, scenario)


def test_mail_does_not_wait_for_a_transfer(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        (folder(tmp_path) / "large").write_bytes(os.urandom(24 << 20))
        packing = asyncio.create_task(one.host.archive(SWARM, tmp_path / "archives"))
        delivered = 0
        while not packing.done():
            await one.host.deliver(SWARM, JOB, 0, {"type": "control"})
            delivered += 1
        assert delivered > 5
        await packing

    on_lab(tmp_path, scenario)


def test_many_transfers_take_turns(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        most = 0

        async def count() -> None:
            nonlocal most
            while True:
                running = [c for c in one.shell.channels if c.process.returncode is None]
                most = max(most, len(running))
                await asyncio.sleep(0.005)

        counting = asyncio.create_task(count())
        await asyncio.gather(*(one.host.archive(SWARM, tmp_path / f"a{n}") for n in range(9)))
        counting.cancel()
        assert 2 < most <= 1 + 4 + 4, "the attendant, four transfers, and some that just end"

    on_lab(tmp_path, scenario)
