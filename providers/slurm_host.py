"""What the Slurm provider needs of a login host: commands, workers' folders, mail.

``providers.remote.RemoteHost`` does this over SSH; the provider knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from providers.base import SwarmHandle
from providers.remote_tools import Tools


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended, or was ended."""

    code: int | None
    """Exit status, negative for a signal; None: it was ended at its deadline."""
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A worker's folder on the shared file system."""

    job: str
    prepared: bool = False
    """``worker.json`` is there."""
    claim: str | None = None
    """What its batch script wrote when it took up the folder; None: no job ever has."""
    failure: tuple[str, str] | None = None
    """Why its batch script could not become the worker: reason and message."""
    begun: bool = False
    """A worker has taken it up."""
    heartbeat: float | None = None
    """Modification time, seconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """A login host, once it is reached."""

    root: str
    """``workspaceRoot``, absolute."""
    worker: str
    """The worker's program there, absolute."""


class SlurmHost(Protocol):
    """One login host, user and ``workspaceRoot``."""

    name: str
    """As messages call it: ``ada@lab-login``."""
    login: Hashable
    """Equal for hosts of the same login host and user, whatever their ``workspaceRoot``."""

    async def place(self) -> Place:
        """Reach the host, and make it ready for workers.

        Raises: ProviderUnreachable.
        """
        ...

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        seconds: float,
        lock: str | None = None,
        effect: bool = False,
    ) -> Ran:
        """Run a command on the login host.

        Args:
            argv: its arguments.
            input: its standard input.
            seconds: its deadline.
            lock: kept until the command has ended, even if we are cut off before.
            effect: whether it changes anything, so that a lost answer leaves that in doubt.

        Raises: ProviderUnreachable; with ``effect`` OutcomeUnknown.
        """
        ...

    async def tools(self, parameters: Mapping[str, Any]) -> Tools:
        """Have the agents' tools there, installed once where ``tools.install`` asks for it.

        Raises: ProviderError (``ToolsFailed``), ProviderUnreachable, OutcomeUnknown.
        """
        ...

    def locked(self, swarm: SwarmHandle) -> AbstractAsyncContextManager[str]:
        """Keep all others from submitting for a swarm; waits for those that do.

        What it gives is the lock's name, for ``run``.

        Raises: ProviderUnreachable.
        """
        ...

    async def make_job(
        self, swarm: SwarmHandle, job: str, index: int, files: Mapping[str, str]
    ) -> str:
        """A worker's folder with these files (``worker.json``, ``env``); its path.

        What is there is kept once a job has claimed the folder.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def folders(self, swarm: SwarmHandle) -> list[Folder]:
        """All workers' folders of a swarm. Raises: ProviderUnreachable."""
        ...

    async def shut(self, swarm: SwarmHandle, jobs: Collection[str], ended: Collection[str]) -> None:
        """Have no job take up these workers' folders any more: its script finds them claimed.

        Args:
            swarm: whose.
            jobs: the workers; one that has begun goes on, one without a folder is fine.
            ended: those of them that have ended: secrets that they did not read are removed.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def remove(self, swarm: SwarmHandle, jobs: Collection[str] | None) -> None:
        """Remove workers' folders; None: all, and the swarm's own.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        ...

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """As ``Provider.archive``."""
        ...

    async def discard_store(self, name: str) -> None:
        """As ``Provider.discard_store``."""
        ...

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        secrets: Mapping[str, str],
    ) -> None:
        """As ``Provider.deliver``."""
        ...

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """As ``Provider.follow``."""
        ...

    def offset(self, job: str) -> int:
        """How far a followed job's outbox was taken, bytes."""
        ...

    def unfollow(self, job: str) -> None:
        """As ``Provider.unfollow``."""
        ...

    async def flush(self, job: str) -> None:
        """As ``Provider.flush``."""
        ...
