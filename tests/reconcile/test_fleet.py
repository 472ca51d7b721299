"""The plan of a fleet: from any state to what is desired, never more than that, idle ones first."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.domain.fleet import (
    LEAVING,
    LOST,
    MAX_LAUNCH_BACKOFF,
    MAX_UNUSABLE_BACKOFF,
    NOT_SEEN,
    Entry,
    Limits,
    Seen,
    plan_fleet,
)

NOW = 1_000_000.0
LIMITS = Limits(120, 480)
PHASES = ("Launching", "Starting", "Idle", "Busy", "Draining", "Stopping", "Lost")


def plan(entries, seen, desired=2, spec="new", now=NOW, **more):
    values = {"incarnations": 100, "launch_failures": 0, "next_launch_at": None} | more
    return plan_fleet(
        desired=desired, spec_hash=spec, entries=entries, seen=seen, limits=LIMITS, prefix="w",
        now=now, **values,
    )  # fmt: skip


@st.composite
def states(draw):
    """Any table, and any view of its jobs."""
    entries, seen = [], {}
    for number in range(draw(st.integers(0, 6))):
        phase = draw(st.sampled_from(PHASES))
        job = f"w-{number}-{number + 1}"
        settled = phase in ("Idle", "Busy")
        entries.append(
            Entry(
                index=draw(st.integers(0, 4)) if phase in LEAVING else number,
                job=job,
                phase=phase,
                spec_hash=draw(st.sampled_from(["new", "old"])),
                launched_at=NOW - draw(st.sampled_from([0, 50, 600])),
                ready_at=NOW - draw(st.sampled_from([0, 5, 500])) if settled else None,
            )
        )
        if draw(st.booleans()):
            running = draw(st.booleans())
            seen[job] = Seen(
                running=running, reason="" if running else "exit 1", ready=draw(st.booleans()),
                busy=draw(st.booleans()), stale=draw(st.booleans()),
                parting="" if running else draw(st.sampled_from(["", "AgentTooOld"])),
                frozen=running and draw(st.booleans()),
                leaving=draw(st.sampled_from(["", "", "TimeLimit", "Stopped", "SpotInterruption"])),
            )  # fmt: skip
    return entries, seen


def staying(entries):
    return [e for e in entries if e.phase not in LEAVING]


@given(states(), st.integers(0, 5))
def test_a_plan_keeps_its_promises(state, desired):
    entries, seen = state
    result = plan(entries, seen, desired)
    indices = [e.index for e in result.entries]
    fresh = [e for e in result.launch if e.job not in {x.job for x in entries}]
    assert len(staying(result.entries)) <= max(desired, 0)
    assert all(indices.count(e.index) == 1 for e in fresh)
    assert {e.job for e in result.launch} <= {e.job for e in result.entries}
    assert len({e.job for e in result.entries}) == len(result.entries)
    assert set(result.drain) <= {e.job for e in result.entries if e.phase == "Draining"}
    assert not any(seen.get(job, NOT_SEEN).busy for job in result.drain)
    gone = [e.job for e in result.lost] + result.drained
    before = {e.job for e in entries}
    forgotten = {e.job for e in entries if e.phase == LOST} - {e.job for e in result.entries}
    assert len([e for e in result.entries if e.phase == LOST]) <= desired
    before -= forgotten
    assert before == ({e.job for e in result.entries} & before) | set(gone)
    assert result.incarnations == 100 + len(fresh)
    assert all(e.spec_hash == "new" for e in staying(result.entries))


@given(states(), st.integers(0, 5))
@settings(max_examples=60)
def test_any_state_comes_to_what_is_desired(state, desired):
    entries, seen = state
    now, failures, later, count = NOW, 0, None, 100
    for _ in range(80):
        result = plan(entries, seen, desired, now=now, incarnations=count,
                      launch_failures=failures, next_launch_at=later)  # fmt: skip
        entries, count = result.entries, result.incarnations
        failures, later = result.launch_failures, result.next_launch_at
        ended = set(result.kill) | set(result.drain)
        seen = {
            e.job: Seen(reason="exit 0") if e.job in ended else Seen(running=True, ready=True)
            for e in entries
        }
        now += 5
    assert len(entries) == desired
    assert len({e.index for e in entries}) == desired
    assert all(e.phase == "Idle" and e.spec_hash == "new" for e in entries)
    assert failures == 0 or desired == 0
    again = plan(entries, seen, desired, now=now, incarnations=count)
    assert not (again.launch or again.kill or again.drain or again.lost or again.drained)
    assert again.entries == entries


def worker(index, phase="Idle", **more):
    values = {"spec_hash": "new", "launched_at": NOW - 500, "ready_at": NOW - 400} | more
    return Entry(index=index, job=f"w-{index}-{index}", phase=phase, **values)


RUNS = Seen(running=True, ready=True)


def test_idle_ones_leave_first_and_the_highest_of_them():
    entries = [worker(0, "Busy"), worker(1), worker(2), worker(3, "Busy")]
    seen = {e.job: replace(RUNS, busy=e.phase == "Busy") for e in entries}
    result = plan(entries, seen, desired=3)
    assert [e.index for e in result.entries if e.phase == "Draining"] == [2]
    result = plan(entries, seen, desired=1)
    assert [e.index for e in result.entries if e.phase == "Draining"] == [1, 2, 3]
    assert result.drain == ["w-1-1", "w-2-2"]


def test_among_idle_ones_those_leave_whose_machine_has_the_fewest():
    on = ["i-a", "i-a", "i-b", "i-b", "i-c"]
    entries = [worker(n, handle=machine) for n, machine in enumerate(on)]
    seen = {e.job: replace(RUNS, handle=e.handle) for e in entries}
    for desired, leave in ((4, [4]), (3, [3, 4]), (2, [2, 3, 4]), (1, [1, 2, 3, 4])):
        result = plan(entries, seen, desired=desired)
        assert [e.index for e in result.entries if e.phase == "Draining"] == leave
    entries[4] = replace(entries[4], phase="Busy")
    seen["w-4-4"] = replace(seen["w-4-4"], busy=True)
    result = plan(entries, seen, desired=3)
    assert [e.index for e in result.entries if e.phase == "Draining"] == [2, 3]


def test_a_machine_that_stays_anyway_keeps_its_workers():
    on = ["i-b", "i-b", "i-a", "i-a"]
    entries = [worker(n, handle=machine) for n, machine in enumerate(on)]
    seen = {e.job: replace(RUNS, handle=e.handle, anchored=e.handle == "i-a") for e in entries}
    for desired, leave in ((3, [1]), (2, [0, 1]), (1, [0, 1, 3])):
        result = plan(entries, seen, desired=desired)
        assert [e.index for e in result.entries if e.phase == "Draining"] == leave


def test_a_launch_that_never_shows_is_late_after_its_soft_deadline():
    entry = worker(0, "Launching", ready_at=None, launched_at=NOW - 119)
    assert not plan([entry], {}, desired=1).delayed
    entry = worker(0, "Launching", ready_at=None, launched_at=NOW - 121)
    result = plan([entry], {}, desired=1)
    assert result.delayed
    assert [e.job for e in result.launch] == [entry.job]


def test_a_held_fleet_only_loses_what_is_gone():
    entries = [worker(0, spec_hash="old"), worker(1), worker(2, "Launching", ready_at=None)]
    entries[2] = replace(entries[2], launched_at=NOW)
    result = plan(entries, {"w-0-0": RUNS, "w-1-1": Seen(reason="exit 1")}, desired=0, hold=True)
    assert [e.job for e in result.lost] == ["w-1-1"]
    assert [e.phase for e in result.entries] == ["Idle", "Launching"]
    assert not result.launch
    assert not result.drain


def test_a_launch_that_never_shows_is_given_up_after_its_deadline():
    entry = worker(0, "Launching", ready_at=None, launched_at=NOW - 481)
    result = plan([entry], {}, desired=1)
    assert [e.reason for e in result.lost] == ["LaunchDeadlineExceeded"]
    assert result.launch_failures == 1
    assert not result.launch


def test_what_starts_too_slowly_is_killed():
    entry = worker(0, "Starting", ready_at=None, launched_at=NOW - 481)
    assert plan([entry], {entry.job: Seen(running=True)}, desired=1).kill == [entry.job]


def test_failed_launches_are_put_off_further_each_time():
    entry = worker(0, "Starting", ready_at=None, launched_at=NOW)
    dead = {entry.job: Seen(reason="exit 1")}
    waits = [
        plan([entry], dead, desired=1, launch_failures=n).next_launch_at - NOW for n in range(8)
    ]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def gives_up(index=0, **more):
    entry = worker(index, "Starting", ready_at=None, launched_at=NOW)
    values = {"reason": "exit 1", "parting": "AgentTooOld", "message": "1.0 is too old"} | more
    return entry, {entry.job: Seen(**values)}


def test_who_gives_itself_up_is_shown_until_its_place_is_tried_again():
    entry, dead = gives_up()
    result = plan([entry], dead, desired=1)
    assert [(e.phase, e.reason, e.message) for e in result.entries] == [
        (LOST, "AgentTooOld", "1.0 is too old")
    ]
    assert [e.job for e in result.lost] == [entry.job]
    later = {"next_launch_at": result.next_launch_at, "launch_failures": 1}
    still = plan(result.entries, dead, desired=1, now=NOW + 14, **later)
    assert (still.entries, still.lost, still.launch) == (result.entries, [], [])
    again = plan(result.entries, dead, desired=1, now=NOW + 15, **later)
    assert [e.phase for e in again.entries] == ["Launching"]
    assert again.entries == again.launch
    other = plan(result.entries, dead, desired=1, spec="newer", now=NOW + 1, **later)
    assert [e.phase for e in other.entries] == ["Launching"]
    assert other.launch_failures == 0
    assert plan(result.entries, dead, desired=0, now=NOW + 1, **later).entries == []


def test_agents_that_cannot_be_started_are_put_off_for_longer():
    entry, dead = gives_up()
    waits = [
        plan([entry], dead, desired=1, launch_failures=n).next_launch_at - NOW for n in range(7)
    ]
    assert waits == [15, 30, 60, 120, 240, MAX_UNUSABLE_BACKOFF, MAX_UNUSABLE_BACKOFF]


def test_who_was_refused_by_its_provider_is_no_failed_launch():
    entry, dead = gives_up(excused=True)
    result = plan([entry], dead, desired=1, wait_until=NOW + 60)
    assert (result.launch_failures, result.next_launch_at) == (0, None)
    assert [e.phase for e in result.entries] == [LOST]
    after = plan(result.entries, dead, desired=1, now=NOW + 60, wait_until=NOW + 60)
    assert [e.phase for e in after.entries] == ["Launching"]


def test_after_a_refused_credential_workers_are_renewed_but_for_those_at_work():
    entries = [worker(0), worker(1, "Busy"), worker(2, launched_at=NOW - 1, ready_at=NOW)]
    seen = {e.job: replace(RUNS, busy=e.phase == "Busy") for e in entries}
    result = plan(entries, seen, desired=3, renew=NOW - 10)
    assert [(e.phase, e.reason) for e in result.entries] == [
        ("Draining", "CredentialRefused"), ("Busy", ""), ("Idle", "")
    ]  # fmt: skip
    assert result.drain == [entries[0].job]


def test_many_that_fail_at_once_are_one_failure():
    entries = [worker(n, "Starting", ready_at=None, launched_at=NOW) for n in range(20)]
    dead = {e.job: Seen(reason="exit 1") for e in entries}
    assert plan(entries, dead, desired=20).launch_failures == 1


def test_who_dies_as_soon_as_it_is_ready_counts_as_failed_but_not_in_a_turn():
    entry = worker(0, ready_at=NOW - 1)
    assert plan([entry], {entry.job: Seen(reason="signal 9")}).launch_failures == 1
    busy = {entry.job: Seen(reason="signal 9", busy=True)}
    assert plan([entry], busy).launch_failures == 0


def test_a_clock_that_was_set_back_postpones_no_launch_for_long():
    result = plan([], {}, desired=1, next_launch_at=NOW + 86_400)
    assert result.next_launch_at == NOW + MAX_LAUNCH_BACKOFF


def test_a_draining_worker_whose_heart_stands_still_is_killed():
    entry = worker(0, "Draining")
    seen = {entry.job: replace(RUNS, busy=True, stale=True)}
    assert plan([entry], seen, desired=0).kill == [entry.job]


def test_a_busy_worker_that_was_to_leave_stays_when_it_is_wanted_again():
    entry = worker(1, "Draining", reason="ScaledDown")
    busy = {entry.job: replace(RUNS, busy=True)}
    result = plan([entry], busy, desired=1)
    assert [(e.job, e.phase) for e in result.entries] == [(entry.job, "Busy")]
    assert not result.launch


def test_who_left_a_machine_that_was_wanted_back_is_replaced_at_once_and_has_not_failed():
    """Whether it could say so, or only its provider knows; however soon after its beginning."""
    entry = worker(0, "Starting")
    told = Seen(reason="exit 0", leaving="SpotInterruption")
    for seen in (told, Seen(reason="SpotInterruption")):
        result = plan([entry], {entry.job: seen}, desired=1)
        assert [(e.job, e.reason) for e in result.left] == [(entry.job, "SpotInterruption")]
        assert result.drained == [entry.job] and not result.lost
        assert len(result.launch) == 1 and result.launch_failures == 0
