"""Workers as jobs: submitted once, found again, ended, and told how they ended."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import time
import uuid
from pathlib import Path

import pytest

from providers.base import (
    JobState,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from tests.slurm import Slurm, running
from tests.slurm_provider.jobs import World, play, until


def test_a_worker_is_submitted_once_answers_and_leaves(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        one, two = world.request(3), world.request(4)
        assert await world.provider.observe(world.swarm) == []
        await asyncio.gather(*(world.provider.launch([one, two, one]) for _ in range(3)))
        first = await world.status(one.job)
        assert first.state in (JobState.PENDING, JobState.RUNNING)
        await world.provider.launch([one])
        up = await world.running(one.job)
        assert up.handle == f"job {world.id(one.job)}_3"
        assert len(slurm.ids(one.job)) == len(slurm.ids(two.job)) == 1
        world.provider.follow(world.swarm, one.job, 3, 0)
        await world.session.ready(one.job)
        await world.session.prompt(world.swarm, one.job, "u.1", index=3)
        await world.session.said(one.job, "turn_complete", "u.1")
        with pytest.raises(ProviderError) as refused:
            await world.provider.remove(world.swarm, [one.job])
        assert refused.value.reason == "StillRunning"
        await world.provider.stop(world.swarm, [one.job], force=False)
        assert (await world.ended(one.job)).reason in ("Cancelled", "Completed", "Completing")
        await world.provider.launch([one])
        assert len(slurm.ids(one.job)) == 1
        await world.provider.remove(world.swarm, [one.job])
        assert [seen.job for seen in await world.provider.observe(world.swarm)] == [two.job]
        await world.provider.stop(world.swarm, [two.job, "no-such-worker"], force=True)
        await world.ended(two.job)
        await world.provider.remove(world.swarm)
        assert list(root.glob("default/*")) == []

    play(World(slurm, root), scenario)


def test_a_submission_whose_answer_is_lost_is_found_again(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        wanted = [world.request(0), world.request(1)]
        world.login.lose = "sbatch"
        with pytest.raises(OutcomeUnknown):
            await world.provider.launch(wanted)
        await world.provider.close()
        world.again()
        await world.provider.launch(wanted)
        for one in wanted:
            await world.running(one.job)
            assert len(slurm.ids(one.job)) == 1

    play(World(slurm, root), scenario)


def test_a_job_that_nobody_sees_when_its_worker_is_stopped_begins_in_vain(
    slurm: Slurm, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still being submitted then, or slurmctld lost sight of it."""

    async def scenario(world: World) -> None:
        one = world.request(0)
        for node in slurm.names:
            slurm.set_node(node, "drain")
        await world.provider.launch([one])
        id = world.id(one.job)
        with monkeypatch.context() as blind:
            blind.setattr("providers.slurm_client.parse_queue", lambda text: [])
            await world.provider.stop(world.swarm, [one.job], force=True)
            assert (await world.ended(one.job)).reason == "Cancelled"
        assert not (world.folder(one.job) / "env").exists()
        for node in slurm.names:
            slurm.set_node(node, "resume")

        async def over() -> bool:
            return id in slurm.ids(one.job, "COMPLETED")

        await until(over, "the job to end")
        await world.ended(one.job)
        assert not (world.folder(one.job) / "worker.pid").exists()

    play(World(slurm, root), scenario)


