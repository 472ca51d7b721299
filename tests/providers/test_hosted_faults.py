"""A worker host that dies, stands still or is late: nothing lost, nothing doubled, all told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.base import (
    JobState,
    NotTaken,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    RecordBatch,
)
from tests.providers.harness import Session, new_swarm, request, run, session, until
from tests.providers.hosting import HostedHarness, hosted


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[HostedHarness]:
    """A host that runs the stand-in."""
    with hosted(tmp_path) as harness:
        yield harness


def outbox(harness: HostedHarness, job: str) -> Path:
    """A job's outbox; the worker has begun it."""
    (path,) = harness.root.glob(f"default/*/{job}/mailbox/outbox/*.jsonl")
    return path


def lines_of(one: Session, job: str) -> list[bytes]:
    """All lines that were handed over."""
    return [line for batch in one.batches[job] for line in batch.lines]


async def talking(one: Session, harness: HostedHarness, lines: int) -> tuple[str, Path]:
    """A followed worker whose outbox got so many lines from us; its job and that outbox."""
    swarm = new_swarm(harness)
    job = request(swarm).job
    await one.provider.launch([request(swarm)])
    one.provider.follow(swarm, job, 0, 0)
    await one.ready(job)
    path = outbox(harness, job)
    with path.open("ab") as file:
        for number in range(lines):
            file.write(b'{"n": %d}\n' % number)
    return job, path


async def all_there(one: Session, job: str, path: Path) -> None:
    """Wait until everything of an outbox was handed over, each line once."""

    async def there() -> bool:
        return len(lines_of(one, job)) >= path.read_bytes().count(b"\n")

    await until(there, "all lines")
    assert lines_of(one, job) == path.read_bytes().splitlines()


# --- the host dies -------------------------------------------------------------------------------


def test_records_go_on_where_they_were_when_the_host_died(harness: HostedHarness) -> None:
    async def scenario() -> None:
        async with session(harness) as one:
            job, path = await talking(one, harness, 10)
            for round in range(3):
                with path.open("ab") as file:
                    for number in range(20_000):
                        file.write(b'{"round": %d, "n": %d}\n' % (round, number))
                harness.kill()
                harness.begin()
            await all_there(one, job, path)
            assert len(harness.processes(job)) == 1, "outside a container workers survive"

    run(scenario)


def test_the_controller_looks_again_after_its_host_was_away(harness: HostedHarness) -> None:
    async def scenario() -> None:
        hints: list[str] = []
        provider = harness.provider()
        provider.start(lambda batch: None, hints.append)
        try:
            swarm = new_swarm(harness)
            wanted = request(swarm)
            await provider.launch([wanted])
            provider.follow(swarm, wanted.job, 0, 0)
            harness.kill()
            harness.begin()

            async def hinted() -> bool:
                return wanted.job in hints

            await until(hinted, "a hint")
            hints.clear()

            async def running() -> bool:
                return [s.state for s in await provider.observe(swarm)] == [JobState.RUNNING]

            await until(running, "the worker")  # and its end is watched from then on
            harness.kill_worker(wanted.job)
            await until(hinted, "a hint of its end")
        finally:
            await provider.close()

    run(scenario)


@pytest.mark.parametrize("verb", ["deliver", "stop", "launch", "remove", "archive", "observe"])
def test_a_call_that_is_cut_off_says_what_is_known(harness: HostedHarness, verb: str) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        job = request(swarm).job
        async with session(harness) as one:
            await one.provider.launch([request(swarm)])
            await one.running(swarm, job)
            os.kill(harness.pid, signal.SIGSTOP)
            call = asyncio.create_task(
                {
                    "deliver": lambda: one.prompt(swarm, job, "u.1"),
                    "stop": lambda: one.provider.stop(swarm, [job], force=False),
                    "launch": lambda: one.provider.launch([request(swarm, 1)]),
                    "remove": lambda: one.provider.remove(swarm),
                    "archive": lambda: one.provider.archive(swarm, harness.archives),
                    "observe": lambda: one.provider.observe(swarm),
                }[verb]()
            )
            await asyncio.sleep(0)
            harness.kill()
            expected = ProviderUnreachable if verb == "observe" else OutcomeUnknown
            with pytest.raises(ProviderError) as cut:
                await call
            assert type(cut.value) is expected
            assert "was lost before it answered" in str(cut.value)
            harness.begin()
            await one.provider.launch([request(swarm), request(swarm, 1)])
            await one.running(swarm, job, request(swarm, 1).job)
            one.provider.follow(swarm, job, 0, 0)
            await one.prompt(swarm, job, "u.1")
            await one.said(job, "turn_complete", "u.1")
            assert one.events(job, "u.1").count("turn_started") == 1

    run(scenario)


