"""Job folders on a login host: made once, looked at in one call, and no way out of the root."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.base import ProviderError, SwarmHandle
from tests.remote.harness import FILES, JOB, SWARM, Controller, folder, on_lab
from worker.attendant.files import make_job

OTHER = SwarmHandle("default", "other", "fedcba9876543210")


def test_a_job_is_made_whole_and_private(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        for _ in range(2):
            made = await one.host.make_job(SWARM, JOB, FILES, index=3)
            assert (made.folder, made.claimed) == (str(folder(tmp_path)), False)
        job = folder(tmp_path)
        modes = {p.relative_to(job).as_posix(): p.stat().st_mode & 0o777 for p in job.rglob("*")}
        assert modes == {
            "env": 0o600,
            "worker.json": 0o600,
            "batch.sh": 0o700,
            "heartbeat": 0o600,
            "mailbox": 0o700,
            "mailbox/inbox": 0o700,
            f"mailbox/inbox/{JOB}_03.jsonl": 0o600,
            "mailbox/outbox": 0o700,
            f"mailbox/outbox/{JOB}_03.jsonl": 0o600,
            "secrets": 0o700,
        }
        (seen,) = await one.host.jobs(SWARM)
        assert seen.heartbeat is None
        assert {name: (job / name).read_text() for name in FILES} == FILES

    on_lab(tmp_path, scenario)


def test_a_claimed_job_is_left_alone(tmp_path: Path) -> None:
    """Its worker has read and removed its environment, which must not come back."""

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        (folder(tmp_path) / "claim").write_text("4711\n")
        (folder(tmp_path) / "env").unlink()
        assert (await one.host.make_job(SWARM, JOB, FILES)).claimed
        assert not (folder(tmp_path) / "env").exists()
        (seen,) = await one.host.jobs(SWARM)
        assert (seen.claim, seen.prepared) == ("4711", True)

    on_lab(tmp_path, scenario)


def test_a_folder_that_is_shut_is_nobodys_and_holds_no_secrets(tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "kept").touch()

    async def scenario(one: Controller) -> None:
        top = folder(tmp_path).parent
        for job in ("waits", "began", "ended"):
            await one.host.make_job(SWARM, job, FILES)
            (top / job / "secrets" / "a.json").touch()
        for job in ("began", "ended"):
            (top / job / "claim").write_text("17 ab\n")
        (top / "ended" / "secrets" / "a.json").unlink()
        (top / "ended" / "secrets").rmdir()
        (top / "ended" / "secrets").symlink_to(secret)
        for _ in range(2):
            await one.host.shut(SWARM, ["waits", "began", "ended", "none"], ["ended"])
        claims = {job.job: job.claim for job in await one.host.jobs(SWARM)}
        assert claims == {"waits": "cancelled", "began": "17 ab", "ended": "17 ab"}
        assert (top / "began" / "env").exists() and (top / "began" / "secrets" / "a.json").exists()
        for job in ("waits", "ended"):
            assert not (top / job / "env").exists()
            assert not os.path.lexists(top / job / "secrets")
        assert (secret / "kept").exists()
        assert not list(top.glob("*/.claim*"))
        assert (await one.host.make_job(SWARM, "waits", FILES)).claimed
        assert not (top / "waits" / "env").exists()

    on_lab(tmp_path, scenario)


def test_an_environment_that_came_back_while_it_was_taken_up_goes(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        await one.host.jobs(SWARM)
        assert (folder(tmp_path) / "env").exists()
        os.utime(folder(tmp_path) / "heartbeat")
        await one.host.jobs(SWARM)
        assert not (folder(tmp_path) / "env").exists()

    on_lab(tmp_path, scenario)


def test_no_other_file_is_written(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        for name in ("claim", "../x", "/etc/x", "heartbeat"):
            with pytest.raises(ProviderError) as refused:
                await one.host.make_job(SWARM, JOB, {name: "x"})
            assert refused.value.reason == "BadRequest"
        assert not folder(tmp_path).exists()

    on_lab(tmp_path, scenario)


def test_all_jobs_of_a_swarm_are_seen_in_one_call(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        assert await one.host.jobs(SWARM) == []
        await asyncio.gather(*(one.host.make_job(SWARM, f"j-{n}", FILES) for n in range(4)))
        await one.host.make_job(OTHER, "elsewhere", FILES)
        top = folder(tmp_path).parent
        (top / "j-1" / "claim").write_text("12\n")
        (top / "j-1" / "worker.pid").write_text("{}")
        (top / "j-1" / "heartbeat").touch()
        os.utime(top / "j-1" / "heartbeat", (5, 12.5))
        (top / "j-2" / "failure").write_text(
            json.dumps({"reason": "PythonNotFound", "message": "there is none"})
        )
        (top / "j-3" / "failure").write_text("line 3: syntax error")
        seen = {facts.job: facts for facts in await one.host.jobs(SWARM)}
        assert sorted(seen) == ["j-0", "j-1", "j-2", "j-3"]
        first = seen["j-0"]
        assert first.prepared and not first.begun
        assert first.claim is first.failure is first.heartbeat is None
        assert (seen["j-1"].claim, seen["j-1"].begun, seen["j-1"].heartbeat) == ("12", True, 12.5)
        assert seen["j-2"].failure == ("PythonNotFound", "there is none")
        assert seen["j-3"].failure == ("StartFailed", "line 3: syntax error")

    on_lab(tmp_path, scenario)


def test_what_an_agent_may_plant_is_not_believed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        job = folder(tmp_path)
        for name in ("claim", "failure", "heartbeat"):
            (job / name).unlink(missing_ok=True)
            (job / name).symlink_to(secret)
        (job.parent / "a b").mkdir()
        (job.parent / ".hidden").mkdir()
        (job.parent / "link").symlink_to(tmp_path)
        (job.parent / "submit.lock").touch()
        os.mkfifo(job / "worker.pid")
        (seen,) = await one.host.jobs(SWARM)
        assert (seen.claim, seen.failure, seen.heartbeat) == (None, None, None)
        (job / "failure").unlink()
        os.mkfifo(job / "failure")
        (seen,) = await one.host.jobs(SWARM)
        assert seen.failure is None
        for told in ("[" * 5000, json.dumps({"reason": "a b!", "message": ["x"] * 3000}), "\udcff"):
            (job / "failure").unlink()
            (job / "failure").write_bytes(told.encode(errors="surrogateescape"))
            (seen,) = await one.host.jobs(SWARM)
            assert seen.failure is not None and seen.failure[0] == "StartFailed"
            assert len(seen.failure[1]) <= 4000

    on_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    "level", ["default", "default/team-01234567", f"default/team-01234567/{JOB}"]
)
def test_nothing_is_done_behind_a_link(tmp_path: Path, level: str) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()

    async def scenario(one: Controller) -> None:
        await one.host.known()
        place = tmp_path / "work" / level
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(precious)
        calls = [
            one.host.make_job(SWARM, JOB, FILES),
            one.host.deliver(SWARM, JOB, 0, {"type": "control"}, secrets={"a": "b"}),
        ]
        if not level.endswith(JOB):
            calls += [one.host.jobs(SWARM), one.host.remove(SWARM)]
            calls += [one.host.archive(SWARM, tmp_path / "archives")]
        for call in calls:
            with pytest.raises(ProviderError) as refused:
                await call
            assert refused.value.reason == "UnsafePath"
        if level.endswith(JOB):
            assert await one.host.jobs(SWARM) == []
            await one.host.remove(SWARM)
            assert not place.is_symlink()
        assert list(precious.iterdir()) == []

    on_lab(tmp_path, scenario)


def test_jobs_are_removed_one_by_one_and_together(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        for swarm in (SWARM, OTHER):
            for job in ("a", "b"):
                await one.host.make_job(swarm, job, FILES)
        await one.host.remove(SWARM, ["a", "never-there"])
        assert [facts.job for facts in await one.host.jobs(SWARM)] == ["b"]
        for _ in range(2):
            await one.host.remove(SWARM)
        assert not folder(tmp_path).parent.exists()
        assert len(await one.host.jobs(OTHER)) == 2
        await one.host.remove(OTHER)
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["worker"]
        with pytest.raises(ProviderError):
            await one.host.remove(OTHER, [".."])

    on_lab(tmp_path, scenario)


def test_a_swarm_comes_home_as_an_archive(tmp_path: Path) -> None:
    noise = os.urandom(3 << 20)

    async def scenario(one: Controller) -> None:
        await one.host.make_job(SWARM, JOB, FILES)
        (folder(tmp_path) / "repo").mkdir()
        (folder(tmp_path) / "repo" / "file").write_bytes(noise)
        path = await one.host.archive(SWARM, tmp_path / "archives")
        with tarfile.open(path) as tar:
            packed = tar.extractfile(f"team-01234567/{JOB}/repo/file")
            assert packed is not None and packed.read() == noise
            names = tar.getnames()
            assert f"team-01234567/{JOB}/env" not in names
            assert f"team-01234567/{JOB}/secrets" not in names
        await one.host.remove(SWARM)
        assert await one.host.archive(SWARM, tmp_path / "archives") == path, "it is found again"
        assert await one.host.archive(OTHER, tmp_path / "x.tgz") == tmp_path / "x.tgz"
        with pytest.raises(ProviderError) as refused:
            await one.host.archive(SWARM, tmp_path / "x.tgz")
        assert refused.value.reason == "ArchiveExists"

    on_lab(tmp_path, scenario)


def test_a_call_that_is_not_known(tmp_path: Path) -> None:
    async def scenario(one: Controller) -> None:
        for verb, told in (("fly", {}), ("jobs", {}), ("jobs", {"swarm": ["a"]}), ("deliver", {})):
            with pytest.raises(ProviderError) as refused:
                await one.host.call(verb, told)
            assert refused.value.reason == "BadRequest"
        with pytest.raises(ProviderError):
            await one.host.download("fly", {}, tmp_path / "x")
        assert not (tmp_path / "x").exists()

    on_lab(tmp_path, scenario)


def test_many_who_make_one_job_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Two controllers, or three launches of one: the folder is whole and nobody is refused."""
    with ThreadPoolExecutor(8) as pool:
        made = [
            pool.submit(make_job, tmp_path, ("default", "team"), JOB, 0, FILES) for _ in range(200)
        ]
        assert not any(one.result()["claimed"] for one in made)
    folder = tmp_path / "default" / "team" / JOB
    assert (folder / "worker.json").read_text() == FILES["worker.json"]
    assert not list(folder.glob(".*.part"))
