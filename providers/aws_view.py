"""What a worker's folder and EC2 together say of it: one pure judgement per worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from providers.aws_values import Instance
from providers.base import JobState, JobStatus
from providers.remote_values import JobFacts
from worker.attendant.files import SHUT

SPOT_REASONS = frozenset({"Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"})
_MAX_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has taken up a worker's folder."""

    node: str
    """Instance id."""
    coordinator: str
    """The instance that exported the volume then."""


def claim_of(text: str | None) -> Claim | None:
    """Read ``NODE TOKEN COORDINATOR``; None: nobody has it, or nobody may (``SHUT``)."""
    words = (text or "").split()
    return Claim(words[0], words[2]) if len(words) == 3 else None


def nodes_of(folders: Collection[JobFacts]) -> set[str]:
    """The instances that have taken up any of these folders."""
    claims = (claim_of(folder.claim) for folder in folders)
    return {claim.node for claim in claims if claim is not None}


def judge(
    folder: JobFacts, instances: Mapping[str, Instance], coordinator: str
) -> JobStatus | None:
    """Judge one worker; None: nothing has come of it yet, and it may be launched.

    Args:
        folder: its folder.
        instances: by id, all that EC2 shows and those that were launched just now.
        coordinator: id of the instance that has the volume now.
    """
    claim = claim_of(folder.claim)
    if claim is None:
        if folder.claim is None or folder.claim == "":
            return None
        reason = "Cancelled" if folder.claim == SHUT else "gone"
        return JobStatus(folder.job, JobState.ENDED, reason)

    def ended(reason: str, message: str = "") -> JobStatus:
        return JobStatus(
            folder.job, JobState.ENDED, reason, folder.heartbeat, claim.node,
            message=message[:_MAX_MESSAGE],
        )  # fmt: skip

    if folder.failure is not None and not folder.begun:
        return ended(*folder.failure)
    if folder.ended:
        return ended(folder.ended)
    lost = why_lost(claim, instances.get(claim.node), coordinator)
    if lost:
        return ended(lost)
    state = JobState.RUNNING if folder.begun else JobState.PENDING
    reason = "" if folder.begun else "Starting"
    anchored = claim.node == coordinator
    return JobStatus(folder.job, state, reason, folder.heartbeat, claim.node, anchored=anchored)


def why_lost(claim: Claim, instance: Instance | None, coordinator: str) -> str:
    """Why a worker with this claim cannot be alive; empty: it can."""
    if instance is None:
        return "InstanceGone"
    if instance.state in ("stopped", "terminated"):
        if instance.state_reason in SPOT_REASONS:
            return "SpotInterruption"
        return "InstanceStopped" if instance.state == "stopped" else "InstanceTerminated"
    return "" if claim.coordinator == coordinator else "CoordinatorLost"