@pytest.mark.parametrize("verb", ["deliver", "observe", "flush"])
def test_no_call_waits_for_ever(harness: HostedHarness, verb: str) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        job = request(swarm).job
        provider = harness.provider(seconds={"deliver": 0.2, "observe": 0.2, "flush": 0.2})
        one = Session(provider)
        provider.start(one.sink)
        try:
            await provider.launch([request(swarm)])
            provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            os.kill(harness.pid, signal.SIGSTOP)
            expected = OutcomeUnknown if verb == "deliver" else ProviderUnreachable
            with pytest.raises(expected, match="did not answer within"):
                if verb == "deliver":
                    await one.prompt(swarm, job, "u.1")
                elif verb == "observe":
                    await provider.observe(swarm)
                else:
                    await provider.flush(job)
            os.kill(harness.pid, signal.SIGCONT)
            await one.prompt(swarm, job, "u.1")
            await one.said(job, "turn_complete", "u.1")
            assert one.events(job, "u.1").count("turn_started") == 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(harness.pid, signal.SIGCONT)
            await provider.close()

    run(scenario)


# --- the host is late ----------------------------------------------------------------------------


def test_a_controller_waits_for_a_host_that_is_just_being_started(tmp_path: Path) -> None:
    async def scenario() -> None:
        with hosted(tmp_path, begun=False) as harness:
            swarm = new_swarm(harness)
            async with session(harness) as one:
                job = request(swarm).job
                one.provider.follow(swarm, job, 0, 0)
                launched = asyncio.create_task(one.provider.launch([request(swarm)]))
                await asyncio.sleep(0)
                await asyncio.to_thread(harness.begin)
                await launched
                await one.ready(job)

    run(scenario)


