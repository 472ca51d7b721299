"""What the states of Slurm's jobs come to: each name and short form, and each reason to wait.

States are those of ``squeue(1)``, "JOB STATE CODES": a base state, and flags that may stand
beside it or, in squeue's one-word forms, in its place.  Versions differ: ``squeue --json`` of
22.05 gives one text, newer ones a list.  An unknown word is taken for a job that lives: a job is
never given up because of a word that somebody added.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from providers.base import JobState

_SHORT = {
    "BF": "BOOT_FAIL", "CA": "CANCELLED", "CD": "COMPLETED", "CF": "CONFIGURING",
    "CG": "COMPLETING", "DL": "DEADLINE", "EX": "EXPEDITING", "F": "FAILED",
    "LF": "LAUNCH_FAILED", "NF": "NODE_FAIL", "OOM": "OUT_OF_MEMORY", "PD": "PENDING",
    "PO": "POWER_UP_NODE", "PR": "PREEMPTED", "R": "RUNNING", "RD": "RESV_DEL_HOLD",
    "RF": "REQUEUE_FED", "RH": "REQUEUE_HOLD", "RQ": "REQUEUED", "RS": "RESIZING",
    "RV": "REVOKED", "S": "SUSPENDED", "SE": "SPECIAL_EXIT", "SI": "SIGNALING",
    "SO": "STAGE_OUT", "ST": "STOPPED", "TO": "TIMEOUT", "UN": "UPDATE_DB",
}  # fmt: skip

_ENDED = {
    "COMPLETED": "Completed",
    "CANCELLED": "Cancelled",
    "FAILED": "Failed",
    "TIMEOUT": "TimeLimit",
    "NODE_FAIL": "NodeFail",
    "PREEMPTED": "Preempted",
    "BOOT_FAIL": "BootFail",
    "DEADLINE": "Deadline",
    "OUT_OF_MEMORY": "OutOfMemory",
    "REVOKED": "Revoked",
    "LAUNCH_FAILED": "LaunchFailed",
    "RECONFIG_FAIL": "ReconfigFail",
}
"""Final states, and the word that a worker's status shows."""
_WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"}
    | {"RESV_DEL_HOLD"}
)
_HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_FROZEN = frozenset({"SUSPENDED", "STOPPED"})
_BOOTING = frozenset({"CONFIGURING", "POWER_UP_NODE"})
_LEAVING = frozenset({"COMPLETING", "STAGE_OUT"})

_NO_REASON = frozenset({"", "None", "null", "N/A"})
_FINAL_REASONS = {
    "TimeLimit": "TimeLimit",
    "NodeDown": "NodeFail",
    "NodeFail": "NodeFail",
    "OutOfMemory": "OutOfMemory",
    "NonZeroExitCode": "Failed",
    "RaisedSignal": "Failed",
    "JobLaunchFailure": "Failed",  # what 22.05 says of a batch script that a signal ended
    "Preempted": "Preempted",
    "Deadline": "Deadline",
}
"""Reasons that a job shows while it is still completing, which is before its final state."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one of Slurm's jobs stands."""

    state: JobState
    reason: str = ""
    """Why it waits (Slurm's own word) or how it ended; empty for one that simply runs."""
    frozen: bool = False
    """Suspended: it holds its node and does nothing."""
    completing: bool = False
    """Ended as far as work goes; something of it may still run on its nodes."""


def words(states: str | Iterable[str]) -> frozenset[str]:
    """A job's state as full names: of a word, a short form, a list, or words with ``+`` between."""
    given = [states] if isinstance(states, str) else [s for s in states if isinstance(s, str)]
    parts = (part for one in given for part in one.upper().replace(",", "+").split("+"))
    # sacct says "CANCELLED by 1000"
    names = (part.split()[0] for part in parts if part.split())
    return frozenset(_SHORT.get(name, name) for name in names)


def standing(states: str | Iterable[str], reason: str = "") -> Standing:
    """Where a job stands.

    Args:
        states: its state in any of Slurm's forms.
        reason: Slurm's reason, as ``squeue -o %r`` gives it.
    """
    names, why = words(states), _tidy(reason)
    leaving = bool(names & _LEAVING)
    if names & _WAITING:  # leaving too: requeued while its last run still ends
        held = next((name for name in _HELD if name in names), "Queued")
        return Standing(JobState.PENDING, why or _camel(held), completing=leaving)
    ended = next((name for name in _ENDED if name in names), None)
    if ended is not None or leaving:
        return Standing(JobState.ENDED, _ended(ended, why), completing=leaving)
    if names & _FROZEN:
        return Standing(JobState.RUNNING, "Suspended", frozen=True)
    if names & _BOOTING:
        return Standing(JobState.PENDING, why or "NodesBoot")
    return Standing(JobState.RUNNING)


def _ended(state: str | None, why: str) -> str:
    if state is None:  # completing: its reason is often the final one already
        return _FINAL_REASONS.get(why) or ("Failed" if why else "Completing")
    return "OutOfMemory" if state == "FAILED" and why == "OutOfMemory" else _ENDED[state]


def _tidy(reason: str) -> str:
    """Slurm's reason as one short word where it is one; else its beginning."""
    text = " ".join(reason.split())
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    if text in _NO_REASON:
        return ""
    return text if len(text) <= 200 else f"{text[:197]}..."


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
