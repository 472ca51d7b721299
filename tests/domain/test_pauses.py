"""Pauses of a credential: never shorter than asked, growing where nothing was, one for a burst."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controller.domain.pauses import (
    FIRST_BACKOFF_SECONDS,
    FIRST_SLACK_SECONDS,
    MAX_BACKOFF_SECONDS,
    Pause,
    describe,
    refused,
    served,
)
from controller.domain.retry import JITTER, MAX_WAIT_SECONDS, FailureClass

NOW = 1_790_000_000.0
QUOTA, CREDENTIAL = FailureClass.QUOTA, FailureClass.CREDENTIAL
kinds = st.sampled_from([QUOTA, CREDENTIAL])
asked_seconds = st.one_of(
    st.none(), st.floats(0, 2 * MAX_WAIT_SECONDS), st.sampled_from([-1.0, math.nan, math.inf])
)


def useful(retry_after: float | None) -> float | None:
    """What a provider asked for, as far as it is to be kept."""
    if retry_after is None or not math.isfinite(retry_after) or retry_after < 0:
        return None
    return min(retry_after, MAX_WAIT_SECONDS)


@dataclass(frozen=True)
class Turn:
    """One that runs."""

    began: float


class Provider(RuleBasedStateMachine):
    """Any life of a credential: turns begin when they may, and end refused or served."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.pause: Pause | None = None
        self.running: list[Turn] = []
        self.asked_until = 0.0

    @rule(seconds=st.floats(0, 4000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(count=st.integers(1, 5))
    def turns_begin(self, count: int) -> None:
        if self.pause is None or self.now >= self.pause.opens:
            self.running += [Turn(self.now)] * count

    @rule(kind=kinds, retry_after=asked_seconds, number=st.integers(0, 20))
    def one_is_refused(self, kind: FailureClass, retry_after: float | None, number: int) -> None:
        if not self.running:
            return
        turn = self.running.pop(number % len(self.running))
        before, named = self.pause, useful(retry_after)
        self.pause = after = refused(
            before, kind, began=turn.began, now=self.now, retry_after=retry_after, salt="k"
        )
        self.asked_until = max(self.asked_until, self.now + (named or 0.0))
        again = refused(
            after, kind, began=turn.began, now=self.now, retry_after=retry_after, salt="k"
        )
        assert again == after, "told twice it is the same"
        assert after.until <= max(self.now + MAX_WAIT_SECONDS, before.until if before else 0.0)
        new_round = before is None or turn.began >= before.until
        assert after.refusals == (before.refusals if before else 0) + new_round
        if new_round and named is None:
            most = FIRST_BACKOFF_SECONDS[kind] * 2.0 ** min(after.refusals - 1, 40)
            wait = after.until - self.now
            assert min(most, MAX_BACKOFF_SECONDS) <= wait + 1e-6
            assert wait <= min(most * (1 + JITTER), MAX_BACKOFF_SECONDS) + 1e-6
        elif not new_round and before is not None and self.now < before.until:
            assert after.until >= before.until

    @rule(number=st.integers(0, 20))
    def one_is_served(self, number: int) -> None:
        if not self.running:
            return
        turn = self.running.pop(number % len(self.running))
        before = self.pause
        self.pause = served(before, began=turn.began)
        if before is not None and turn.began < before.since:
            assert self.pause is before
        else:
            assert self.pause is None
        if self.pause is None:
            self.asked_until = 0.0

    @invariant()
    def no_turn_begins_before_the_time_that_was_named(self) -> None:
        assert self.pause is None or self.pause.until >= self.asked_until - 1e-6


TestProvider = Provider.TestCase


@given(
    kinds,
    st.floats(0, MAX_WAIT_SECONDS / 2),
    st.lists(st.floats(0, FIRST_SLACK_SECONDS / 2), min_size=1, max_size=30).map(sorted),
)
def test_a_burst_is_one_pause_that_is_written_once(
    kind: FailureClass, retry_after: float, moments: list[float]
) -> None:
    first = pause = refused(None, kind, began=NOW - 60, now=NOW, retry_after=retry_after)
    for moment in moments:
        pause = refused(pause, kind, began=NOW - 9, now=NOW + moment, retry_after=retry_after)
    assert pause == first


@given(st.integers(1, 60))
def test_pauses_grow_with_refusals_in_a_row(number: int) -> None:
    pause: Pause | None = None
    now, waits = NOW, []
    for _ in range(number):
        pause = refused(pause, QUOTA, began=now, now=now, salt="k")
        waits.append(pause.until - now)
        now = pause.opens
    assert all(a <= b + 1e-6 for a, b in pairwise(waits))
    assert 15 <= waits[0] <= 18
    assert waits[-1] <= MAX_BACKOFF_SECONDS


def test_who_names_the_same_short_time_over_and_over_is_asked_less_often() -> None:
    pause: Pause | None = None
    now, waits = NOW, []
    for _ in range(20):
        pause = refused(pause, QUOTA, began=now, now=now, retry_after=0.0)
        waits.append(pause.until - now)
        now = pause.until
    assert waits[0] < 1
    assert 20 < waits[-1] <= 30


def test_a_turn_that_ends_long_after_its_pause_begins_another_and_counts_for_nothing() -> None:
    pause = refused(None, QUOTA, began=NOW - 60, now=NOW, retry_after=10)
    later = refused(pause, QUOTA, began=NOW - 30, now=NOW + 3600, retry_after=10)
    assert later.until >= NOW + 3610
    assert later.refusals == 1


def test_the_later_end_says_what_it_waits_for() -> None:
    pause = refused(None, CREDENTIAL, began=NOW, now=NOW, message="no  such\nkey")
    assert (pause.reason, pause.message) == ("CredentialRefused", "no such key")
    same = refused(pause, QUOTA, began=NOW, now=NOW + 1, retry_after=5)
    assert same is pause
    longer = refused(pause, QUOTA, began=NOW, now=NOW + 1, retry_after=3600, message="spent")
    assert (longer.reason, longer.message, longer.since) == ("QuotaExhausted", "spent", NOW)


def test_a_sentence_names_a_time_and_keeps_others_words_to_itself() -> None:
    pause = Pause(QUOTA, NOW, NOW + 90.2, 3, "limit reached", "team-a")
    text = describe(pause, "team-a")
    assert "before 2026-09-21T14:14:51Z (3 refusals in a row): limit reached" in text
    assert "limit reached" not in describe(pause, "team-b")
    refusal = describe(replace(pause, failure=CREDENTIAL, refusals=1), "team-a")
    assert "2026-09-21T14:14:52Z with new workers: limit reached" in refusal


@pytest.mark.parametrize("useless", [None, math.nan, math.inf, -1.0])
def test_a_time_that_says_nothing_is_none(useless: float | None) -> None:
    wait = refused(None, CREDENTIAL, began=NOW, now=NOW, retry_after=useless).until - NOW
    assert 30 <= wait <= 36