def test_a_full_disk_keeps_no_job_from_being_cancelled(
    slurm: Slurm, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    async def scenario(world: World) -> None:
        one = world.request(0)
        await world.provider.launch([one])
        await world.running(one.job)
        monkeypatch.setattr("worker.attendant.files.write_private", full)
        await world.provider.stop(world.swarm, [one.job], force=True)
        await world.ended(one.job)

    play(World(slurm, root), scenario)


def put_before(world: World, path: Path, **programs: str) -> None:
    """Have the login host find these shell scripts before the real programs."""
    path.mkdir()
    for name, text in programs.items():
        (path / name).write_text(f"#!/bin/sh\n{text}\n")
        (path / name).chmod(0o700)
    world.login.environment["PATH"] = f"{path}:{os.environ['PATH']}"


def test_an_sbatch_that_hangs_is_ended_and_its_outcome_looked_for(
    slurm: Slurm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself: it holds the swarm's lock, also when nobody is connected any more."""
    monkeypatch.setattr("providers.slurm_client.SUBMIT_SECONDS", 1)

    async def scenario(world: World) -> None:
        put_before(world, tmp_path / "bin", sbatch="exec sleep 60")
        monkeypatch.setattr("providers.slurm_client.min", lambda *of: 30, raising=False)
        with pytest.raises(OutcomeUnknown):
            await world.provider.launch([world.request(0)])
        world.login.environment["PATH"] = os.environ["PATH"]
        monkeypatch.setattr("providers.slurm_client.SUBMIT_SECONDS", 60)
        await world.provider.launch([world.request(0)])
        await world.running(world.request(0).job)

    play(World(slurm, root), scenario)


def test_a_worker_whose_jobs_are_never_seen_is_not_submitted_for_ever(
    slurm: Slurm, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        one = world.request(0)
        put_before(world, tmp_path / "bin", sbatch="echo 99999999")

        async def unclear() -> bool:
            try:
                await world.provider.launch([one])
            except ProviderError as error:
                return error.reason == "SubmissionUnclear"
            return False

        await until(unclear, "it to be given up")
        assert sum("sbatch" in argv for argv in world.login.ran) == 3
        world.login.environment["PATH"] = os.environ["PATH"]
        monkeypatch.setattr("providers.slurm_launch.UNSEEN_SECONDS", 0.0)
        await world.provider.launch([one])
        await world.running(one.job)

    play(World(slurm, root), scenario)


def test_a_worker_that_takes_its_time_to_end_is_not_cancelled_again_and_again(
    slurm: Slurm, root: Path
) -> None:
    async def scenario(world: World) -> None:
        one = world.request(0)
        await world.provider.launch([one])
        await world.running(one.job)
        os.kill(_pid(world, one.job), signal.SIGSTOP)
        for _ in range(5):
            await world.provider.stop(world.swarm, [one.job], force=False)
        assert sum("scancel" in argv for argv in world.login.ran) == 1
        for _ in range(5):
            await world.provider.stop(world.swarm, [one.job], force=True)
        await world.ended(one.job)
        assert sum("scancel" in argv for argv in world.login.ran) <= 3

    play(World(slurm, root), scenario)


def test_a_worker_that_slurmctld_forgot_runs_on_and_none_is_begun_beside_it(root: Path) -> None:
    async def scenario(world: World) -> None:
        slurm = world.slurm
        one = world.request(0)
        await world.provider.launch([one])
        before = await world.running(one.job)
        claim = (world.folder(one.job) / "claim").read_text()
        slurm.kill_ctld()
        with pytest.raises(ProviderUnreachable) as away:
            await world.provider.launch([world.request(1)])
        assert away.value.reason == "SlurmUnreachable"
        shutil.rmtree(slurm.root / "state")
        (slurm.root / "state").mkdir()
        slurm.start_ctld()
        assert slurm.ids(one.job) == []
        assert before.handle.endswith("_0")

        async def forgotten() -> bool:
            try:
                seen = await world.status(one.job)
            except ProviderUnreachable:
                return False
            assert (seen.state, seen.reason) == (JobState.RUNNING, "ForgottenBySlurm")
            return seen.handle == before.handle.removesuffix("_0")

        await until(forgotten, "slurmctld to answer")
        await world.provider.launch([one])
        assert slurm.ids(one.job) == []
        assert (world.folder(one.job) / "claim").read_text() == claim
        await world.provider.stop(world.swarm, [one.job], force=False)
        await world.ended(one.job, "gone")

    with running(nodes=1) as cluster:
        play(World(cluster, root), scenario)


def test_a_second_job_of_a_worker_ends_and_is_never_the_worker(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        one = world.request(0)
        await world.provider.launch([one])
        first = await world.running(one.job)
        comment = f"codeswarm:{world.swarm.uid}:{one.job}:feed"
        argv = ("sbatch", "--parsable", "--hold", f"--job-name={one.job}", f"--comment={comment}")
        second = slurm.call(*argv, input="#!/bin/sh\nsleep 600\n").stdout.strip()

        async def cancelled() -> bool:
            assert (await world.status(one.job)).handle == first.handle
            return second in slurm.ids(one.job, "CANCELLED")

        await until(cancelled, "the second job to be cancelled")
        assert (await world.status(one.job)).state is JobState.RUNNING

    play(World(slurm, root), scenario)


def test_what_ends_a_job_is_told(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        jobs = [world.request(index) for index in range(5)]
        names = [one.job for one in jobs]
        await world.provider.launch(jobs)
        for name in names:
            await world.running(name)
        slurm.cancel(world.id(names[0]))
        os.kill(_pid(world, names[1]), signal.SIGKILL)
        slurm.suspend(world.id(names[2]))
        slurm.requeue(world.id(names[3]))
        await world.ended(names[0])
        await world.ended(names[1], "Failed")
        frozen = await world.status(names[2])
        assert (frozen.state, frozen.frozen, frozen.reason) == (JobState.RUNNING, True, "Suspended")
        assert (await world.ended(names[3])).reason in ("Requeued", "Cancelled", "Completing")

        async def cancelled() -> bool:
            await world.status(names[3])
            return bool(slurm.ids(names[3], "CANCELLED"))

        await until(cancelled, "the requeued job to be cancelled")
        slurm.resume(world.id(names[2]))

        async def thawed() -> bool:
            return not (await world.status(names[2])).frozen

        await world.until(thawed, "the suspended worker to go on")
        node = slurm.call("squeue", "-h", "-j", world.id(names[4]), "-o", "%N").stdout.strip()
        slurm.fail_node(node)
        await world.ended(names[4], "NodeFail")
        await world.provider.stop(world.swarm, names, force=True)

    play(World(slurm, root), scenario)


def _pid(world: World, job: str) -> int:
    return int(json.loads((world.folder(job) / "worker.pid").read_text())["pid"])


def test_one_look_serves_however_many_workers(slurm: Slurm, root: Path) -> None:
    async def scenario(world: World) -> None:
        await world.provider.launch([world.request(index) for index in range(8)])
        swarms = [SwarmHandle("default", f"s{n}", str(uuid.uuid4()), {}) for n in range(30)]
        before, since = world.provider.status_requests, time.monotonic()
        while time.monotonic() < since + 2:
            await asyncio.gather(*(world.provider.observe(swarm) for swarm in swarms))
        assert world.provider.status_requests - before <= 6

    play(World(slurm, root), scenario)
