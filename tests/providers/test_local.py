"""The local provider's own: whose a process is, and how workers begin and end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from providers.base import JobState, ProviderError, SwarmHandle
from providers.identity import live_worker, read_identity
from providers.local import LocalProvider
from tests.providers.harness import new_swarm, request, run, session, until
from tests.providers.local import folder_of
from tests.providers.test_conformance import LocalHarness
from worker.identity import boot_id


@pytest.fixture
def foreign() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any job."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def start_of(pid: int) -> int:
    """A process's start time, in ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


# --- identity --------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", ["reused pid", "no lock", "lock and no marker", "other boot"])
def test_a_foreign_process_is_neither_believed_nor_signalled(
    harness: LocalHarness, foreign: subprocess.Popen[bytes], forged: str
) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        wanted = request(swarm)
        folder = folder_of(harness, wanted)
        folder.mkdir(parents=True)
        start = start_of(foreign.pid)
        identity: dict[str, int | str] = {
            "pid": foreign.pid,
            "start": start - 1 if forged == "reused pid" else start,
        }
        if forged == "other boot":
            identity["boot"] = "another"
        (folder / "worker.pid").write_text(json.dumps(identity))
        with (folder / "worker.lock").open("w") as lock:
            if forged != "no lock":
                fcntl.flock(lock, fcntl.LOCK_EX)
            async with session(harness) as one:
                status = await one.status(swarm, wanted.job)
                assert (status.state, status.reason) == (JobState.ENDED, "gone")
                await one.provider.launch([wanted])
                for force in (False, True):
                    await one.provider.stop(swarm, [wanted.job], force=force)
                await one.provider.remove(swarm)
        assert foreign.poll() is None
        assert not folder.exists()

    run(scenario)


def test_the_probe_of_a_worker_is_right_about_the_true_one(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        async with session(harness) as one:
            await one.provider.launch([wanted])
            await one.running(wanted.swarm, wanted.job)
            folder = folder_of(harness, wanted)
            identity = read_identity(folder)
            assert identity is not None
            assert live_worker(folder, wanted.job) == identity.pid
            assert live_worker(folder, "another") is None

    run(scenario)


@pytest.mark.parametrize(
    "missing", ["nothing", "start", "boot", "lock", "job", "folder", "process", "file"]
)
def test_each_proof_is_needed(tmp_path: Path, missing: str) -> None:
    environment = {
        "CODESWARM_JOB_ID": "other" if missing == "job" else "job",
        "CODESWARM_BASE_DIR": "/other" if missing == "folder" else str(tmp_path),
    }
    with (
        subprocess.Popen(["sleep", "600"], env=environment) as process,
        (tmp_path / "worker.lock").open("w") as lock,
    ):
        try:
            identity: dict[str, int | str] = {
                "pid": process.pid,
                "start": start_of(process.pid) + (missing == "start"),
                "boot": "another" if missing == "boot" else boot_id(),
            }
            if missing != "file":
                (tmp_path / "worker.pid").write_text(json.dumps(identity))
            if missing != "lock":
                fcntl.flock(lock, fcntl.LOCK_EX)
            if missing == "process":
                process.kill()  # it stays as a zombie
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert live_worker(tmp_path, "job") == (process.pid if missing == "nothing" else None)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"pid": "x", "start": 1}', b'{"pid": 1, "start": 1}',
     b'{"pid": 1e999, "start": 1}', b'{"pid": -5, "start": 1}', b"\xff", b"[" * 4000],
)  # fmt: skip
def test_a_garbled_pid_file_proves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "worker.pid").write_bytes(content)
    assert read_identity(tmp_path) is None


def test_a_namesakes_processes_in_another_home_are_left_alone(harness: LocalHarness) -> None:
    wanted = request(new_swarm(harness))
    elsewhere = {
        "CODESWARM_JOB_ID": wanted.job,
        "CODESWARM_BASE_DIR": f"{harness.root}-other/{wanted.job}",
    }

    async def scenario() -> None:
        async with session(harness) as one:
            await one.provider.launch([wanted])
            await one.running(wanted.swarm, wanted.job)
            await one.provider.stop(wanted.swarm, [wanted.job], force=True)
            await one.reach(wanted.swarm, JobState.ENDED, wanted.job)

    with subprocess.Popen(["sleep", "600"], env=elsewhere) as namesake:
        try:
            run(scenario)
            assert namesake.poll() is None
        finally:
            namesake.kill()


# --- beginnings and ends ---------------------------------------------------------------------


def test_a_worker_without_pid_file_is_pending_for_everybody(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness), standin={"silent": True})
        async with session(harness) as first:
            await first.provider.launch([wanted])
            mine = await first.status(wanted.swarm, wanted.job)
        async with session(harness) as second:
            found = await second.status(wanted.swarm, wanted.job)
            assert (mine.state, mine.handle) == (found.state, found.handle)
            assert found.state is JobState.PENDING
            await second.provider.launch([wanted])
            assert len(harness.processes(wanted.job)) == 1
            with pytest.raises(ProviderError, match="still running"):
                await second.provider.remove(wanted.swarm)
            await second.provider.stop(wanted.swarm, [wanted.job], force=False)
            await second.reach(wanted.swarm, JobState.ENDED, wanted.job)

    run(scenario)


