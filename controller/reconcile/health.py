"""Is a worker alive: the provider's view, its heartbeat and its own words, put together."""

from __future__ import annotations

from controller.domain.fleet import NOT_SEEN, Seen
from controller.domain.outcome import Outcome, settle
from controller.reconcile.clock import Clock
from controller.reconcile.context import Context
from controller.reconcile.pauses import REFUSALS
from controller.reconcile.swarm_spec import Launchable
from controller.reconcile.turns import SYSTEM_PROMPT_FAILED
from providers.base import JobState, JobStatus

LEAST_LOOKS = 4
"""Looks within a timeout that must all have found the same beat."""


class Heartbeats:
    """When each heartbeat was last seen to change.

    The file's time is the worker's clock, which may differ from ours or jump: only that it
    changed counts, timed by our own clock.  Time in which nobody looked counts for nothing: the
    machine may have slept, and its workers with it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float | None, float, float]] = {}
        """By job: the beat, for how long it was seen to stand still, and the last look."""

    def stale(self, job: str, beat: float | None, timeout: float, startup: float) -> bool:
        """Whether a heartbeat has stood still for ``timeout`` (``startup`` more before the first).

        All in seconds.
        """
        now = self._clock.now()
        known = self._seen.get(job)
        if known is None or known[0] != beat:
            self._seen[job] = (beat, 0.0, now)
            return False
        # One long gap between looks says nothing: then it was us, or the machine, that stood.
        stood = known[1] + min(now - known[2], timeout / LEAST_LOOKS)
        self._seen[job] = (beat, stood, now)
        return stood > (timeout if beat is not None else timeout + startup)

    def forget(self, job: str) -> None:
        """Drop a job that is gone."""
        self._seen.pop(job, None)


def parting_of(ctx: Context, job: str) -> tuple[str, str, bool]:
    """Why a worker gave itself up (a reason and a sentence), and whether its provider refused."""
    reason, message = ctx.turns.worker(job).parting
    outcome = first_turn(ctx, job) if reason == SYSTEM_PROMPT_FAILED else None
    if outcome is None:
        return reason, message, False
    if outcome.failure in REFUSALS:
        return outcome.reason, outcome.message, True
    return reason, f"the system prompt's turn failed: {outcome.message}", False


def first_turn(ctx: Context, job: str) -> Outcome | None:
    """How the turn of a worker's system prompt ended, if it did."""
    turn = ctx.turns.turns.get(f"{job}.system")
    return settle(turn.complete, None, "prompt") if turn and turn.complete else None


def look(
    ctx: Context, want: Launchable, job: str, status: JobStatus | None, beats: Heartbeats
) -> Seen:
    """What is known of one job."""
    if status is None or status.state is JobState.ABSENT:
        return NOT_SEEN
    facts = ctx.turns.worker(job)
    busy = job in ctx.world.open_jobs or bool(facts.active)
    if status.state is JobState.ENDED:
        parting, message, excused = parting_of(ctx, job)
        if status.message and not parting:
            parting, message = status.reason, status.message
        return Seen(
            reason=status.reason or "gone",
            busy=busy or bool(facts.settled),
            parting=parting,
            message=message,
            excused=excused,
            leaving=facts.leaving,
        )
    ctx.turns.stand_still(job, status.frozen, ctx.clock.now())
    running = status.state is JobState.RUNNING
    return Seen(
        running=running,
        pending=status.state is JobState.PENDING,
        reason=status.reason,
        handle=status.handle,
        message="" if running else status.message,
        ready=facts.ready,
        busy=busy,
        stale=running
        and not status.frozen
        and beats.stale(job, status.heartbeat, want.heartbeat_timeout, want.startup_grace),
        frozen=status.frozen,
        leaving=facts.leaving,
        anchored=status.anchored,
    )
