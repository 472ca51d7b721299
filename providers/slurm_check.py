"""Whether a cluster can ever do what a manifest asks: looked at before anything is submitted.

Many sites accept a job that can never start (``EnforcePartLimits=NO``), and let it wait for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.base import ProviderError
from providers.slurm_query import Partition, Queued
from providers.slurm_submit import Wanted
from providers.slurm_time import seconds_of_limit


def chosen(want: Wanted, partitions: Mapping[str, Partition]) -> list[Partition]:
    """The partitions that a swarm's jobs may go to; one of them is enough to begin.

    Raises: ProviderError (``PartitionNotFound``, ``PartitionDown``, ``AccountNotFound``,
        ``QosNotFound``, ``TimeLimitTooLong``).
    """
    names = want.partitions or [name for name, one in partitions.items() if one.default]
    there = ", ".join(sorted(partitions)) or "none"
    if not names:
        raise ProviderError(
            "PartitionNotFound",
            f"the cluster has no default partition: give slurm.partition (there is: {there})",
        )
    missing = [name for name in names if name not in partitions]
    if missing:
        raise ProviderError(
            "PartitionNotFound",
            f"there is no partition {missing[0]!r} for this user (there is: {there}): "
            "give another slurm.partition",
        )
    found = [partitions[name] for name in names]
    trouble = [(one, _trouble(want, one)) for one in found]
    if all(error is not None for _, error in trouble):
        raise next(error for _, error in trouble if error is not None)
    return [one for one, error in trouble if error is None]


def _trouble(want: Wanted, one: Partition) -> ProviderError | None:
    """Why no job of a swarm can begin in a partition."""
    if one.state != "UP":
        return ProviderError(
            "PartitionDown",
            f"partition {one.name} is {one.state} and starts no jobs: workers are submitted once "
            "it is UP again (`scontrol show partition` tells), or give another slurm.partition",
        )
    account, qos = want.charged, want.quality
    if account and not _let_in(account, one.accounts, one.denied_accounts):
        return ProviderError(
            "AccountNotFound",
            f"account {account!r} may not use partition {one.name}{_only(one.accounts)}: "
            "give another slurm.account or slurm.partition",
        )
    if qos and not _let_in(qos, one.qos, one.denied_qos):
        return ProviderError(
            "QosNotFound",
            f"qos {qos!r} may not be used in partition {one.name}{_only(one.qos)}: "
            "give another slurm.qos or slurm.partition",
        )
    limit = seconds_of_limit(want.limit)
    if one.max_time is not None and want.limit and (limit is None or limit > one.max_time):
        return ProviderError(
            "TimeLimitTooLong",
            f"a time limit of {want.limit} is longer than partition {one.name} allows "
            f"({_minutes(one.max_time)} minutes): give a shorter slurm.timeLimit",
        )
    return None


def _let_in(name: str, allowed: frozenset[str] | None, denied: frozenset[str]) -> bool:
    return name not in denied and (allowed is None or name in allowed)


def _only(allowed: frozenset[str] | None) -> str:
    return f" (only {', '.join(sorted(allowed))})" if allowed else ""


def _minutes(seconds: int) -> str:
    return f"{seconds / 60:g}"


def too_small(
    partitions: Sequence[Partition], holds: int, wanted: int, like: Queued | None
) -> ProviderError:
    """More workers are wanted than the partitions can hold with nobody else there."""
    names = ",".join(one.name for one in partitions)
    cpus = like.cpus if like is not None else 1
    each = f"{cpus} processor{'' if cpus == 1 else 's'}"
    for name, count in (like.gres if like is not None else {}).items():
        each += f", {name}:{count}"
    return ProviderError(
        "PartitionTooSmall",
        f"partition {names} holds {holds} workers like these at the most ({each} each), "
        f"and {wanted} are wanted: set fewer replicas, ask for less in sbatchOptions, or "
        "give another slurm.partition",
    )
