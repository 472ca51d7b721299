"""The port to compute: where workers run, and how mail gets to and from them.

A provider knows jobs (one job is one incarnation of one worker), not tasks.  Everything it
starts can be found again from the swarm's uid and the job's name alone; every method may be
called again after any crash and then does only what is still missing.  Scaling and failure
policy stay outside, in ``controller/reconcile``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from worker.failures import OutcomeUnknown, ProviderError, ProviderUnreachable
from worker.follower import NotTaken, RecordBatch, Sink

__all__ = [
    "Ended",
    "InProgress",
    "JobState",
    "JobStatus",
    "LaunchRequest",
    "Machine",
    "NotTaken",
    "OutcomeUnknown",
    "Provider",
    "ProviderError",
    "ProviderUnreachable",
    "RecordBatch",
    "RemoteStores",
    "SchedulerUnreachable",
    "Sink",
    "SwarmHandle",
]


class SchedulerUnreachable(ProviderUnreachable):
    """What starts and ends workers does not answer; mail still goes to them and comes back."""


class InProgress(ProviderError):
    """What was asked for is under way and takes longer than a call may; nothing is wrong.

    Ask again: the same call goes on where the last one left it.  ``reason`` says what is going on
    (``InstancesStarting``, ``InstancesEnding``), the message how far it is.
    """


@dataclass(frozen=True, slots=True)
class SwarmHandle:
    """Identity of one swarm with its provider."""

    namespace: str
    name: str
    uid: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The effective provider block, e.g. ``{"workspaceRoot": "/scratch"}``."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What lets us in where the workers are, by name: ``sshKey``, a private key's text."""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One worker to start. Launching the same ``job`` twice starts one worker."""

    swarm: SwarmHandle
    job: str
    index: int
    config: Mapping[str, Any]
    """What the worker reads as ``worker.json`` (see worker/config.py); no secrets."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment of the agent, secrets included; travels in a file of mode 0600."""


class JobState(enum.StrEnum):
    """What the provider itself says of a job."""

    PENDING = "Pending"  # accepted, not running yet (queued, booting)
    RUNNING = "Running"
    ENDED = "Ended"  # was there, is not running any more
    ABSENT = "Absent"  # the provider has never heard of it, or forgot it


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One observed job."""

    job: str
    state: JobState
    reason: str = ""
    """The provider's own word: a Slurm reason, an exit status (``exit 1``, ``signal 9``)."""
    heartbeat: float | None = None
    """Modification time of the heartbeat file (seconds, the worker's clock): compare for
    change, never with a clock of ours."""
    handle: str = ""
    """What an administrator would look for: ``pid 1234``, a Slurm job id, an instance id."""
    frozen: bool = False
    """It stands still by the provider's will (a suspended job): its heartbeat says nothing."""
    message: str = ""
    """Why it ended before its worker began, in a sentence that says what to do."""
    anchored: bool = False
    """Its machine is there for others too: it stays though this job leaves it."""


Ended = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that is paid for as long as it is there."""

    id: str
    """Its provider's own name for it, never given out twice: ``i-0123456789abcdef0``."""
    kind: str
    """What its price depends on: an instance type, with ``spot:`` before it for a spot one."""
    since: float
    """When it began to cost; seconds since the epoch."""
    until: float | None = None
    """When it ceased to; None: it still does."""


