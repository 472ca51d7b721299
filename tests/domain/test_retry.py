"""What follows a failure: when the next attempt is, and when there is none."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.retry import (
    MAX_WAIT_SECONDS,
    FailureClass,
    Failures,
    GiveUp,
    Retry,
    RetryLimits,
    backoff_seconds,
    count,
    decide,
)

NOW = 1_000_000.0


def run(classes: list[FailureClass], limits: RetryLimits) -> list[Retry | GiveUp]:
    """The decisions after each of these failures, one after the other."""
    failures = Failures()
    decisions = []
    for failure in classes:
        failures = count(failures, failure)
        decisions.append(decide(failures, failure, limits, NOW, uid="u"))
    return decisions


@pytest.mark.parametrize("failure", [FailureClass.TASK, FailureClass.TIMEOUT])
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_a_limit_of_two_means_three_attempts(failure: FailureClass, limit: int) -> None:
    decisions = run([failure] * (limit + 1), RetryLimits(limit=limit))
    assert [type(d) for d in decisions] == [Retry] * limit + [GiveUp]
    last = decisions[-1]
    assert isinstance(last, GiveUp)
    assert last.reason == ("Timeout" if failure is FailureClass.TIMEOUT else "RetriesExhausted")


def test_task_failures_and_timeouts_share_the_limit() -> None:
    decisions = run([FailureClass.TASK, FailureClass.TIMEOUT], RetryLimits(limit=1))
    assert isinstance(decisions[-1], GiveUp)


def test_infrastructure_uses_up_nothing_of_the_tasks_own() -> None:
    lost = [FailureClass.INFRASTRUCTURE] * 9
    decisions = run([*lost, FailureClass.TASK, *lost, FailureClass.TASK], RetryLimits(limit=2))
    assert all(isinstance(d, Retry) for d in decisions)


def test_ten_infrastructure_failures_in_a_row_fail_the_task() -> None:
    decisions = run([FailureClass.INFRASTRUCTURE] * 10, RetryLimits())
    assert all(isinstance(d, Retry) for d in decisions[:9])
    assert isinstance(decisions[9], GiveUp)
    assert decisions[9].reason == "InfrastructureRetriesExhausted"
    waits = [d.at - NOW for d in decisions[:9] if isinstance(d, Retry)]
    assert waits == sorted(waits)
    assert waits[0] < 2


@pytest.mark.parametrize("failure", [FailureClass.QUOTA, FailureClass.CREDENTIAL])
def test_what_a_provider_refuses_never_gives_up(failure: FailureClass) -> None:
    decisions = run([failure] * 200, RetryLimits(limit=0))
    assert all(isinstance(d, Retry) for d in decisions)


def test_a_provider_that_failed_by_itself_is_waited_for_longer_and_as_it_asks() -> None:
    def wait(number: int, **more: Any) -> float:
        found = decide(
            Failures(infrastructure=number), FailureClass.INFRASTRUCTURE, RetryLimits(), NOW,
            uid="u", **more,
        )  # fmt: skip
        assert isinstance(found, Retry)
        return found.at - NOW

    assert wait(1) < 2
    assert [5 <= wait(1, overloaded=True) <= 6, 10 <= wait(2, overloaded=True) <= 12] == [True] * 2
    assert 60 <= wait(1, overloaded=True, retry_after=60) <= 72
    assert wait(1, overloaded=True, retry_after=1) >= 5
    assert wait(1, overloaded=True, retry_after=1e12) == MAX_WAIT_SECONDS
    total = sum(wait(number, overloaded=True) for number in range(1, 10))
    assert total > 1200, "an outage of twenty minutes fails no task"


def test_a_quota_waits_as_asked() -> None:
    def wait(retry_after: float | None) -> float:
        found = decide(
            Failures(quota=1), FailureClass.QUOTA, RetryLimits(), NOW, uid="u",
            retry_after=retry_after,
        )  # fmt: skip
        assert isinstance(found, Retry)
        return found.at - NOW

    assert 5 <= wait(5) <= 6
    assert wait(0) == 0
    assert wait(1e12) == MAX_WAIT_SECONDS
    for useless in (None, math.nan, math.inf, -1.0):
        assert 10 <= wait(useless) <= 12


@pytest.mark.parametrize("failure", [FailureClass.REFUSED, FailureClass.CANCELLED])
def test_a_refusal_is_final(failure: FailureClass) -> None:
    (decision,) = run([failure], RetryLimits(limit=5))
    assert isinstance(decision, GiveUp)
    assert decision.reason == failure.value


def test_superseded_begins_again_at_once_and_counts_nothing() -> None:
    before = Failures(task=1, infrastructure=2, quota=3)
    assert count(before, FailureClass.SUPERSEDED) == before
    decision = decide(before, FailureClass.SUPERSEDED, RetryLimits(), NOW, uid="u")
    assert isinstance(decision, Retry)
    assert decision.at == NOW


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_progress_counts_nothing_and_ends_a_row(task: int, lost: int, quota: int) -> None:
    after = count(Failures(task, lost, quota), FailureClass.INFRASTRUCTURE, progress=True)
    assert after == Failures(task=task)


@given(st.lists(st.sampled_from(FailureClass), max_size=60))
def test_own_failures_are_all_that_the_limit_counts(classes: list[FailureClass]) -> None:
    failures = Failures()
    for failure in classes:
        failures = count(failures, failure)
    own = sum(f in (FailureClass.TASK, FailureClass.TIMEOUT) for f in classes)
    assert failures.task == own


@given(
    st.integers(1, 40),
    st.floats(0, 86_400),
    st.floats(0, 86_400),
    st.text(max_size=10).map(lambda s: s.encode("utf-8", "replace").decode()),
)
def test_backoff_grows_to_its_ceiling(number: int, base: float, ceiling: float, salt: str) -> None:
    wait = backoff_seconds(number, base, ceiling, salt)
    assert 0 <= wait <= ceiling
    assert wait >= min(base, ceiling)
    assert wait == backoff_seconds(number, base, ceiling, salt)
    assert wait <= backoff_seconds(number + 1, base, ceiling, salt)


def test_jitter_differs_between_tasks() -> None:
    waits = {backoff_seconds(3, 10, 1000, f"uid-{n}") for n in range(20)}
    assert len(waits) == 20
    assert min(waits) >= 40
    assert max(waits) <= 48
