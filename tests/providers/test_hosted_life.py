"""A worker host's own life: in a container as its first process, told to end, run by its verb."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from providers.base import JobState
from providers.launching import worker_command
from tests.providers.conformance import DAEMON
from tests.providers.harness import DEADLINE, Session, new_swarm, request, run, session, until
from tests.providers.hosting import NAMESPACE, SUBREAPER, HostedHarness, hosted


def _namespaces() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], check=False, stderr=subprocess.DEVNULL).returncode
        == 0
    )


CONTAINER = pytest.mark.skipif(
    sys.platform != "linux" or not _namespaces(), reason="no pid namespace may be made here"
)


@pytest.fixture(
    params=[
        pytest.param(SUBREAPER, id="subreaper"),
        pytest.param(NAMESPACE, id="first process", marks=CONTAINER),
    ]
)
def heir(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostedHarness]:
    """A host to which orphans fall."""
    with hosted(tmp_path, around=request.param) as harness:
        yield harness


def children_of(harness: HostedHarness, status: str) -> list[psutil.Process]:
    """The host's children in a state."""
    found = []
    for child in psutil.Process(harness.pid).children():
        try:
            if (child.status() == status) or not status:
                found.append(child)
        except psutil.Error:
            continue
    return found


def gone(harness: HostedHarness, job: str) -> Callable[[], Awaitable[bool]]:
    """A condition: nothing of a job runs."""

    async def none() -> bool:
        return not harness.processes(job)

    return none


async def begun(harness: HostedHarness, one: Session, *commands: str) -> str:
    """A worker that was given these commands; its job."""
    swarm = new_swarm(harness)
    job = request(swarm).job
    await one.provider.launch([request(swarm)])
    one.provider.follow(swarm, job, 0, 0)
    await one.ready(job)
    await one.prompt(swarm, job, "u.1", *commands)
    await one.said(job, "turn_complete", "u.1")
    return job


# --- orphans -------------------------------------------------------------------------------------


def test_orphans_do_not_stay_as_zombies(heir: HostedHarness) -> None:
    async def scenario() -> None:
        async with session(heir) as one:
            await begun(heir, one, *["(setsid sleep 0.2 &)" for _ in range(5)])

            async def adopted() -> bool:
                return len(children_of(heir, "")) > 1

            await until(adopted, "the orphans to come")

            async def reaped() -> bool:
                return len(children_of(heir, "")) == 1

            await until(reaped, "the orphans to go")
            assert not children_of(heir, psutil.STATUS_ZOMBIE)
            (worker,) = children_of(heir, "")
            assert worker.is_running()

    run(scenario)


