"""What a worker's folder and Slurm's queue together say of it: one pure judgement per worker.

The folder says which submission became the worker (its claim), the queue what became of that.
Neither is enough alone: slurmctld forgets jobs, gives out ids again, runs what was requeued; a
folder outlives its job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from providers.base import JobState, JobStatus
from providers.slurm_host import Folder
from providers.slurm_query import Queued
from providers.slurm_waiting import hint

FORGOTTEN = "ForgottenBySlurm"
SHUT = "cancelled"
"""The claim of a folder that no job may take up any more (``worker.attendant.files.SHUT``)."""
_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class View:
    """A worker, and what is to be done about its jobs."""

    status: JobStatus | None
    """None: nothing has come of it yet, and it may be launched."""
    surplus: tuple[Queued, ...] = ()
    """Live jobs that can never become the worker."""
    settling: bool = False
    """Something of an ended job may still run."""


def live(one: Queued) -> bool:
    """Whether a job waits or runs."""
    return one.standing.state in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Signs:
    """What was noticed over time, beside what stands in the folder and in the queue."""

    beats: bool = False
    """The heartbeat still changes, as far as can be told of one that is looked at now and then."""
    lively: bool = False
    """It changed within the last few seconds."""
    newer: bool = True
    """The queue was looked at after the claim was seen."""
    ended: str = ""
    """How accounting says that a job which is not in the queue ended."""


def judge(folder: Folder | None, jobs: Sequence[Queued], name: str, signs: Signs) -> View:
    """Judge one worker.

    Args:
        folder: its folder; None: it is gone.
        jobs: its jobs in the queue, in the order of their submission.
        name: of the worker.
        signs: what was noticed over time.
    """
    settling = any(one.standing.completing for one in jobs)
    claim = folder.claim if folder is not None else None
    writing = folder is not None and claim == "" and not folder.begun
    if folder is not None and claim is not None and claim != SHUT and not writing:
        return _claimed(folder, claim, jobs, signs, settling)
    alive = [one for one in jobs if live(one)]
    if alive:
        # Whichever of them writes the claim right now is the worker.
        surplus = () if writing else tuple(alive[1:])
        return View(_status(name, alive[0], folder), surplus, settling)
    if claim is not None and not jobs:
        reason = "Cancelled" if claim == SHUT else "gone"
        return View(JobStatus(name, JobState.ENDED, reason, None, ""), (), settling)
    if folder is None or not jobs:
        return View(None, (), settling)  # at the most Slurm's memory of a worker that was removed
    return View(_never_began(name, jobs[-1]), (), settling)


def _never_began(name: str, last: Queued) -> JobStatus:
    reason = last.standing.reason
    message = ""
    if last.node and reason in ("Failed", "Completed", "LaunchFailed"):
        message = (
            f"{last.handle} ended on {last.node} before it could take up its folder: the nodes "
            "must see workspaceRoot, and be allowed to write there"
        )
    return JobStatus(name, JobState.ENDED, reason, None, last.handle, message=message)


def _claimed(
    folder: Folder, claim: str, jobs: Sequence[Queued], signs: Signs, settling: bool
) -> View:
    number, _, token = claim.strip().partition(" ")
    mine = [one for one in jobs if one.token == token and str(one.id) == number]
    current = mine[-1] if mine else None
    # A claim is made by a job that runs: one that waits after that was requeued, and its second
    # run will find the claim and end.
    waits = current is not None and current.standing.state is JobState.PENDING
    requeued = waits and signs.newer
    surplus = tuple(one for one in jobs if live(one) and (one is not current or requeued))
    failure = None if folder.begun else folder.failure
    handle = current.handle if current is not None else f"job {number}" if number else ""
    running: JobStatus | None = None
    if current is not None and current.standing.state is JobState.RUNNING:
        running = _status(folder.job, current, folder)
    elif current is not None and current.standing.completing and signs.lively:
        # It was told to end, and is about to save its work and to say so.
        running = JobStatus(folder.job, JobState.RUNNING, "Completing", folder.heartbeat, handle)
    elif waits and not requeued:
        running = JobStatus(folder.job, JobState.RUNNING, "", folder.heartbeat, handle)
    elif current is None and signs.beats:
        running = JobStatus(folder.job, JobState.RUNNING, FORGOTTEN, folder.heartbeat, handle)
    if running is not None and failure is None:
        return View(running, surplus, settling)
    reason, message = failure or (signs.ended or "gone", "")
    if current is not None and failure is None:
        reason = "Requeued" if requeued else current.standing.reason
    status = JobStatus(
        folder.job, JobState.ENDED, reason, folder.heartbeat, handle, message=message[:_MAX_MESSAGE]
    )
    return View(status, surplus, settling)


def _status(name: str, one: Queued, folder: Folder | None) -> JobStatus:
    return JobStatus(
        name,
        one.standing.state,
        one.standing.reason,
        folder.heartbeat if folder is not None else None,
        one.handle,
        frozen=one.standing.frozen,
        message=hint(one.standing.reason) if one.standing.state is JobState.PENDING else "",
    )
