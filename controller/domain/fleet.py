"""Which workers a swarm should start, drain, stop or let go: one pure decision per pass.

A worker's life: Launching (intended) -> Starting (seen) -> Idle <-> Busy -> Draining or Stopping
-> gone.  A job that ended without being asked to is lost; its index gets a new incarnation.  One
that gave itself up before it was ready stays in the table as Lost, with its reason, until its
place is tried again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

LIVE = frozenset({"Idle", "Busy"})
COMING = frozenset({"Launching", "Starting"})
LOST = "Lost"
LOST_MESSAGES = 5
"""So many rows keep their message: they mostly say the same, and a status is to stay small."""
LEAVING = frozenset({"Draining", "Stopping", LOST})
FAILURES_UNTIL_FAILED = 5
MAX_LAUNCH_BACKOFF = 60.0
UNUSABLE_BACKOFF, MAX_UNUSABLE_BACKOFF = 15.0, 300.0
"""Where workers give themselves up: what is not installed will not be there in a second, nor will
the next one have more time whose time was up at once."""
EARLY_SECONDS = 3.0
"""A worker that ends so soon after it was ready, without a turn, counts as a failed launch."""
FAILURES_IN_DOUBT = 2
"""So many count on when a worker is ready: that it stays has yet to be seen."""
STEADY_SECONDS = 10.0
"""Failed launches are forgotten when all workers have been ready for so long."""
TIME_LIMIT = "TimeLimit"
"""Reason for which a worker leaves whose node was lent to it for a time only."""
SPOT_INTERRUPTION = "SpotInterruption"
"""Reason for which it leaves a machine that is wanted back before any time is up."""
LENT = frozenset({TIME_LIMIT, SPOT_INTERRUPTION})
"""Reasons that are no fault of anybody's: another worker takes its place."""
SHORT_SECONDS = 120.0
"""A worker that must leave so soon after it was ready, without a turn, has too short a time limit:
it would be replaced by the next one for ever."""
TOO_SHORT = "TimeLimitTooShort"
TOO_SHORT_MESSAGE = (
    "its time limit was up before it could do anything; ask for a longer one (timeLimit; without "
    "it the partition's default counts)"
)
IN_THE_QUEUE = " in the queue: "
PATIENCE_SECONDS = 30.0
"""What was launched longer ago than this is not expected at any moment."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One worker in the swarm's table. Times in seconds since the epoch."""

    index: int
    job: str
    phase: str
    spec_hash: str
    launched_at: float
    ready_at: float | None = None
    handle: str = ""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the provider and the mailbox say of one job."""

    running: bool = False
    pending: bool = False
    reason: str = ""
    handle: str = ""
    ready: bool = False
    busy: bool = False
    parting: str = ""
    """The reason with which it gave itself up before it was ready."""
    message: str = ""
    """That in a sentence."""
    excused: bool = False
    """It was refused by its model's provider, and is no failed launch."""
    stale: bool = False
    """Its heartbeat has not changed for longer than the timeout."""
    frozen: bool = False
    """It stands still by its provider's will."""
    leaving: str = ""
    """The reason for which it leaves, told so by somebody else than us: ``TimeLimit``,
    ``SpotInterruption``, ``Stopped``."""

    anchored: bool = False
    """Its machine stays though it leaves."""