def test_how_a_worker_ended_is_still_known(heir: HostedHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(heir)
        quick = request(swarm, 0, standin={"exit": 7})
        killed = request(swarm, 1)
        async with session(heir) as one:
            await one.provider.launch([quick, killed])
            await one.running(swarm, killed.job)
            for pid in heir.processes(killed.job):  # its own view of its pid may not be ours
                os.kill(pid, signal.SIGKILL)
            await one.reach(swarm, JobState.ENDED, quick.job, killed.job)
            orphan = await begun(heir, one, "(setsid sleep 0.1 &)")  # and the reaper has its turn

            async def reaped() -> bool:
                return len(children_of(heir, "")) == 1

            await until(reaped, "the orphan to go")
            assert (await one.status(swarm, quick.job)).reason == "exit 7"
            assert (await one.status(swarm, killed.job)).reason == "signal 9"
            assert heir.processes(orphan)

    run(scenario)


# --- a container ---------------------------------------------------------------------------------


@CONTAINER
def test_workers_end_with_their_container_and_are_not_begun_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        with hosted(tmp_path, around=NAMESPACE) as harness:
            async with session(harness) as one:
                swarm = new_swarm(harness)
                wanted = request(swarm)
                await one.provider.launch([wanted])
                one.provider.follow(swarm, wanted.job, 0, 0)
                await one.ready(wanted.job)
                await one.prompt(swarm, wanted.job, "u.1", DAEMON)
                await one.said(wanted.job, "turn_complete", "u.1")
                harness.kill()
                await until(gone(harness, wanted.job), "all of the container to end")
                await asyncio.to_thread(harness.begin)
                await one.reach(swarm, JobState.ENDED, wanted.job)
                await one.provider.launch([wanted])
                assert (await one.status(swarm, wanted.job)).state is JobState.ENDED
                next_one = request(swarm, 1)
                await one.provider.launch([next_one])
                await one.running(swarm, next_one.job)
                await one.provider.flush(wanted.job)
                assert one.events(wanted.job, "u.1").count("turn_complete") == 1

    run(scenario)


# --- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["standin", "worker"])
@pytest.mark.parametrize("around", [(), pytest.param(NAMESPACE, marks=CONTAINER)])
def test_told_to_end_it_gives_its_workers_time(
    tmp_path: Path, around: tuple[str, ...], command: str
) -> None:
    async def scenario() -> None:
        options = {"command": worker_command()} if command == "worker" else {}
        root = tmp_path / "scratch"
        with hosted(tmp_path, around=around, workspace_roots=[root], **options) as harness:
            async with session(harness) as one:
                swarm, other = new_swarm(harness), new_swarm(harness)
                other.parameters["workspaceRoot"] = str(root / "deep" / "below")  # type: ignore[index]
                wanted = [request(swarm), request(swarm, 1), request(other)]
                await one.provider.launch(wanted)
                for each in wanted:
                    one.provider.follow(each.swarm, each.job, each.index, 0)
                    await one.ready(each.job)
                outboxes = [
                    *harness.root.glob("default/*/*/mailbox/outbox/*"),
                    *root.glob("deep/below/default/*/*/mailbox/outbox/*"),
                ]
                assert len(outboxes) == 3
                assert harness.host is not None
                os.kill(harness.pid, signal.SIGTERM)
                assert await asyncio.to_thread(harness.host.wait, DEADLINE) == 0
                assert not harness.socket.exists()
                assert not harness.processes()
                for outbox in outboxes:
                    assert b'"stopped"' in outbox.read_bytes().splitlines()[-1]

    run(scenario)


@pytest.mark.parametrize("how", ["grace", "second signal"])
def test_it_does_not_wait_for_a_stubborn_worker(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        grace = 0.5 if how == "grace" else 600.0
        with hosted(tmp_path, grace=grace) as harness:
            async with session(harness) as one:
                job = await begun(harness, one)
                for pid in harness.processes(job):
                    os.kill(pid, signal.SIGSTOP)
                assert harness.host is not None
                harness.host.terminate()

                async def ending() -> bool:
                    return not harness.socket.exists()

                await until(ending, "the host to stop serving")
                if how == "second signal":
                    harness.host.terminate()
                assert await asyncio.to_thread(harness.host.wait, DEADLINE) == 0
                assert "1 workers have not ended yet" in harness.log.read_text()
                (pid,) = harness.processes(job)  # outside a container it lives on
                status = Path(f"/proc/{pid}/status").read_text()
                pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
                assert pending & 1 << (signal.SIGTERM - 1), "it was asked to end"

    run(scenario)


# --- the verb ------------------------------------------------------------------------------------


def test_the_verb_runs_a_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        with hosted(tmp_path, begun=False) as harness:
            harness.host = run_verb(harness)
            async with session(harness) as one:
                swarm = new_swarm(harness)

                async def reached() -> bool:
                    return harness.socket.exists()

                await until(reached, "the socket")
                job = request(swarm).job
                await one.provider.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                await one.prompt(swarm, job, "u.1", "echo done > done.txt")
                await one.said(job, "turn_complete", "u.1")
                assert list(harness.root.glob(f"default/*/{job}/repo/done.txt"))
                harness.host.terminate()
                assert await asyncio.to_thread(harness.host.wait, DEADLINE) == 0
                assert not harness.processes()

    run(scenario)


def run_verb(harness: HostedHarness) -> subprocess.Popen[bytes]:
    """A host as a pod runs it."""
    words = ["--socket", str(harness.socket), "--root", str(harness.root)]
    words += ["--allow-uid", str(os.getuid()), "--grace", "5"]
    command = [sys.executable, "-m", "cli.main", "worker-host", *words]
    with harness.log.open("wb") as log:
        return subprocess.Popen(command, stderr=log)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--socket", "{0}/s", "--root", "{0}"], "--allow-uid"),
        (["--socket", "{0}/s", "--root", "{0}/file", "--allow-uid", "1"], "file"),
        (["--socket", "{0}/none/s", "--root", "{0}/r", "--allow-uid", "1"], "cannot be made"),
    ],
)
def test_the_verb_says_what_is_wrong(tmp_path: Path, words: list[str], text: str) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "cli.main", "worker-host"]
    done = subprocess.run(
        [*command, *(word.format(tmp_path) for word in words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (2, 5)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
