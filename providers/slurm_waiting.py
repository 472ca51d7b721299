"""Reasons to wait in the queue that do not pass by themselves, and what to do about each.

Slurm's words are those of ``squeue(1)``, "JOB REASON CODES".  Many sites take in jobs that can
never start (``EnforcePartLimits=NO``).
"""

from __future__ import annotations

import re

_HINTS: tuple[tuple[str, str], ...] = (
    (
        r"PartitionTimeLimit|\w*MaxWallDurationPerJob\w*",
        "longer than jobs may run there: give a shorter slurm.timeLimit",
    ),
    (r"PartitionNodeLimit", "more nodes than the partition gives a job: ask for less"),
    (
        r"PartitionDown|PartitionInactive",
        "the partition starts no jobs: wait until it is up, or give another slurm.partition",
    ),
    (r"BadConstraints", "no node is like that: ask for something else in slurm.sbatchOptions"),
    (
        r"JobHeldUser|JobHeldAdmin|RequeueHold|SpecialExit|ResvDelHold|JobHoldMaxRequeue",
        "it is held: `scontrol release` it there, or ask its administrators",
    ),
    (
        r"launch failed requeued held",
        "a node could not begin it: tell its administrators, then `scontrol release` it there",
    ),
    (r"DependencyNeverSatisfied", "leave --dependency out of slurm.sbatchOptions"),
    (r"ReservationDeleted|InvalidReservation", "its reservation is gone: give another one"),
    (r"InvalidAccount|AccountNotAllowed", "give another slurm.account"),
    (r"InvalidQOS|QOSNotAllowed", "give another slurm.qos"),
    (
        r"(?:Assoc|QOS)(?:Grp|Max)\w*(?:Minutes|Mins|RunMin)\w*",
        "what may be used up is used up: ask for more, or give another slurm.account",
    ),
    (
        r"(?:Assoc|QOS)Max\w*Per(?:Job|Node)\w*",
        "more than one job may have: ask for less in slurm.sbatchOptions",
    ),
    (r"QOSMin\w*|QOSUsageThreshold", "the qos does not take such jobs: give another slurm.qos"),
    (
        r"ReqNodeNotAvail\b.*|Nodes required for job are DOWN.*",
        "the nodes are down, drained or reserved: `sinfo -R` there says why",
    ),
)


def hint(reason: str) -> str:
    """What to do about a reason to wait; empty where the job's turn will come by itself."""
    return next((what for words, what in _HINTS if re.fullmatch(words, reason, re.DOTALL)), "")
