"""What follows a failed attempt: another one (and when), or giving up.

Failures have classes.  Only the task's own failures and timeouts use up ``retry.limit``;
infrastructure has its own limit, counted in a row; what a model's provider refuses uses up nothing
(see ``pauses``: everybody waits who has the same credential).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_WAIT_SECONDS = 86_400.0
"""No provider can make a task wait longer than a day at a time."""
REFUSED_BACKOFF_SECONDS, REFUSED_MAX_BACKOFF_SECONDS = 10.0, 900.0
"""Where no pause of a credential holds a task that a provider refused, since its swarm is gone or
has another credential by now."""
OVERLOADED_BACKOFF_SECONDS = 5.0
"""The first wait after a provider failed by itself: that takes longer than a worker."""
INFRASTRUCTURE_BACKOFF_SECONDS = 1.0
"""The first wait after a lost worker (``retry.backoffSeconds`` if that is less): another worker
is often there at once, and the task did nothing wrong."""
JITTER = 0.2
"""A wait is lengthened by up to this part, so that what failed together returns one by one."""


class FailureClass(StrEnum):
    """Whose failure it was (``attempts[].class``)."""

    TASK = "Task"
    INFRASTRUCTURE = "Infrastructure"
    QUOTA = "Quota"
    CREDENTIAL = "Credential"
    TIMEOUT = "Timeout"
    REFUSED = "Refused"
    SUPERSEDED = "Superseded"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures since the last retry or revision (``status.failures``)."""

    task: int = 0
    """The task's own, timeouts included."""
    infrastructure: int = 0
    """In a row: any other outcome sets it to zero."""
    quota: int = 0
    """Of a provider's quota or a refused credential, in a row."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """A task's effective ``retry`` block, and the limits that are not the user's."""

    limit: int = 1
    """Retries after the task's own failures: 2 means three attempts."""
    backoff_seconds: float = 10.0
    max_backoff_seconds: float = 300.0
    infrastructure_limit: int = 10
    """Infrastructure failures in a row with which the task fails."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again."""

    at: float
    """Not before this time, in seconds since the epoch."""
    message: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The task has failed."""

    reason: str
    """A condition reason."""
    message: str


def count(failures: Failures, failure: FailureClass, *, progress: bool = False) -> Failures:
    """The counters after one more failed attempt of this class.

    With ``progress`` it was no failure at all: its worker had to leave, and its work is kept.
    """
    if progress:
        return Failures(task=failures.task)
    match failure:
        case FailureClass.TASK | FailureClass.TIMEOUT:
            return Failures(task=failures.task + 1)
        case FailureClass.INFRASTRUCTURE:
            return replace(failures, infrastructure=failures.infrastructure + 1, quota=0)
        case FailureClass.QUOTA | FailureClass.CREDENTIAL:
            return replace(failures, infrastructure=0, quota=failures.quota + 1)
        case _:
            return failures


def decide(
    failures: Failures,
    failure: FailureClass,
    limits: RetryLimits,
    now: float,
    *,
    uid: str,
    retry_after: float | None = None,
    overloaded: bool = False,
) -> Retry | GiveUp:
    """What to do after an attempt failed with ``failure``.

    Args:
        failures: the counters with this failure counted in (see ``count``).
        now: seconds since the epoch.
        uid: the task's, for a jitter that is the same whenever this is computed again.
        retry_after: seconds that the model's provider asked to wait, if it did.
        overloaded: whether the provider failed by itself.
    """
    match failure:
        case FailureClass.TASK | FailureClass.TIMEOUT:
            return _own(failures, failure, limits, now, uid)
        case FailureClass.INFRASTRUCTURE:
            wait = OVERLOADED_BACKOFF_SECONDS if overloaded else INFRASTRUCTURE_BACKOFF_SECONDS
            asked = _asked(retry_after, f"{uid}/infrastructure")
            return _infrastructure(failures, limits, now, uid, first=wait, asked=asked)
        case FailureClass.QUOTA | FailureClass.CREDENTIAL:
            wait = backoff_seconds(
                failures.quota, REFUSED_BACKOFF_SECONDS, REFUSED_MAX_BACKOFF_SECONDS, f"{uid}/quota"
            )
            asked = _asked(retry_after, f"{uid}/quota")
            return Retry(
                now + (wait if asked is None else asked),
                "the model's provider refused; this uses up no retries",
            )
        case FailureClass.SUPERSEDED:
            return Retry(now, "the attempt was given up for another one")
        case FailureClass.REFUSED:
            return GiveUp("Refused", "a person refused what the agent asked for")
        case FailureClass.CANCELLED:
            return GiveUp("Cancelled", "the task was cancelled")


def go_on(now: float) -> Retry:
    """What follows an attempt whose worker had to leave, and whose work so far is kept."""
    return Retry(now, "its worker had to leave, its work so far is kept; this uses up no retries")


def _own(
    failures: Failures, failure: FailureClass, limits: RetryLimits, now: float, uid: str
) -> Retry | GiveUp:
    if failures.task > limits.limit:
        reason = "Timeout" if failure is FailureClass.TIMEOUT else "RetriesExhausted"
        attempts = "1 attempt" if failures.task == 1 else f"{failures.task} attempts"
        return GiveUp(reason, f"failed in {attempts}; retry.limit is {limits.limit}")
    wait = backoff_seconds(
        failures.task, limits.backoff_seconds, limits.max_backoff_seconds, f"{uid}/task"
    )
    return Retry(now + wait, f"retry {failures.task} of {limits.limit}")


def _infrastructure(
    failures: Failures,
    limits: RetryLimits,
    now: float,
    uid: str,
    *,
    first: float,
    asked: float | None,
) -> Retry | GiveUp:
    number = failures.infrastructure
    if number >= limits.infrastructure_limit:
        return GiveUp(
            "InfrastructureRetriesExhausted",
            f"{number} attempts in a row were lost to failures that were not the task's own",
        )
    base = min(limits.backoff_seconds, first)
    wait = backoff_seconds(number, base, limits.max_backoff_seconds, f"{uid}/infrastructure")
    wait = max(wait, asked or 0.0)
    return Retry(
        now + wait, f"infrastructure failure {number} of {limits.infrastructure_limit} in a row"
    )


def _asked(retry_after: float | None, salt: str) -> float | None:
    """The wait that a provider asked for, a little lengthened; None if it did not."""
    if retry_after is None or not math.isfinite(retry_after) or retry_after < 0:
        return None
    return min(retry_after * (1 + JITTER * fraction(salt)), MAX_WAIT_SECONDS)


def backoff_seconds(number: int, base: float, ceiling: float, salt: str) -> float:
    """The wait after the ``number``-th failure: base, twice that, ... up to the ceiling.

    Up to a fifth more is added that depends on ``salt`` and number alone; never below zero,
    never above the ceiling or a day.
    """
    doubled = base * 2.0 ** min(max(number - 1, 0), 40)
    jittered = doubled * (1 + JITTER * fraction(f"{salt}/{number}"))
    return max(0.0, min(jittered, ceiling, MAX_WAIT_SECONDS))


def fraction(salt: str) -> float:
    """A number in [0, 1) that depends on the salt alone."""
    return int.from_bytes(hashlib.sha256(salt.encode()).digest()[:6]) / 2**48
