"""Pauses of credentials: who may begin no turns now, how that is kept, and what ends it.

What counts is in memory; each swarm's status holds its credential's pause for the next controller.
A refusal is written there before the attempt ends that met it, so that no crash forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from controller.domain.blockers import Cause
from controller.domain.credential import shown
from controller.domain.pauses import REASONS, Pause, describe, refused, served
from controller.domain.retry import FailureClass
from controller.reconcile.clock import seconds_of, stamp

if TYPE_CHECKING:
    from controller.reconcile.context import ConditionWriter
    from controller.reconcile.infos import SwarmInfo

REFUSALS = frozenset(REASONS)
"""Classes of failures that are a provider's refusal."""


class Pauses:
    """The pauses of all credentials that swarms of this home use."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}
        self._met: set[str] = set()

    def meet(self, credential: str, swarms: Iterable[SwarmInfo]) -> None:
        """A swarm uses this credential: take over what statuses say of it, once."""
        if credential in self._met:
            return
        self._met.add(credential)
        for swarm in swarms:
            stored = from_status(swarm.quota, swarm.key.namespace)
            if stored is None or swarm.quota.get("credential") != shown(credential):
                continue
            known = self._pauses.get(credential)
            if known is None or (known.until, known.message) < (stored.until, stored.message):
                self._pauses[credential] = stored

    def of(self, credential: str) -> Pause | None:
        """What is known of a credential; its time may be over."""
        return self._pauses.get(credential)

    def held(self, credential: str, now: float) -> Pause | None:
        """The pause that lets no turn begin now, if there is one."""
        pause = self._pauses.get(credential)
        return pause if pause is not None and now < pause.opens else None

    def refused(
        self,
        credential: str,
        failure: FailureClass,
        *,
        began: float,
        now: float,
        retry_after: float | None,
        message: str,
        origin: str,
    ) -> Pause:
        """A turn that began then was refused; the pause that follows (see ``domain.pauses``)."""
        pause = self._pauses[credential] = refused(
            self._pauses.get(credential),
            failure,
            began=began,
            now=now,
            retry_after=retry_after,
            salt=credential,
            message=message,
            origin=origin,
        )
        return pause

    def served(self, credential: str, *, began: float) -> bool:
        """A turn that began then was served; whether that changes anything."""
        known = self._pauses.get(credential)
        if known is None or served(known, began=began) is not None:
            return False
        del self._pauses[credential]
        return True

    def lift(self, credential: str) -> bool:
        """A person says that it is over; whether there was anything."""
        return self._pauses.pop(credential, None) is not None

    def holding(self, now: float) -> list[Pause]:
        """All pauses that hold turns now."""
        return [pause for pause in self._pauses.values() if now < pause.opens]


def paused(pauses: Pauses, info: SwarmInfo, now: float) -> Cause | None:
    """What a provider's refusal stops at a swarm now."""
    pause = pauses.held(info.credential, now)
    return Cause(pause.reason, describe(pause, info.key.namespace)) if pause else None


def quota_condition(
    writer: ConditionWriter, status: dict[str, Any], credential: str, pauses: Pauses, *,
    namespace: str, now: float,
) -> Pause | None:  # fmt: skip
    """Set ``QuotaAvailable`` and ``status.quota``; the pause that holds turns now, if any."""
    if not credential and "quota" in status:
        return None  # which one it is cannot be told now: what was written stays
    known, holds = pauses.of(credential), pauses.held(credential, now)
    if known is None:
        status.pop("quota", None)
        writer.set("QuotaAvailable", True, "NoQuotaError")
        return None
    status["quota"] = to_status(known, credential, namespace)
    if holds is not None:
        writer.set("QuotaAvailable", False, holds.reason, describe(holds, namespace))
    else:
        text = f"tried again, after {known.refusals} {known.reason} in a row"
        writer.set("QuotaAvailable", True, "TriedAgain", text)
    return holds


def to_status(pause: Pause, credential: str, namespace: str) -> dict[str, Any]:
    """``status.quota`` of a swarm."""
    block: dict[str, Any] = {
        "credential": shown(credential),
        "reason": pause.reason,
        "since": stamp(pause.since),
        "until": stamp(pause.until),
        "refusals": pause.refusals,
    }
    if pause.message and namespace == pause.origin:
        block["message"] = pause.message
    return block


def from_status(block: Mapping[str, Any], namespace: str) -> Pause | None:
    """The pause that a swarm's status tells of; None for none or for one not readable."""
    reasons = {reason: failure for failure, reason in REASONS.items()}
    failure = reasons.get(str(block.get("reason")))
    since, until = seconds_of(block.get("since")), seconds_of(block.get("until"))
    if failure is None or since is None or until is None:
        return None
    return Pause(
        failure=failure,
        since=since,
        until=until,
        refusals=max(1, int(block.get("refusals", 1))),
        message=str(block.get("message", "")),
        origin=namespace,
    )
