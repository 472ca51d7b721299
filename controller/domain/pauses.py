"""How long nobody asks a model's provider that has refused: the arithmetic of pauses.

A pause is about one credential.  It lasts until the time that the provider named, else for a
backoff that grows with every further refusal.  What was under way when it began does not count
again: many workers that are refused together are one refusal.  A turn that the provider served
after the last refusal ends it all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from controller.domain.retry import (
    MAX_WAIT_SECONDS,
    FailureClass,
    backoff_seconds,
    fraction,
)

MAX_BACKOFF_SECONDS = 900.0
"""Longest pause that no provider has asked for."""
FIRST_BACKOFF_SECONDS = MappingProxyType({FailureClass.QUOTA: 15.0, FailureClass.CREDENTIAL: 30.0})
"""By class: the pause after the first refusal, if the provider named none."""
FIRST_SLACK_SECONDS, MAX_SLACK_SECONDS, SLACK = 0.5, 30.0, 0.1
"""So much is added to a time that the provider named: a tenth, within these bounds.  With it, what
is refused a moment later for the same time changes nothing."""
RENEWAL_SECONDS = 1.0
"""After a pause for a refused credential: until then old workers are told to leave."""
REASONS = MappingProxyType(
    {FailureClass.QUOTA: "QuotaExhausted", FailureClass.CREDENTIAL: "CredentialRefused"}
)
MAX_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Pause:
    """What a provider's refusals come to. Times in seconds since the epoch."""

    failure: FailureClass
    """``QUOTA`` or ``CREDENTIAL``."""
    since: float
    """When the last round of refusals began."""
    until: float
    refusals: int = 1
    """Rounds in a row; one more each time that it is refused again after a pause."""
    message: str = ""
    """The provider's words."""
    origin: str = ""
    """Namespace of the swarm that was refused: others are not shown its message."""

    @property
    def reason(self) -> str:
        """A condition's reason."""
        return REASONS[self.failure]

    @property
    def renews(self) -> bool:
        """Whether workers are replaced after it, so that they read the credential afresh."""
        return self.failure is FailureClass.CREDENTIAL

    @property
    def opens(self) -> float:
        """When turns may start again."""
        return self.until + RENEWAL_SECONDS if self.renews else self.until


def refused(
    pause: Pause | None,
    failure: FailureClass,
    *,
    began: float,
    now: float,
    retry_after: float | None = None,
    salt: str = "",
    message: str = "",
    origin: str = "",
) -> Pause:
    """The pause after one more turn was refused.

    Args:
        pause: what is known of this credential so far.
        failure: ``QUOTA`` or ``CREDENTIAL``.
        began: when that turn was given to its worker.
        now: seconds since the epoch.
        retry_after: seconds that the provider asked to wait, if it did.
        salt: the credential, for a jitter that is the same whenever this is computed again.
    """
    named = retry_after is not None and math.isfinite(retry_after) and retry_after >= 0
    asked = min(retry_after, MAX_WAIT_SECONDS) if named and retry_after is not None else 0.0
    told = Pause(
        failure=failure,
        since=now,
        until=now,
        message=" ".join(message.split())[:MAX_MESSAGE],
        origin=origin,
    )
    if pause is not None and began < pause.until and now < pause.until:
        if now + asked <= pause.until:
            return pause
        later = min(now + asked + _slack(asked, salt), now + MAX_WAIT_SECONDS)
        return replace(told, since=pause.since, until=later, refusals=pause.refusals)
    number = pause.refusals + (began >= pause.until) if pause else 1
    if named:
        # Whoever names the same short time over and over is asked less and less often too.
        wait = max(asked + _slack(asked, salt), backoff_seconds(number, 0.25, 30.0, salt))
    else:
        first = FIRST_BACKOFF_SECONDS[failure]
        wait = backoff_seconds(number, first, MAX_BACKOFF_SECONDS, salt)
    return replace(told, until=now + min(wait, MAX_WAIT_SECONDS), refusals=number)


def served(pause: Pause | None, *, began: float) -> Pause | None:
    """What is left of a pause after the provider served a turn that began then."""
    return None if pause is None or began >= pause.since else pause


def describe(pause: Pause, namespace: str = "") -> str:
    """The pause as a sentence; it names a time, not what is left of it, so it does not tick.

    Args:
        namespace: of whom it is shown to; the provider's words stay in their own.
    """
    moment = datetime.fromtimestamp(math.ceil(pause.opens), UTC)
    at = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
    if pause.renews:
        text = (
            "the model's provider refuses the credential; correct it (a change of the swarm or of "
            f"its Secret takes effect at once), else it is tried again at {at} with new workers"
        )
    else:
        text = f"the model's provider takes no more requests on this credential before {at}"
    if pause.refusals > 1:
        text += f" ({pause.refusals} refusals in a row)"
    return f"{text}: {pause.message}" if pause.message and namespace == pause.origin else text


def _slack(asked: float, salt: str) -> float:
    most = min(max(asked * SLACK, FIRST_SLACK_SECONDS), MAX_SLACK_SECONDS)
    return most * (1 + fraction(f"{salt}/named")) / 2
