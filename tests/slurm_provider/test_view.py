"""A worker judged by its folder and the queue, and the queue that all swarms share."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import JobState, ProviderError, ProviderUnreachable
from providers.slurm_host import Folder
from providers.slurm_query import Queued
from providers.slurm_queue import Queue
from providers.slurm_state import Standing, standing
from providers.slurm_view import FORGOTTEN, SHUT, Signs, judge, live

JOB = "team-0d9f6a1e-0-1"
NOT_TAKEN = Folder(JOB, prepared=True)
WRITING = Folder(JOB, prepared=True, claim="")
TAKEN = Folder(JOB, prepared=True, claim="7 aa", begun=True, heartbeat=5.0)


def queued(
    state: str, id: int = 7, token: str = "aa", reason: str = "", node: str = "n1"
) -> Queued:
    """A job of the worker."""
    return Queued(id, "u", JOB, token, standing(state, reason), array=f"{id}_0", node=node)


def state_of(folder: Folder | None, *jobs: Queued, **signs: object) -> tuple[JobState, str] | None:
    """What a worker is judged to be."""
    status = judge(folder, jobs, JOB, replace(Signs(), **signs)).status
    return None if status is None else (status.state, status.reason)


def test_before_its_folder_is_taken_the_queue_tells() -> None:
    assert state_of(NOT_TAKEN) is None
    assert state_of(NOT_TAKEN, queued("PENDING", reason="Priority")) == (
        JobState.PENDING,
        "Priority",
    )
    assert state_of(NOT_TAKEN, queued("RUNNING")) == (JobState.RUNNING, "")
    assert state_of(NOT_TAKEN, queued("CANCELLED", node="")) == (JobState.ENDED, "Cancelled")


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("PartitionTimeLimit", "slurm.timeLimit"),
        ("AssocMaxWallDurationPerJobLimit", "slurm.timeLimit"),
        ("BadConstraints", "sbatchOptions"),
        ("(JobHeldAdmin)", "administrators"),
        ("launch failed requeued held", "administrators"),
        ("AssocGrpCPUMinutesLimit", "slurm.account"),
        ("QOSMaxCpuPerJobLimit", "ask for less"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "sinfo -R"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs", "sinfo -R"),
        ("PartitionDown", "slurm.partition"),
        ("Priority", ""),
        ("Resources", ""),
        ("QOSMaxJobsPerUserLimit", ""),
        ("AssocGrpCpuLimit", ""),
    ],
)
def test_what_to_do_about_a_wait_without_end_is_said(reason: str, what: str) -> None:
    status = judge(NOT_TAKEN, [queued("PENDING", reason=reason)], JOB, Signs()).status
    assert status is not None
    assert what in status.message and bool(what) == bool(status.message)


def test_a_job_that_ended_before_it_took_its_folder_says_what_to_look_at() -> None:
    status = judge(NOT_TAKEN, [queued("FAILED", reason="NonZeroExitCode")], JOB, Signs()).status
    assert status is not None and "the nodes must see workspaceRoot" in status.message


def test_what_slurm_remembers_of_a_removed_worker_is_nothing() -> None:
    assert state_of(None, queued("COMPLETED")) is None
    assert state_of(None, queued("RUNNING")) == (JobState.RUNNING, "")


def test_the_job_that_took_the_folder_is_the_worker() -> None:
    other = queued("PENDING", id=8, token="bb")
    view = judge(TAKEN, [queued("RUNNING"), other], JOB, Signs())
    assert view.status is not None and view.status.handle == "job 7_0"
    assert view.surplus == (other,)
    assert state_of(TAKEN, queued("TIMEOUT"), other) == (JobState.ENDED, "TimeLimit")


def test_a_claim_that_is_being_written_is_no_reason_to_cancel_its_job() -> None:
    """Where there are no hard links its file is there before its content is."""
    view = judge(WRITING, [queued("RUNNING"), queued("RUNNING", id=8, token="bb")], JOB, Signs())
    assert view.status is not None and view.status.state is JobState.RUNNING
    assert view.surplus == ()
    assert state_of(WRITING) == (JobState.ENDED, "gone")


def test_a_folder_that_was_shut_is_over_once_no_job_lives() -> None:
    shut = replace(NOT_TAKEN, claim=SHUT)
    assert state_of(shut) == (JobState.ENDED, "Cancelled")
    assert state_of(shut, queued("PENDING", reason="Priority")) == (JobState.PENDING, "Priority")
    assert state_of(shut, queued("COMPLETED")) == (JobState.ENDED, "Completed")


def test_an_id_that_was_given_out_again_is_not_the_worker() -> None:
    again = queued("RUNNING", token="bb")
    view = judge(TAKEN, [again], JOB, Signs(beats=True))
    assert view.status is not None and view.status.reason == FORGOTTEN
    assert view.surplus == (again,)


def test_a_requeued_run_is_not_the_worker_any_more() -> None:
    job = queued("PENDING", reason="BeginTime")
    assert state_of(TAKEN, job, newer=True) == (JobState.ENDED, "Requeued")
    assert judge(TAKEN, [job], JOB, Signs()).surplus == (job,)
    assert state_of(TAKEN, job, newer=False) == (JobState.RUNNING, "")


def test_a_worker_that_was_told_to_end_may_say_its_last_words() -> None:
    job = queued("COMPLETING", reason="TimeLimit")
    assert state_of(TAKEN, job, lively=True) == (JobState.RUNNING, "Completing")
    assert state_of(TAKEN, job, lively=False, beats=True) == (JobState.ENDED, "TimeLimit")
    assert judge(TAKEN, [job], JOB, Signs()).settling


def test_a_forgotten_worker_lives_as_long_as_its_heart_beats() -> None:
    assert state_of(TAKEN, beats=True) == (JobState.RUNNING, FORGOTTEN)
    assert state_of(TAKEN, beats=False) == (JobState.ENDED, "gone")
    assert state_of(TAKEN, beats=False, ended="NodeFail") == (JobState.ENDED, "NodeFail")


def test_why_no_worker_began_is_said() -> None:
    folder = Folder(JOB, True, "7 aa", ("PythonNotFound", "give pythonPath"))
    status = judge(folder, [queued("FAILED")], JOB, Signs()).status
    assert status is not None
    assert (status.state, status.reason) == (JobState.ENDED, "PythonNotFound")
    assert status.message == "give pythonPath"
    assert state_of(replace(folder, begun=True), queued("RUNNING")) == (JobState.RUNNING, "")


STATES = st.sampled_from(["PENDING", "RUNNING", "COMPLETING", "CANCELLED", "SUSPENDED", "FAILED"])
JOBS = st.lists(st.builds(queued, STATES, st.integers(6, 8), st.sampled_from(["aa", "bb"])))
FOLDERS = st.sampled_from(
    [
        *(None, NOT_TAKEN, WRITING, TAKEN, replace(TAKEN, claim=""), replace(TAKEN, claim="x")),
        replace(NOT_TAKEN, claim=SHUT),
    ]
)


@given(FOLDERS, JOBS, st.booleans(), st.booleans())
def test_never_is_a_live_worker_surplus_or_a_live_job_overlooked(
    folder: Folder | None, jobs: list[Queued], beats: bool, newer: bool
) -> None:
    view = judge(folder, jobs, JOB, Signs(beats, newer))
    assert all(live(one) for one in view.surplus)
    alive = [one for one in jobs if live(one)]
    if alive:
        assert view.status is not None
    running = view.status is not None and view.status.state is not JobState.ENDED
    if len({*map(id, alive)}) == len(alive) and folder != WRITING:
        assert len(alive) - len(view.surplus) <= 1
    if not running:
        assert len(view.surplus) == len(alive)


# --- the shared queue --------------------------------------------------------------------------


class Asked:
    """A squeue that counts, and takes its time."""

    def __init__(self) -> None:
        self.now = 100.0
        self.times: list[float] = []
        self.jobs: list[Queued] = []
        self.error: ProviderError | None = None

    async def __call__(self) -> list[Queued]:
        self.times.append(self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.jobs


def queue_of(asked: Asked) -> Queue:
    """A queue by that clock."""
    return Queue(asked, interval=5, least=0, clock=lambda: asked.now)


def test_one_look_serves_all_for_an_interval() -> None:
    async def scenario() -> None:
        asked = Asked()
        queue = queue_of(asked)
        for _ in range(3):
            await asyncio.gather(*(queue.look() for _ in range(50)))
            asked.now += 1.6
        assert asked.times == [100.0]
        asked.now += 0.5
        await queue.look()
        assert len(asked.times) == queue.requests == 2

    asyncio.run(scenario())


def test_a_fresh_look_is_newer_than_the_wish_for_it() -> None:
    async def scenario() -> None:
        asked = Asked()
        queue = queue_of(asked)
        await queue.look()
        asked.now += 1
        first = asyncio.create_task(queue.look(fresh=True))
        for _ in range(3):
            await asyncio.sleep(0)  # it is under way, and asked at this time
        asked.now += 0.1
        asked.jobs = [queued("RUNNING")]
        second = await queue.look(fresh=True)
        assert second.begun >= 101.1 and second.of("u")
        await first
        assert asked.times == [100.0, 101.0, 101.1]

    asyncio.run(scenario())


def test_a_submitted_job_counts_until_a_later_look_tells() -> None:
    async def scenario() -> None:
        asked = Asked()
        queue = queue_of(asked)
        await queue.look()
        queue.note(Queued(7, "u", JOB, "aa", Standing(JobState.PENDING, "Submitted")))
        asked.error = ProviderUnreachable("SlurmUnreachable", "away")
        with pytest.raises(ProviderUnreachable):
            await queue.look()
        asked.error = None
        asked.now += 1
        assert not (await queue.look()).of("u")

    asyncio.run(scenario())