class RemoteStores(Protocol):
    """Shared git stores at a place whose workers do not reach the users' repositories.

    Workers there fetch from their project's store and push to it, and to nothing else.  What is
    missing in it is sent there before a task is delivered; what was pushed is fetched from it
    before a task is settled.  A store is named ``<project uid>.git``.  Every call may be repeated.
    """

    def place(self, swarm: SwarmHandle) -> str:
        """Where a swarm's stores are, in words, the same for all swarms that share them:
        ``ada@lab-login:/shared/codeswarm``.  Asks nobody, and needs none of the handle's secrets.

        Raises: ProviderError, if the handle does not say.
        """
        ...

    async def locate(self, swarm: SwarmHandle, store: str) -> str:
        """Absolute path of a store where the workers are; it need not be there yet.

        Raises: ProviderError, ProviderUnreachable.
        """
        ...

    async def lacking(
        self, swarm: SwarmHandle, store: str, commits: Collection[str]
    ) -> frozenset[str]:
        """Those of these commits that are not there with all that they reach.

        Raises: ProviderError, ProviderUnreachable.
        """
        ...

    async def tips(self, swarm: SwarmHandle, store: str) -> frozenset[str]:
        """Commits that are there with all that they reach, and that refs hold: what a bundle may
        leave out.  Some thousand at most; none where there is no store yet.

        Raises: ProviderError, ProviderUnreachable.
        """
        ...

    async def clone(
        self, swarm: SwarmHandle, store: str, url: str, branch: str, commit: str
    ) -> None:
        """Have the workers' side fetch a commit of a branch from a URL without any credential.

        ``url`` is ``http://`` or ``https://``; may take as long as the repository is large.

        Raises: ProviderError (``CloneFailed``: it cannot reach the URL, or is not let in),
            ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def put(
        self, swarm: SwarmHandle, store: str, bundle: Path, commits: Collection[str]
    ) -> None:
        """Take in these commits from a bundle file (git-bundle) of this machine.

        The deadline grows with the file's size.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def get(
        self,
        swarm: SwarmHandle,
        store: str,
        ref: str,
        known: Collection[str],
        bundle: Path,
        *,
        limit: int,
    ) -> None:
        """Write a bundle file on this machine that holds a ref, less what ``known`` reach.

        The ref's own commit is always in it; commits that are not known there are ignored.
        ``limit`` is the file's greatest size in bytes: what comes from there is not trusted.

        Raises: ProviderError (``RefNotFound``, ``BundleTooLarge``), ProviderUnreachable.
        """
        ...

    async def discard(self, swarm: SwarmHandle, store: str) -> None:
        """Remove a store where this swarm's workers are; one that is not there is fine.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...


class Provider(Protocol):
    """One kind of compute."""

    name: str
    """``local``, ``slurm``, ``aws``: the key under ``spec.provider``."""
    stores: RemoteStores | None
    """Where workers do not reach repositories themselves; None: they do."""
    rents: bool
    """Whether it has machines of its own, which cost as long as they are there."""

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin following; ``sink`` is called in the event loop with what arrives.

        ``ended`` may be called with a job that seems to have ended: a hint to observe.
        """
        ...

    async def close(self) -> None:
        """Stop following; workers run on."""
        ...

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Start workers that do not run yet; adopt those that do.

        Raises: ProviderError, OutcomeUnknown, ProviderUnreachable; InProgress, while what they
            will run on is being made ready.
        """
        ...

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every job of the swarm that left a trace, whoever started it.

        Raises: ProviderUnreachable.
        """
        ...

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """The swarm's machines, those that ended lately too; none, where it ``rents`` none.

        Raises: ProviderUnreachable.
        """
        ...

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        ...

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        ...

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning."""
        ...

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Append one record to a job's inbox; safe to repeat (the worker knows its ids).

        ``secrets`` go beside it in a file of mode 0600 that the worker removes once read.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """End jobs and all that descends from them: SIGTERM, or with ``force`` SIGKILL.

        Returns when the signal is sent; ``observe`` tells when they are gone.
        """
        ...

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack workspaces and mailboxes of the swarm's jobs as one ``tar.gz``; its path.

        Raises: ProviderError (``NothingToArchive``: there is nothing, so trying again is in vain),
            ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """Remove what ended jobs left behind; None: everything of the swarm, its machines too.

        Args:
            swarm: whose.
            jobs: names; None: all, and those that still run go with their machines.
            keep: a volume of its own stays, whatever the parameters say.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown; InProgress, while machines end.
        """
        ...

    async def discard_store(self, name: str) -> None:
        """Remove the shared git store of a project that is gone, where this kind keeps any.

        Kinds with ``stores`` of their own do nothing here: see ``RemoteStores.discard``.

        ``name`` is ``<project uid>.git``; one that is not there is fine.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...
