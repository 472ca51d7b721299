"""Slurm's commands, run on a login host: what they are asked, and what is made of their answers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable
from providers.slurm_errors import Failed, trouble
from providers.slurm_host import Ran, SlurmHost
from providers.slurm_query import (
    ClusterFacts,
    Node,
    Partition,
    Queued,
    accounting_command,
    config_command,
    nodes_command,
    parse_accounting,
    parse_config,
    parse_nodes,
    parse_partitions,
    parse_queue,
    partitions_command,
    queue_command,
)
from providers.slurm_state import Standing
from providers.slurm_submit import Submission, command, job_id, script

ASK_SECONDS = 60.0
"""For a command that only asks; Slurm's own give up on slurmctld after some seconds to a minute."""
SUBMIT_SECONDS = 120.0
"""For sbatch, which waits by itself where slurmctld is busy."""
_TIMED_OUT, _TIMED_OUT_HARD = 124, 137
"""What timeout(1) exits with."""
LEAST_SECONDS = 2.0
"""With less time to act no submission is begun."""
_ENDED = re.compile(r"invalid job id|already complet", re.IGNORECASE)
"""What scancel says of a job that ended meanwhile."""
CONFIG_AGE, PARTITIONS_AGE, NODES_AGE = 600.0, 20.0, 300.0
"""Seconds for which an answer is good."""


T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    """The last answer to a question."""

    value: T
    at: float


class SlurmClient:
    """Slurm's commands on one login host.

    Args:
        host: runs them.
        left: seconds for which we may still act. A submission has no longer than that: the cluster
            itself keeps no former controller out.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        host: SlurmHost,
        *,
        left: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._left = left
        self._clock = clock
        self._uid = ""
        self._facts: _Kept[ClusterFacts] | None = None
        self._partitions: _Kept[dict[str, Partition]] | None = None
        self._nodes: dict[str, _Kept[list[Node]]] = {}

    async def queue(self) -> list[Queued]:
        """Our jobs that slurmctld remembers. Raises: ProviderUnreachable."""
        return parse_queue(await self._ask(queue_command(await self._user())))

    async def facts(self) -> ClusterFacts:
        """The cluster's configuration. Raises: ProviderUnreachable."""
        if self._facts is None or self._clock() - self._facts.at > CONFIG_AGE:
            told = parse_config(await self._ask(config_command()))
            self._facts = _Kept(told, self._clock())
        return self._facts.value

    async def partitions(self) -> dict[str, Partition]:
        """The cluster's partitions. Raises: ProviderUnreachable."""
        kept = self._partitions
        if kept is None or self._clock() - kept.at > PARTITIONS_AGE:
            told = parse_partitions(await self._ask(partitions_command()))
            kept = self._partitions = _Kept(told, self._clock())
        return kept.value

    def forget_partitions(self) -> None:
        """A job was refused: what is known of them may be old."""
        self._partitions = None

    async def nodes(self, partitions: Sequence[Partition]) -> list[Node]:
        """The nodes of partitions. Raises: ProviderUnreachable."""
        names = ",".join(one.name for one in partitions)
        kept = self._nodes.get(names)
        if kept is None or self._clock() - kept.at > NODES_AGE:
            told = parse_nodes(await self._ask(nodes_command(names)))
            kept = self._nodes[names] = _Kept(told, self._clock())
        return kept.value

    async def ended(self, names: Mapping[int, str]) -> dict[int, Standing]:
        """How jobs ended that the queue does not show any more, where accounting tells.

        Args:
            names: the name that each id must have.

        Raises: ProviderUnreachable (of the login host; accounting that is away tells nothing).
        """
        if not names or not (await self.facts()).accounting:
            return {}
        ran = await self._host.run(accounting_command(names), seconds=ASK_SECONDS)
        return parse_accounting(ran.out, names) if ran.code == 0 else {}

    async def submit(self, one: Submission, lock: str, default_limit: int | None) -> int:
        """Submit a worker; the id that its job got.

        Raises: ProviderError, ProviderUnreachable (nothing was submitted), OutcomeUnknown.
        """
        sbatch = command(one, (await self.facts()).max_array, default_limit)
        # By itself, too: it holds the lock on if the connection, and with it its deadline, is gone.
        argv = ["timeout", "-k", "5", f"{SUBMIT_SECONDS:.0f}", *sbatch]
        seconds = min(SUBMIT_SECONDS, self._left())
        if seconds < LEAST_SECONDS:
            raise ProviderUnreachable(
                "LeaseRunsOut", "this controller may not act long enough to submit a job"
            )
        ran = await self._host.run(argv, input=script(one), seconds=seconds, lock=lock, effect=True)
        if ran.code in (_TIMED_OUT, _TIMED_OUT_HARD):
            ran = Ran(None, ran.out, ran.err)
        if ran.code != 0:
            raise self._trouble("sbatch", ran)
        id = job_id(ran.out)
        if id is None:
            raise OutcomeUnknown(
                "SubmissionUnclear", f"sbatch on {self._host.name} ended well without a job's id"
            )
        return id

    async def cancel(self, one: Queued, *, force: bool) -> None:
        """End a job: SIGTERM and after KillWait SIGKILL, or with ``force`` SIGKILL at once.

        scancel itself looks at the name before it acts, so that an id that was given out again
        ends nobody else's job.  One that has ended is fine.

        Raises: ProviderUnreachable, OutcomeUnknown.
        """
        which = [f"--user={await self._user()}", f"--name={one.job}", str(one.id)]
        kinds = [["--signal=KILL", "--full"], []] if force else [[]]
        for options in kinds:
            argv = ["env", "scancel", *options, *which]
            ran = await self._host.run(argv, seconds=ASK_SECONDS, effect=True)
            if ran.code != 0 and not _ENDED.search(ran.err):
                raise self._trouble("scancel", ran)

    async def _user(self) -> str:
        """The user id there: names may be unknown to Slurm, or in the environment by mistake.

        Raises: ProviderUnreachable.
        """
        if not self._uid:
            ran = await self._host.run(["id", "-u"], seconds=ASK_SECONDS)
            uid = ran.out.strip()
            if not (uid.isascii() and uid.isdigit()):
                raise ProviderUnreachable(
                    "LoginFailed", f"`id -u` on {self._host.name} printed no user id: {uid[:80]!r}"
                )
            self._uid = uid
        return self._uid

    async def _ask(self, argv: Sequence[str]) -> str:
        ran = await self._host.run(argv, seconds=ASK_SECONDS)
        if ran.code != 0:
            name = next(one for one in argv if one in ("squeue", "scontrol", "sinfo"))
            error = self._trouble(name, ran)
            if not isinstance(error, ProviderUnreachable):
                error = ProviderUnreachable(error.reason, str(error))
            raise error
        return ran.out

    def _trouble(self, command: str, ran: Ran) -> ProviderError:
        return trouble(Failed(command, ran.code, ran.err), self._host.name)
