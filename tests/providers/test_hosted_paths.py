"""Where things lie is the worker host's business: what a controller can choose of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers.base import JobState, ProviderError, SwarmHandle
from tests.providers.harness import new_swarm, request, run, session
from tests.providers.hosting import HostedHarness, hosted


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[HostedHarness]:
    """A host that allows one further root."""
    (tmp_path / "scratch").mkdir()
    with hosted(tmp_path, workspace_roots=[tmp_path / "scratch"]) as harness:
        yield harness


def at(swarm: SwarmHandle, root: Path | str) -> SwarmHandle:
    """The swarm with a root of its own."""
    return replace(swarm, parameters={"workspaceRoot": str(root)})


def test_a_worker_is_told_the_hosts_own_paths(harness: HostedHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        wanted = request(swarm, stores="/controller/stores", hint="/etc/passwd", node="local")
        async with session(harness) as one:
            await one.provider.launch([wanted])
            (path,) = harness.root.glob(f"default/*/{wanted.job}/worker.json")
            told = json.loads(path.read_text())
            assert told["stores"] == str(harness.root / "stores")
            assert told["hint"] == str(harness.root / "outbox.wake")
            assert told["node"] == "local"
            record = {
                "type": "control",
                "injection_id": "u.1",
                "content": "",
                "repository": {"url": "u", "store": "/controller/stores/u.git"},
            }
            await one.provider.deliver(swarm, wanted.job, 0, record)
            (inbox,) = path.parent.glob("mailbox/inbox/*.jsonl")
            assert json.loads(inbox.read_text())["repository"] == {"url": "u"}

    run(scenario)


@pytest.mark.parametrize("root", ["", "team", "team/../team"])
def test_a_root_below_an_allowed_one_is_used(harness: HostedHarness, root: str) -> None:
    async def scenario() -> None:
        scratch = Path(harness.workspace_roots[0])
        swarm = at(new_swarm(harness), scratch / root)
        job = request(swarm).job
        async with session(harness) as one:
            await one.provider.launch([request(swarm)])
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            await one.prompt(swarm, job, "u.1")
            await one.said(job, "turn_complete", "u.1")
            assert list((scratch / root).resolve().glob(f"default/*/{job}"))
            await one.provider.stop(swarm, [job], force=True)
            await one.reach(swarm, JobState.ENDED, job)
            await one.provider.remove(swarm)
            assert await one.provider.observe(swarm) == []

    run(scenario)


@pytest.mark.parametrize(
    "root", ["/etc", "relative", "~nobody-of-that-name/x", "{scratch}/..", "{scratch}-2", "{link}"]
)
def test_any_other_root_is_refused_and_in_nobodys_way(
    harness: HostedHarness, root: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    (scratch / "link").symlink_to("/etc")
    chosen = root.format(scratch=scratch, link=scratch / "link")

    async def scenario() -> None:
        swarm = at(new_swarm(harness), chosen)
        job = request(swarm).job
        async with session(harness) as one:
            calls: list[Any] = [
                one.provider.launch([request(swarm)]),
                one.prompt(swarm, job, "u.1"),
                one.provider.archive(swarm, harness.archives),
            ]
            for call in calls:
                with pytest.raises(ProviderError) as refused:
                    await call
                assert refused.value.reason == "WorkspaceRootNotAllowed"
                assert str(scratch) in str(refused.value)
            one.provider.follow(swarm, job, 0, 0)
            await one.provider.flush(job)
            # So that the swarm can be deleted, or be given another root.
            assert await one.provider.observe(swarm) == []
            await one.provider.stop(swarm, [job], force=True)
            await one.provider.remove(swarm)

    run(scenario)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("", "default-team-{uid}.tar.gz"),
        ("kept", "kept/default-team-{uid}.tar.gz"),
        ("kept for/..later/ü", "kept for/..later/ü/default-team-{uid}.tar.gz"),
        ("mine.tar.gz", "mine.tar.gz"),
    ],
)
def test_an_archive_lies_in_the_hosts_folder(harness: HostedHarness, path: str, place: str) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        async with session(harness) as one:
            packed = await one.provider.archive(swarm, harness.archives / path)
            assert packed == harness.root / "archives" / place.format(uid=swarm.uid[:8])
            assert packed.is_file()
            assert not harness.archives.exists()

    run(scenario)


@pytest.mark.parametrize("path", ["/etc/archive", "../elsewhere", "a/../../b", "out", "out/x.tgz"])
def test_an_archive_leads_nowhere_else(harness: HostedHarness, path: str, tmp_path: Path) -> None:
    (harness.root / "archives").mkdir()
    (harness.root / "archives" / "out").symlink_to(tmp_path)

    async def scenario() -> None:
        async with session(harness) as one:
            with pytest.raises(ProviderError) as refused:
                await one.provider.archive(new_swarm(harness), harness.archives / path)
            assert refused.value.reason == "InvalidArchivePath"

    run(scenario)


def test_a_projects_git_store_is_removed(harness: HostedHarness, tmp_path: Path) -> None:
    async def scenario() -> None:
        stores = harness.root / "stores"
        (stores / "uid.git" / "objects").mkdir(parents=True)
        (stores / "uid.git" / "objects" / "pack").write_bytes(b"x")
        (stores / "uid.git.lock").touch()
        (stores / "other.git").mkdir()
        (stores / "link.git").symlink_to(tmp_path)
        async with session(harness) as one:
            for _ in range(2):
                await one.provider.discard_store("uid.git")
            await one.provider.discard_store("link.git")
            assert [path.name for path in stores.iterdir()] == ["other.git"]
            for name in ("..", "../other.git", "", "a/b"):
                with pytest.raises(ProviderError) as refused:
                    await one.provider.discard_store(name)
                assert refused.value.reason == "InvalidName"
        assert tmp_path.exists()

    run(scenario)