NOT_SEEN = Seen()


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines of a launch, seconds."""

    soft: float
    hard: float


@dataclass(slots=True)
class FleetPlan:
    """What to do, in this order: write ``entries``, then act on the lists (job names)."""

    entries: list[Entry] = field(default_factory=list)
    launch: list[Entry] = field(default_factory=list)
    drain: list[str] = field(default_factory=list)
    kill: list[str] = field(default_factory=list)
    lost: list[Entry] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    left: list[Entry] = field(default_factory=list)
    """Those of ``drained`` whose time was up: nothing is wrong, another one takes their place."""
    incarnations: int = 0
    launch_failures: int = 0
    next_launch_at: float | None = None
    delayed: bool = False
    """A launch has passed its soft deadline."""
    soon: bool = False
    """Some worker is expected to come or go at any moment."""


def plan_fleet(
    *,
    desired: int,
    spec_hash: str,
    entries: Sequence[Entry],
    seen: Mapping[str, Seen],
    limits: Limits,
    incarnations: int,
    launch_failures: int,
    next_launch_at: float | None,
    prefix: str,
    now: float,
    hold: bool = False,
    wait_until: float | None = None,
    renew: float | None = None,
) -> FleetPlan:
    """Decide the next step of a swarm's workers; new jobs are named ``<prefix>-<index>-<n>``.

    Args:
        hold: no worker is started, and none is asked to leave: it is not known what they should
            be, only which of them are gone.
        wait_until: no worker is started before this time.
        renew: workers that were launched before this time are replaced.
    """
    if next_launch_at is not None:  # a clock set back must not postpone launches for hours
        unusable = any(entry.phase == LOST for entry in entries)
        longest = MAX_UNUSABLE_BACKOFF if unusable else MAX_LAUNCH_BACKOFF
        next_launch_at = min(next_launch_at, now + longest)
    plan = FleetPlan(
        incarnations=incarnations, launch_failures=launch_failures, next_launch_at=next_launch_at
    )
    for entry in entries:
        if entry.phase == LOST:
            plan.entries.append(entry)
        else:
            _advance(plan, entry, seen.get(entry.job, NOT_SEEN), limits, now)
    _count_failures(plan, seen, now)
    if hold:
        plan.launch.clear()
    else:
        _clear_lost(plan, desired, spec_hash, now, wait_until)
        _mark_outdated(plan, spec_hash, renew)
        _scale_down(plan, desired, seen)
        _keep_after_all(plan, desired, spec_hash, seen)
        if wait_until is None or now >= wait_until:
            _scale_up(plan, desired, spec_hash, prefix, now)
    plan.entries.sort(key=lambda e: (e.index, e.job))
    plan.soon = any(_soon(e, seen.get(e.job, NOT_SEEN), now) for e in plan.entries)
    leaving = [e.job for e in plan.entries if e.phase == "Draining"]
    views = {job: seen.get(job, NOT_SEEN) for job in leaving}
    plan.drain = [job for job in leaving if views[job] != NOT_SEEN and not views[job].busy]
    return plan


def _advance(plan: FleetPlan, entry: Entry, now_seen: Seen, limits: Limits, now: float) -> None:
    """Take what is known of one worker into its entry."""
    handle = now_seen.handle or entry.handle
    if entry.phase == "Launching" and now_seen == NOT_SEEN:
        if now - entry.launched_at > limits.hard:
            plan.lost.append(replace(entry, reason="LaunchDeadlineExceeded"))
        else:
            plan.delayed = plan.delayed or now - entry.launched_at > limits.soft
            plan.entries.append(entry)
            plan.launch.append(entry)
        return
    if not (now_seen.running or now_seen.pending):
        _ended(plan, entry, now_seen, now)
        return
    if now_seen.leaving and entry.phase not in LEAVING:
        entry = replace(entry, phase="Draining", reason=now_seen.leaving, handle=handle, message="")
    if entry.phase in COMING:
        entry = replace(_coming(plan, entry, now_seen, limits, now), handle=handle)
    if entry.phase in LIVE:
        if now_seen.stale:
            plan.kill.append(entry.job)
            entry = replace(entry, phase="Stopping", reason="HeartbeatLost")
        else:
            phase = "Busy" if now_seen.busy else "Idle"
            entry = replace(entry, phase=phase, handle=handle, reason=_standstill(now_seen))
    elif (entry.phase == "Draining" and now_seen.stale) or (
        entry.phase == "Stopping" and entry.job not in plan.kill
    ):
        plan.kill.append(entry.job)
    plan.entries.append(entry)


def _coming(plan: FleetPlan, entry: Entry, now_seen: Seen, limits: Limits, now: float) -> Entry:
    """One that is not ready yet, or was not until now."""
    if now_seen.ready:
        plan.launch_failures = min(plan.launch_failures, FAILURES_IN_DOUBT)
        plan.next_launch_at = None
        return replace(entry, phase="Idle", ready_at=now, reason="", message="")
    if now - entry.launched_at > limits.hard:
        plan.kill.append(entry.job)
        return replace(entry, phase="Stopping", reason="LaunchDeadlineExceeded", message="")
    plan.delayed = plan.delayed or now - entry.launched_at > limits.soft
    reason = now_seen.reason if now_seen.pending else _standstill(now_seen)
    told = now_seen.message if not any(e.reason == reason for e in plan.entries) else ""
    return replace(entry, phase="Starting", reason=reason, message=told)


def _standstill(now_seen: Seen) -> str:
    return (now_seen.reason or "Suspended") if now_seen.frozen else ""


def waiting_note(reasons: Iterable[str], hints: Mapping[str, str] | None = None) -> str:
    """``3 wait in the queue: Resources (2), Priority (1)``, from each one's reason; or nothing.

    Args:
        reasons: each one's.
        hints: what to do about a reason, where its time will not come by itself.
    """
    counts, told = Counter(reasons), hints or {}
    listed = ", ".join(
        f"{reason} ({number}{', ' if told.get(reason) else ''}{told.get(reason, '')})"
        for reason, number in sorted(counts.items())
    )
    total = sum(counts.values())
    return f"{total} {'waits' if total == 1 else 'wait'}{IN_THE_QUEUE}{listed}" if counts else ""


def _ended(plan: FleetPlan, entry: Entry, now_seen: Seen, now: float) -> None:
    if entry.phase == "Draining" and entry.reason != now_seen.leaving:
        plan.drained.append(entry.job)
        return
    taken = now_seen.reason == SPOT_INTERRUPTION and not now_seen.leaving  # before it could tell
    leaving = SPOT_INTERRUPTION if taken else now_seen.leaving
    if leaving in LENT:
        if leaving == TIME_LIMIT and _in_vain(entry, now_seen, now):
            entry = replace(entry, reason=TOO_SHORT, message=TOO_SHORT_MESSAGE)
            plan.lost.append(entry)
            plan.entries.append(replace(entry, phase=LOST))
        else:
            plan.left.append(replace(entry, reason=leaving))
            plan.drained.append(entry.job)
        return
    reason = now_seen.parting or now_seen.leaving or entry.reason or now_seen.reason
    told = now_seen.reason if now_seen.leaving else ""
    entry = replace(entry, reason=reason, message=now_seen.message or told)
    plan.lost.append(entry)
    if now_seen.parting and entry.ready_at is None:
        plan.entries.append(replace(entry, phase=LOST))


def _count_failures(plan: FleetPlan, seen: Mapping[str, Seen], now: float) -> None:
    """Workers that end as soon as they begin put the next launch off, further each time."""
    views = {e.job: seen.get(e.job, NOT_SEEN) for e in plan.lost}
    failed = [e for e in plan.lost if not views[e.job].excused and _in_vain(e, views[e.job], now)]
    if failed:
        plan.launch_failures += 1
        first, most = 1.0, MAX_LAUNCH_BACKOFF
        if any(views[e.job].parting or views[e.job].leaving == TIME_LIMIT for e in failed):
            first, most = UNUSABLE_BACKOFF, MAX_UNUSABLE_BACKOFF
        backoff = min(most, first * 2.0 ** min(plan.launch_failures - 1, 10))
        plan.next_launch_at = max(plan.next_launch_at or 0.0, now + backoff)
    elif not plan.lost and all(_is_steady(e, now) for e in plan.entries):
        waits = plan.next_launch_at is not None and now < plan.next_launch_at
        if not waits and plan.entries:
            plan.launch_failures, plan.next_launch_at = 0, None


def _is_steady(entry: Entry, now: float) -> bool:
    ready = entry.ready_at is not None and entry.phase != LOST
    return ready and now - (entry.ready_at or now) >= STEADY_SECONDS


def _in_vain(entry: Entry, now_seen: Seen, now: float) -> bool:
    """Whether a worker that is gone was of no use: never ready, or only for a moment."""
    enough = SHORT_SECONDS if now_seen.leaving == TIME_LIMIT else EARLY_SECONDS
    early = entry.ready_at is None or now - entry.ready_at < enough
    return early and not (entry.ready_at is not None and now_seen.busy)


def _soon(entry: Entry, now_seen: Seen, now: float) -> bool:
    if entry.phase == "Draining":
        return not now_seen.busy
    if entry.phase in COMING:
        return now - entry.launched_at < PATIENCE_SECONDS
    return entry.phase == "Stopping"


def _clear_lost(
    plan: FleetPlan, desired: int, spec_hash: str, now: float, wait_until: float | None
) -> None:
    """Forget workers that gave themselves up once their places are tried again, or not wanted.

    Under another spec they are tried again at once.
    """
    lost = [e for e in plan.entries if e.phase == LOST]
    if any(e.spec_hash != spec_hash for e in lost):
        plan.launch_failures, plan.next_launch_at = 0, None
    waits = max(plan.next_launch_at or 0.0, wait_until or 0.0) > now
    missing = max(0, desired - sum(e.phase not in LEAVING for e in plan.entries))
    kept = [e for e in lost if e.spec_hash == spec_hash][: missing if waits else 0]
    kept[LOST_MESSAGES:] = [replace(e, message="") for e in kept[LOST_MESSAGES:]]
    plan.entries = [e for e in plan.entries if e.phase != LOST] + kept


def _mark_outdated(plan: FleetPlan, spec_hash: str, renew: float | None) -> None:
    def outdated(entry: Entry) -> str:
        if entry.phase in LEAVING:
            return ""
        if entry.spec_hash != spec_hash:
            return "Outdated"
        old = renew is not None and entry.launched_at < renew and entry.phase != "Launching"
        return "CredentialRefused" if old else ""

    plan.entries = [
        replace(e, phase="Draining", reason=outdated(e), message="") if outdated(e) else e
        for e in plan.entries
    ]
    plan.launch = [e for e in plan.launch if e.spec_hash == spec_hash]


def _scale_down(plan: FleetPlan, desired: int, seen: Mapping[str, Seen]) -> None:
    staying = [e for e in plan.entries if e.phase not in LEAVING]
    excess = len(staying) - desired
    if excess <= 0:
        return
    anchored = {job for job, view in seen.items() if view.anchored}
    victims = _victims(staying, excess, anchored)
    plan.launch = [e for e in plan.launch if e.job not in victims]
    kept = []
    for entry in plan.entries:
        if entry.job not in victims:
            kept.append(entry)
        elif seen.get(entry.job, NOT_SEEN) == NOT_SEEN:
            plan.drained.append(entry.job)
        else:
            kept.append(replace(entry, phase="Draining", reason="ScaledDown", message=""))
    plan.entries = kept


def _victims(staying: Sequence[Entry], number: int, anchored: Collection[str]) -> set[str]:
    """Who leaves: the least use first, then who makes its machine idle soonest, then the last.

    Workers with one handle are on one machine.  A machine that stays in any case is not left.
    """
    rank = {"Launching": 0, "Starting": 1, "Idle": 2, "Busy": 3}
    left = {e.job: e for e in staying}
    together = Counter(e.handle or e.job for e in staying)
    for _ in range(min(number, len(left))):
        first = min(
            left.values(),
            key=lambda e: (
                rank[e.phase],
                e.job in anchored,
                together[e.handle or e.job],
                -e.index,
            ),
        )
        del left[first.job]
        together[first.handle or first.job] -= 1
    return {e.job for e in staying} - set(left)


def _keep_after_all(
    plan: FleetPlan, desired: int, spec_hash: str, seen: Mapping[str, Seen]
) -> None:
    """Busy workers that were to leave after their turn stay if they are wanted again.

    They have not been told to leave yet; that waits for the end of their turn.  Others may have
    told them.
    """
    held = {e.index for e in plan.entries if e.phase not in LEAVING}
    missing = desired - sum(e.phase not in LEAVING for e in plan.entries)
    for number, entry in enumerate(plan.entries):
        view = seen.get(entry.job, NOT_SEEN)
        told = not view.busy or bool(view.leaving) or entry.index in held
        if missing > 0 and entry.phase == "Draining" and entry.spec_hash == spec_hash and not told:
            phase = "Starting" if entry.ready_at is None else "Busy"
            plan.entries[number] = replace(entry, phase=phase, reason="")
            held.add(entry.index)
            missing -= 1


def _scale_up(plan: FleetPlan, desired: int, spec_hash: str, prefix: str, now: float) -> None:
    staying = [e for e in plan.entries if e.phase not in LEAVING]
    missing = desired - len(staying)
    if missing <= 0 or (plan.next_launch_at is not None and now < plan.next_launch_at):
        return
    taken = {e.index for e in plan.entries}
    for index in _free(taken, missing, desired):
        plan.incarnations += 1
        entry = Entry(
            index=index,
            job=f"{prefix}-{index}-{plan.incarnations}",
            phase="Launching",
            spec_hash=spec_hash,
            launched_at=now,
        )
        plan.entries.append(entry)
        plan.launch.append(entry)


def _free(taken: Collection[int], count: int, desired: int) -> list[int]:
    """The lowest indices nobody holds; an index that is draining is waited for, not skipped."""
    free = [i for i in range(max(desired, 1) + len(taken)) if i not in taken]
    held = len([i for i in taken if i < desired])
    return free[: min(count, max(0, desired - held))] if held else free[:count]