def test_a_prepared_job_that_was_never_begun_is_begun_by_the_next_launch(
    harness: LocalHarness,
) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        harness.die_while_launching(wanted, "before")
        async with session(harness) as one:
            status = await one.status(wanted.swarm, wanted.job)
            assert (status.state, status.reason) == (JobState.ENDED, "not started")
            await one.provider.launch([wanted])
            await one.running(wanted.swarm, wanted.job)

    run(scenario)


@pytest.mark.parametrize("how", ["exit 3", "signal 9"])
def test_how_a_worker_ended_is_told(harness: LocalHarness, how: str) -> None:
    async def scenario() -> None:
        options = {"exit": 3} if how == "exit 3" else {}
        wanted = request(new_swarm(harness), standin=options)
        async with session(harness) as one:
            await one.provider.launch([wanted])
            if how == "signal 9":
                await one.running(wanted.swarm, wanted.job)
                harness.kill_worker(wanted.job)
            await one.reach(wanted.swarm, JobState.ENDED, wanted.job)
            assert (await one.status(wanted.swarm, wanted.job)).reason == how

    run(scenario)


@pytest.mark.parametrize("adopted", [False, True])
def test_a_dead_worker_does_not_stay_as_a_zombie(harness: LocalHarness, adopted: bool) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        async with session(harness) as first:
            await first.provider.launch([wanted])
            await first.running(wanted.swarm, wanted.job)
            pid = int((await first.status(wanted.swarm, wanted.job)).handle.split()[1])
            async with session(harness) as second:
                harness.kill_worker(wanted.job)
                await until(lambda: _ended(pid), "the worker to die")
                observer = second if adopted else first
                await observer.reach(wanted.swarm, JobState.ENDED, wanted.job)
                assert (await observer.status(wanted.swarm, wanted.job)).reason == "signal 9"
        assert not psutil.pid_exists(pid)

    run(scenario)


async def _ended(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_processes_that_multiply_are_all_ended(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        breed = (
            "import os, time\n"
            "for turn in range(400):\n"
            "    time.sleep(0.02)\n"
            "    if os.fork():\n"
            "        time.sleep(600 if turn % 2 else 0)\n"
            "        os._exit(0)\n"
            "    os.setsid()\n"
        )  # every second ancestor is gone, and each is in a session of its own
        async with session(harness) as one:
            await one.provider.launch([wanted])
            one.provider.follow(wanted.swarm, wanted.job, 0, 0)
            await one.ready(wanted.job)
            command = shlex.join([sys.executable, "-I", "-S", "-c", breed])
            await one.prompt(wanted.swarm, wanted.job, "u.1", f"{command} & sleep 600")
            await until(lambda: _many(harness, wanted.job), "some generations")
            await one.provider.stop(wanted.swarm, [wanted.job], force=True)
            await one.reach(wanted.swarm, JobState.ENDED, wanted.job)
            await until(lambda: _gone(harness, wanted.job), "all to end")

    run(scenario)


async def _many(harness: LocalHarness, job: str) -> bool:
    return len(harness.processes(job)) >= 12


async def _gone(harness: LocalHarness, job: str) -> bool:
    return not harness.processes(job)


@pytest.mark.parametrize("broken", ["command", "root"])
def test_a_failed_launch_says_why(tmp_path: Path, broken: str) -> None:
    async def scenario() -> None:
        root = tmp_path / "workspaces"
        if broken == "root":
            root.write_text("a file")
        provider = LocalProvider(root, command=[str(tmp_path / "missing")])
        wanted = request(SwarmHandle("default", "team", "0123456789"))
        with pytest.raises(ProviderError) as failed:
            await provider.launch([wanted])
        assert failed.value.reason == "LaunchFailed"
        assert str(tmp_path) in str(failed.value)
        await provider.close()

    run(scenario)


def test_one_failed_launch_does_not_hold_up_the_others(harness: LocalHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        wanted = [request(swarm, index) for index in range(3)]
        blocked = folder_of(harness, wanted[0])
        blocked.parent.mkdir(parents=True)
        blocked.symlink_to(harness.root)
        async with session(harness) as one:
            with pytest.raises(ProviderError) as refused:
                await one.provider.launch(wanted)
            assert refused.value.reason == "UnsafePath"
            await one.running(swarm, wanted[1].job, wanted[2].job)

    run(scenario)


def test_closing_leaves_workers_alone(harness: LocalHarness) -> None:
    async def scenario() -> None:
        wanted = request(new_swarm(harness))
        async with session(harness) as one:
            await one.provider.launch([wanted])
            await one.running(wanted.swarm, wanted.job)
        await asyncio.sleep(0.1)
        assert len(harness.processes(wanted.job)) == 1

    run(scenario)
