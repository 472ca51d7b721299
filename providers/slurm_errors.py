"""What Slurm's commands say when they fail, as reasons that a person can act on.

The words are those of ``slurm_errno.c`` and of the commands themselves; those of sbatch were seen
with 22.05.8, with and without slurmdbd.  What is not known here is shown as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from providers.base import (
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    SchedulerUnreachable,
)

_AWAY = re.compile(
    r"unable to contact slurm controller|slurm controller not responding"
    r"|controller.{0,40}(?:standby|not available|is shutting down)"
    r"|resolve_ctls_from_dns_srv|could not establish a configuration source"
    r"|connection (?:refused|timed out|failure)|connect failure"
    r"|unable to establish configuration source|slurm_load_\w+ error: unexpected message",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"socket timed out|zero bytes were transmitted|message (?:send|receive) failure"
    r"|transport endpoint|connection reset|broken pipe|communications? (?:connection|shutdown)"
    r"|unexpected message received",
    re.IGNORECASE,
)
"""Said when a request was sent and its answer did not come: a job may have been made."""
_CREDENTIAL = re.compile(
    r"authentication (?:error|credential|failure)|auth/munge|munge|invalid.{0,20}credential",
    re.IGNORECASE,
)
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"invalid partition",
        "PartitionNotFound",
        "give the partition of a cluster that `sinfo` shows, or leave it out for the default one",
    ),
    (
        r"invalid account|account/partition combination",
        "AccountNotFound",
        "give an account that `sacctmgr show associations user=$USER` shows for this partition",
    ),
    (
        r"invalid qos|qos specification",
        "QosNotFound",
        "give a qos that `sacctmgr show associations user=$USER format=qos` shows",
    ),
    (
        r"time limit (?:is )?invalid|requested time limit|time limit.{0,30}exceed",
        "TimeLimitTooLong",
        "give a timeLimit within the partition's (`scontrol show partition`)",
    ),
    (
        r"partition configuration not available now|partition.{0,20}(?:inactive|down|drain)",
        "PartitionDown",
        "the partition takes no jobs at present; workers are submitted once it does",
    ),
    (
        r"node configuration is not available|node count|more processors requested"
        r"|requested nodes? .{0,40}(?:busy|not available)|memory specification",
        "SubmissionRefused",
        "ask for less in sbatchOptions, or give another partition: no node there is like that",
    ),
    (
        r"submit limit|accounting/qos policy|policy",
        "SubmissionRefused",
        "a limit of your account or qos is reached; ask for fewer workers, or for a higher limit",
    ),
)
_NOISE = re.compile(r"^\w+: (?:(?:error|fatal|warning|lua|cli_filter): )?", re.IGNORECASE)
_PREFIX = re.compile(r"^Batch job submission failed: ", re.IGNORECASE)
_MAX_WORDS = 400


@dataclass(frozen=True, slots=True)
class Failed:
    """A command that did not end well."""

    command: str
    """Its name: ``sbatch``."""
    code: int | None
    """Its exit status; None where it was ended for taking too long."""
    err: str


def said(err: str) -> str:
    """What a command said, without its own name, on one line."""
    lines = [_NOISE.sub("", line.strip()) for line in err.splitlines() if line.strip()]
    text = "; ".join(dict.fromkeys(_PREFIX.sub("", line) for line in lines))
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= _MAX_WORDS else f"{text[: _MAX_WORDS - 3]}..."


def trouble(failed: Failed, where: str) -> ProviderError:
    """The error that a failed command is, whatever it was for.

    Args:
        failed: the command.
        where: the login host, for the message.
    """
    if failed.code in (126, 127):
        return ProviderUnreachable(
            "SlurmNotFound",
            f"{failed.command} cannot be run on {where}: give a loginHost that has Slurm's "
            "commands on its PATH in a session that is not interactive",
        )
    words = said(failed.err)
    effect = failed.command == "sbatch"
    if failed.code is None or (_DOUBT.search(words) and not _AWAY.search(words)):
        kind = OutcomeUnknown if effect else SchedulerUnreachable
        return kind(
            "SlurmUnreachable",
            f"{failed.command} on {where} got no answer from slurmctld: {words or 'it hung'}",
        )
    if _AWAY.search(words) or _CREDENTIAL.search(words):
        return SchedulerUnreachable(
            "SlurmUnreachable",
            f"slurmctld does not answer on {where}: {words}. Running jobs go on meanwhile; "
            "`scontrol ping` there tells when it is back",
        )
    if effect:
        return refusal(words)
    return SchedulerUnreachable("SlurmUnreachable", f"{failed.command} failed on {where}: {words}")


def refusal(words: str) -> ProviderError:
    """Why sbatch turned a job down."""
    for pattern, reason, what in _REFUSALS:
        if re.search(pattern, words, re.IGNORECASE):
            return ProviderError(reason, f"sbatch: {words}: {what}")
    return ProviderError("SubmissionRefused", f"sbatch: {words or 'it failed without a word'}")
