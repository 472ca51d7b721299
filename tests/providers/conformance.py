"""The conformance suite: what every provider promises, whatever it runs on.

A provider's test module derives from ``ProviderConformance`` and gives a ``harness`` fixture.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from providers.base import JobState, ProviderError
from tests.providers.harness import Harness, new_swarm, request, run, session, until

DAEMON = "(setsid sleep 600 >/dev/null 2>&1 &)"
"""Starts a process that has left its parent, its session and its process group."""
STUBBORN = "sh -c 'trap \"\" TERM HUP INT; sleep 600 & wait; wait'"


class ProviderConformance:
    """Derive from this and define the fixture ``harness``."""

    ended_where_they_are = False
    """Whether what a dead worker left running is ended without the provider."""

    def test_a_launched_worker_runs_and_its_heart_beats(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = request(swarm)
            async with session(harness) as one:
                assert await one.provider.observe(swarm) == []
                await one.launch([wanted])
                assert (await one.status(swarm, wanted.job)).state in (
                    JobState.PENDING,
                    JobState.RUNNING,
                )
                await one.running(swarm, wanted.job)
                first = await one.status(swarm, wanted.job)
                assert first.handle

                async def beats() -> bool:
                    now = (await one.status(swarm, wanted.job)).heartbeat
                    return now is not None and now != first.heartbeat

                await until(beats, "a heartbeat")

        run(scenario)

    def test_launching_again_starts_nothing(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = request(swarm)
            async with session(harness) as one:
                await asyncio.gather(*(one.launch([wanted, wanted]) for _ in range(3)))
                await one.running(swarm, wanted.job)
                before = await one.status(swarm, wanted.job)
                await one.launch([wanted])
                assert (await one.status(swarm, wanted.job)).handle == before.handle
                await until(_exactly(harness, wanted.job, 1), "one process")

        run(scenario)

    def test_a_new_provider_adopts_running_workers(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(3)]
            jobs = [one.job for one in wanted]
            async with session(harness) as first:
                await first.launch(wanted)
                await first.running(swarm, *jobs)
                before = [status.handle for status in await first.provider.observe(swarm)]
            async with session(harness) as second:
                await second.launch(wanted)
                after = await second.provider.observe(swarm)
                assert [status.handle for status in after] == before
                assert [status.job for status in after] == jobs
                for job in jobs:
                    await until(_exactly(harness, job, 1), "one process")

        run(scenario)

    @pytest.mark.parametrize("point", ["before", "after", "returned"])
    def test_a_launch_cut_off_by_a_crash_ends_in_one_worker(
        self, harness: Harness, point: str
    ) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = request(swarm)
            harness.die_while_launching(wanted, point)
            async with session(harness) as one:
                if point != "before":
                    state = (await one.status(swarm, wanted.job)).state
                    assert state in (JobState.PENDING, JobState.RUNNING)
                await one.launch([wanted])
                await one.running(swarm, wanted.job)
                one.provider.follow(swarm, wanted.job, 0, 0)
                await one.ready(wanted.job)
                await until(_exactly(harness, wanted.job, 1), "one process")

        run(scenario)

    def test_a_prompt_is_answered_and_its_repetition_ignored(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as one:
                await one.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                await one.prompt(swarm, job, "u.1")
                await one.prompt(swarm, job, "u.1")
                await one.said(job, "turn_complete", "u.1")
                await one.prompt(swarm, job, "u.2")
                await one.said(job, "turn_complete", "u.2")
                assert one.events(job, "u.1").count("turn_started") == 1
                assert [r["seq"] for r in one.records(job)] == list(
                    range(1, len(one.records(job)) + 1)
                )

        run(scenario)

    def test_following_goes_on_where_the_last_provider_stopped(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as first:
                await first.launch([request(swarm)])
                first.provider.follow(swarm, job, 0, 0)
                await first.ready(job)
                await first.prompt(swarm, job, "u.1")
                await first.said(job, "turn_complete", "u.1")
            async with session(harness) as second:
                second.provider.follow(swarm, job, 0, first.batches[job][-1].end)
                await second.prompt(swarm, job, "u.2")
                await second.said(job, "turn_complete", "u.2")
                sequence = [r["seq"] for r in first.records(job) + second.records(job)]
                assert sequence == list(range(1, len(sequence) + 1))
                total = len(sequence)
                second.batches.clear()
                second.provider.follow(swarm, job, 0, 0)
                await second.provider.flush(job)
                assert [r["seq"] for r in second.records(job)][:total] == sequence

        run(scenario)

    def test_what_is_not_followed_is_not_handed_on(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as one:
                await one.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                one.provider.unfollow(job)
                await one.prompt(swarm, job, "u.1")
                await one.provider.flush(job)
                other = request(swarm, 1).job  # by when it has answered, the first has too
                await one.launch([request(swarm, 1)])
                one.provider.follow(swarm, other, 1, 0)
                await one.ready(other)
                assert one.events(job, "u.1") == []

        run(scenario)

    def test_a_lost_worker_is_seen_and_not_started_again(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(2)]
            lost, kept = (one.job for one in wanted)
            async with session(harness) as one:
                await one.launch(wanted)
                await one.running(swarm, lost, kept)
                harness.kill_worker(lost)
                await one.reach(swarm, JobState.ENDED, lost)
                assert (await one.status(swarm, lost)).reason
                assert (await one.status(swarm, kept)).state is JobState.RUNNING
            for _ in range(2):
                async with session(harness) as later:
                    await later.launch(wanted)
                    assert (await later.status(swarm, lost)).state is JobState.ENDED
                    assert (await later.status(swarm, kept)).state is JobState.RUNNING
                    assert harness.processes(lost) == set()

        run(scenario)

    def test_workers_come_and_go_one_by_one(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(4)]
            jobs = [one.job for one in wanted]
            async with session(harness) as one:
                await one.launch(wanted[:2])
                await one.running(swarm, *jobs[:2])
                before = {s.job: s.handle for s in await one.provider.observe(swarm)}
                await one.launch(wanted)
                await one.running(swarm, *jobs)
                await one.provider.stop(swarm, [jobs[1]], force=True)
                await one.reach(swarm, JobState.ENDED, jobs[1])
                await one.provider.remove(swarm, [jobs[1]])
                after = {s.job: s.handle for s in await one.provider.observe(swarm)}
                assert list(after) == [jobs[0], jobs[2], jobs[3]]
                assert after[jobs[0]] == before[jobs[0]]
                await one.running(swarm, *after)

        run(scenario)

    def test_a_drained_worker_leaves(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as one:
                await one.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                await one.prompt(swarm, job, "u.1", "sleep 0.3")
                await one.said(job, "turn_started", "u.1")
                drain = {"type": "control", "epoch": 1, "payload": {"action": "drain"}}
                await one.provider.deliver(swarm, job, 0, drain)
                await one.reach(swarm, JobState.ENDED, job)
                await one.provider.flush(job)
                assert "turn_complete" in one.events(job, "u.1"), "after its turn"
                assert harness.processes(job) == set()

        run(scenario)

    def test_a_lost_connection_loses_nothing(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as one:
                await one.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                await one.prompt(swarm, job, "u.1", "sleep 0.5")
                await one.said(job, "turn_started", "u.1")
                harness.disconnect()
                await one.said(job, "turn_complete", "u.1")
                await one.running(swarm, job)
                await one.prompt(swarm, job, "u.2")
                await one.said(job, "turn_complete", "u.2")
                sequence = [r["seq"] for r in one.records(job)]
                assert sequence == list(range(1, len(sequence) + 1))

        run(scenario)

    def test_a_soft_stop_lets_the_worker_end_what_it_began(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(2)]
            ended, kept = (one.job for one in wanted)
            async with session(harness) as one:
                await one.launch(wanted)
                await one.running(swarm, ended, kept)
                one.provider.follow(swarm, ended, 0, 0)
                await one.ready(ended)
                await one.provider.stop(swarm, [ended], force=False)
                await one.reach(swarm, JobState.ENDED, ended)
                await until(_none(harness, ended), "its processes to end")
                assert (await one.status(swarm, kept)).state is JobState.RUNNING
                await one.provider.stop(swarm, [ended], force=False)

        run(scenario)

    def test_a_hard_stop_ends_all_that_descends(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(2)]
            ended, kept = (one.job for one in wanted)
            async with session(harness) as one:
                await one.launch(wanted)
                one.provider.follow(swarm, ended, 0, 0)
                await one.running(swarm, ended, kept)
                await one.ready(ended)
                await one.prompt(swarm, ended, "u.1", DAEMON, DAEMON, STUBBORN)
                await until(_at_least(harness, ended, 5), "its commands to run")
                await one.provider.stop(swarm, [ended], force=True)
                await one.reach(swarm, JobState.ENDED, ended)
                await until(_none(harness, ended), "its processes to end")
                assert (await one.status(swarm, kept)).state is JobState.RUNNING
                await until(_exactly(harness, kept, 1), "one process")

        run(scenario)

    def test_what_a_dead_worker_left_running_is_ended(self, harness: Harness) -> None:
        run(lambda: self.left_running(harness))

    async def left_running(self, harness: Harness) -> None:
        """By the provider, or by what watches over workers where they are."""
        swarm = new_swarm(harness)
        job = request(swarm).job
        async with session(harness) as one:
            await one.launch([request(swarm)])
            one.provider.follow(swarm, job, 0, 0)
            await one.ready(job)
            await one.prompt(swarm, job, "u.1", DAEMON, STUBBORN)
            await until(_at_least(harness, job, 4), "its commands to run")
            harness.kill_worker(job)
            await one.reach(swarm, JobState.ENDED, job)
            if self.ended_where_they_are:
                await until(_none(harness, job), "what it left to end")
                return
            assert harness.processes(job), "the test is void if nothing was left running"
        async with session(harness) as two:
            await two.provider.stop(swarm, [job], force=True)
            await until(_none(harness, job), "its processes to end")

    def test_stopping_what_is_not_there_is_no_error(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            async with session(harness) as one:
                for force in (False, True):
                    await one.provider.stop(swarm, [request(swarm).job], force=force)
                assert await one.provider.observe(swarm) == []

        run(scenario)

    def test_the_archive_holds_workspaces_and_mail(self, harness: Harness, tmp_path: Path) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            job = request(swarm).job
            async with session(harness) as one:
                await one.launch([request(swarm)])
                one.provider.follow(swarm, job, 0, 0)
                await one.ready(job)
                await one.prompt(swarm, job, "u.1", "echo kept > kept.txt")
                await one.said(job, "turn_complete", "u.1")
                await one.provider.stop(swarm, [job], force=True)
                await one.reach(swarm, JobState.ENDED, job)
                path = await one.provider.archive(swarm, tmp_path / "archives")
                stamp = path.stat()
                assert stamp.st_mode & 0o777 == 0o600
                with tarfile.open(path) as tar:
                    names = tar.getnames()
                for end in ("/kept.txt", f"inbox/{job}_00.jsonl", f"outbox/{job}_00.jsonl"):
                    assert any(name.endswith(end) for name in names), end
                assert not [name for name in names if name.endswith(("/env", "/wake"))]
                await one.remove(swarm)
            async with session(harness) as two:
                again = await two.provider.archive(swarm, tmp_path / "archives")
                assert (again, again.stat().st_mtime_ns) == (path, stamp.st_mtime_ns)
                assert list(path.parent.iterdir()) == [path]

        run(scenario)

    def test_removal_waits_for_the_end_and_leaves_nothing(self, harness: Harness) -> None:
        async def scenario() -> None:
            swarm = new_swarm(harness)
            wanted = [request(swarm, index) for index in range(2)]
            jobs = [one.job for one in wanted]
            async with session(harness) as one:
                await one.launch(wanted)
                await one.running(swarm, *jobs)
                with pytest.raises(ProviderError) as refused:
                    await one.provider.remove(swarm, jobs)
                assert refused.value.reason == "StillRunning"
                await one.provider.stop(swarm, jobs[:1], force=True)
                await one.reach(swarm, JobState.ENDED, jobs[0])
                await one.provider.remove(swarm, jobs[:1])
                assert [s.job for s in await one.provider.observe(swarm)] == jobs[1:]
                with pytest.raises(ProviderError) as gone:
                    await one.prompt(swarm, jobs[0], "u.1")
                assert gone.value.reason == "WorkerGone"
                await one.provider.stop(swarm, jobs, force=True)
                await one.reach(swarm, JobState.ENDED, jobs[1])
                await one.remove(swarm)
                await one.remove(swarm)
                assert await one.provider.observe(swarm) == []
                assert harness.traces(swarm) == []
                assert not any(harness.processes(job) for job in jobs)

        run(scenario)


def _none(harness: Harness, job: str) -> Callable[[], Awaitable[bool]]:
    async def none() -> bool:
        return not harness.processes(job)

    return none


def _exactly(harness: Harness, job: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return len(harness.processes(job)) == count

    return reached


def _at_least(harness: Harness, job: str, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return len(harness.processes(job)) >= count

    return enough