def test_a_host_that_is_away_is_unreachable_at_once_after_a_while(
    harness: HostedHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.link.PATIENCE_SECONDS", 0.3)

    async def scenario() -> None:
        swarm = new_swarm(harness)
        async with session(harness) as one:
            assert await one.provider.observe(swarm) == []
            harness.kill()
            loop = asyncio.get_running_loop()
            for _ in range(3):
                began = loop.time()
                with pytest.raises(ProviderUnreachable, match="the worker host at"):
                    await one.provider.observe(swarm)
            assert loop.time() - began < 0.25, "it was away long enough"
            with pytest.raises(ProviderUnreachable):
                await one.provider.launch([request(swarm)])  # it did not happen, and is not unknown
            harness.begin()

            async def back() -> bool:
                try:
                    return await one.provider.observe(swarm) == []
                except ProviderUnreachable:
                    return False

            await until(back, "the host")

    run(scenario)


# --- records that are not taken ------------------------------------------------------------------


class Reluctant(Session):
    """Takes nothing while ``full``; fails in other ways while ``broken``."""

    full = False
    broken = False
    tries = 0

    def sink(self, batch: RecordBatch) -> None:
        """Keep a batch, or not."""
        self.tries += 1
        if self.broken:
            raise RuntimeError("a mistake of ours")
        if self.full:
            raise NotTaken
        super().sink(batch)


@pytest.mark.parametrize("trouble", ["full", "broken"])
def test_records_that_are_not_taken_come_again(
    harness: HostedHarness, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("providers.followings.AGAIN_SECONDS", 0.1)

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        one = Reluctant(harness.provider())
        one.provider.start(one.sink)
        try:
            job, path = await talking(one, harness, 5)
            await all_there(one, job, path)
            setattr(one, trouble, True)
            with path.open("ab") as file:
                file.writelines(b'{"late": %d}\n' % n for n in range(50_000))
            before = one.tries

            async def tried() -> bool:
                return one.tries >= before + 3

            await until(tried, "several tries")
            await one.provider.flush(job)  # comes back, as nothing more can be done
            setattr(one, trouble, False)
            await one.provider.flush(job)
            assert lines_of(one, job) == path.read_bytes().splitlines()
        finally:
            await one.provider.close()

    run(scenario)


def test_a_flush_brings_all_that_is_there(harness: HostedHarness) -> None:
    async def scenario() -> None:
        async with session(harness) as one:
            job, path = await talking(one, harness, 3)
            for _ in range(3):
                with path.open("ab") as file:
                    file.writelines(b'{"more": %d}\n' % n for n in range(60_000))
                await one.provider.flush(job)
                assert lines_of(one, job) == path.read_bytes().splitlines()
            await one.provider.flush("never-followed")

    run(scenario)


def test_lines_are_bytes_up_to_the_longest(harness: HostedHarness) -> None:
    async def scenario() -> None:
        async with session(harness) as one:
            job, path = await talking(one, harness, 1)
            longest = bytes(b % 255 or 1 for b in range(250)).replace(b"\n", b"\xff") * 33_554
            assert 8_380_000 < len(longest) < 8 << 20
            with path.open("ab") as file:
                file.write(longest + b"\n" + b"\xff\xfe{\x00\n\n" + longest + b"\n")
            await one.provider.flush(job)
            assert lines_of(one, job)[-3:] == [longest, b"\xff\xfe{\x00", longest]
            with path.open("ab") as file:
                file.write(b"x" * (9 << 20) + b"\n" + b'{"after": 1}\n')
            await one.provider.flush(job)
            told, after = lines_of(one, job)[-2:]
            assert b"was skipped" in told
            assert after == b'{"after": 1}'
            assert one.batches[job][-1].end == path.stat().st_size

    run(scenario)


def test_large_records_are_delivered_and_larger_ones_refused(harness: HostedHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        job = request(swarm).job
        async with session(harness) as one:
            await one.provider.launch([request(swarm)])
            await one.running(swarm, job)
            record = {"type": "control", "injection_id": "big", "content": "x" * 8_000_000}
            await one.provider.deliver(swarm, job, 0, record, secrets={"key": "k" * 100_000})
            (inbox,) = harness.root.glob(f"default/*/{job}/mailbox/inbox/*.jsonl")
            assert inbox.stat().st_size > 8_000_000
            for size, reason in ((8_600_000, "RecordTooLarge"), (13_000_000, "RequestTooLarge")):
                record = {"type": "control", "injection_id": "b", "content": "x" * size}
                with pytest.raises(ProviderError) as refused:
                    await one.provider.deliver(swarm, job, 0, record)
                assert refused.value.reason == reason
            assert (await one.status(swarm, job)).state is JobState.RUNNING

    run(scenario)


def test_a_slow_archive_is_in_nobodys_way(harness: HostedHarness) -> None:
    async def scenario() -> None:
        swarm = new_swarm(harness)
        job = request(swarm).job
        async with session(harness) as one:
            await one.provider.launch([request(swarm)])
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            (folder,) = harness.root.glob(f"default/*/{job}")
            for number in range(4):
                (folder / f"noise-{number}").write_bytes(os.urandom(16 << 20))
            packing = [
                asyncio.create_task(one.provider.archive(swarm, harness.archives)) for _ in range(2)
            ]
            await asyncio.sleep(0)
            await one.prompt(swarm, job, "u.1")
            await one.said(job, "turn_complete", "u.1")
            assert (await one.status(swarm, job)).state is JobState.RUNNING
            assert not any(task.done() for task in packing), "the test is void: it was too quick"
            first, second = await asyncio.gather(*packing)
            assert first == second
            assert list(first.parent.iterdir()) == [first]

    run(scenario)
