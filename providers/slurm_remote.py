"""Login hosts of Slurm clusters, over SSH: one connection a host and user, one attendant a root."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.base import (
    Ended,
    ProviderError,
    ProviderUnreachable,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.layout import swarm_parts
from providers.remote import RemoteHost
from providers.remote_setup import Place as RemotePlace
from providers.remote_stores import StoresOverSsh
from providers.remote_tools import Tools, ToolsThere
from providers.slurm_host import Folder, Place, Ran, SlurmHost

if TYPE_CHECKING:
    from providers.ssh import SshHosts
    from providers.ssh_target import Means, SshTarget

LOCK_SECONDS = 90.0
"""How long a submission that is under way is waited for."""
STORE_SECONDS = 600.0
LOGINS_A_CONNECTION = 4
"""How many roots (or ``setupCommands``) share one: OpenSSH gives ten sessions, we use eight."""
_NOT_BEGUN = frozenset({"LockLost", "LockHeld"})


class RemoteLogin:
    """One login host, user and root (``providers.slurm_host.SlurmHost``).

    Args:
        remote: what works there for us.
        target: how it is logged in to.
    """

    def __init__(self, remote: RemoteHost, target: SshTarget) -> None:
        self.remote = remote
        self.target = target
        self.name = remote.place.name
        self.login: Hashable = target
        self._tools = ToolsThere(remote)

    async def close(self) -> None:
        """End the connection; what was begun there goes on."""
        await self._tools.close()
        await self.remote.close()

    async def place(self) -> Place:
        """Reach the host. Raises: ProviderUnreachable, ProviderError."""
        facts = await self.remote.known()
        return Place(facts.root, facts.worker)

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        seconds: float,
        lock: str | None = None,
        effect: bool = False,
    ) -> Ran:
        """Run a command there. Raises: ProviderUnreachable, OutcomeUnknown."""
        try:
            ran = await self.remote.run(
                argv, seconds=seconds, effect=effect, input=input or None, lock=lock
            )
        except ProviderError as error:
            raise _not_begun(error) from error
        if ran.cut and not effect:  # half an answer must not pass for the whole
            raise ProviderUnreachable(
                "AnswerTooLong", f"{argv[0]} on {self.name} says more than can be taken in"
            )
        return Ran(None if ran.timed_out else ran.code, ran.out, ran.err)

    async def tools(self, parameters: Mapping[str, Any]) -> Tools:
        """The agents' tools. Raises: ProviderError (``ToolsInstalling``, ``ToolsFailed``), ..."""
        return await self._tools.have(parameters)

    @asynccontextmanager
    async def locked(self, swarm: SwarmHandle) -> AsyncIterator[str]:
        """Hold the swarm's lock. Raises: ProviderUnreachable."""
        try:
            async with self.remote.lock(
                *swarm_parts(swarm), "submit.lock", seconds=LOCK_SECONDS
            ) as name:
                yield name
        except ProviderError as error:
            raise _not_begun(error) from error

    async def make_job(
        self, swarm: SwarmHandle, job: str, index: int, files: Mapping[str, str]
    ) -> str:
        """A worker's folder; its path. Raises: ProviderError, ProviderUnreachable."""
        root = (await self.remote.known()).root
        await self.remote.make_job(swarm, job, files, index=index)
        return "/".join((root, *swarm_parts(swarm), job))

    async def folders(self, swarm: SwarmHandle) -> list[Folder]:
        """All workers' folders. Raises: ProviderUnreachable, ProviderError."""
        return [
            Folder(one.job, one.prepared, one.claim, one.failure, one.begun, one.heartbeat)
            for one in await self.remote.jobs(swarm)
        ]

    async def shut(self, swarm: SwarmHandle, jobs: Collection[str], ended: Collection[str]) -> None:
        """Have no job take up these folders. Raises: as ``remove``."""
        await self.remote.shut(swarm, jobs, ended)

    async def remove(self, swarm: SwarmHandle, jobs: Collection[str] | None) -> None:
        """Remove workers' folders. Raises: ProviderError, ProviderUnreachable, OutcomeUnknown."""
        await self.remote.remove(swarm, jobs)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all workers' folders into a file of this machine. Raises: as the port says."""
        return await self.remote.archive(swarm, destination)

    async def discard_store(self, name: str) -> None:
        """Remove a project's store. Raises: ProviderError, ProviderUnreachable, OutcomeUnknown."""
        await self.remote.call("discard_store", {"store": name}, seconds=STORE_SECONDS)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        secrets: Mapping[str, str],
    ) -> None:
        """As ``Provider.deliver``."""
        await self.remote.deliver(swarm, job, index, record, secrets=secrets)

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """As ``Provider.follow``."""
        self.remote.follow(swarm, job, index, offset)

    def offset(self, job: str) -> int:
        """How far a followed job's outbox was taken, bytes."""
        return self.remote.offset(job)

    def unfollow(self, job: str) -> None:
        """As ``Provider.unfollow``."""
        self.remote.unfollow(job)

    async def flush(self, job: str) -> None:
        """As ``Provider.flush``."""
        await self.remote.flush(job)


def _not_begun(error: ProviderError) -> ProviderError:
    """A lock that was lost or not got: nothing was done, and it may be tried again."""
    if error.reason in _NOT_BEGUN:
        return ProviderUnreachable(error.reason, str(error))
    return error


def _target(swarm: SwarmHandle) -> SshTarget:
    from providers.ssh_target import SshTarget

    return SshTarget.from_parameters(swarm.parameters, swarm.secrets)


def _place(target: SshTarget, swarm: SwarmHandle) -> RemotePlace:
    return RemotePlace(
        str(target),
        str(swarm.parameters["workspaceRoot"]),
        swarm.parameters.get("pythonPath"),
        tuple(swarm.parameters.get("setupCommands") or ()),
    )


def _place_of(swarm: SwarmHandle) -> RemotePlace:
    """Where a swarm's workers are. Raises: ProviderError, if that is not said."""
    if not {"loginHost", "workspaceRoot"} <= set(swarm.parameters):
        raise ProviderError("NoPlace", f"swarm {swarm.name} names no login host and workspace")
    return _place(_target(swarm), swarm)


class RemoteLogins:
    """The login hosts of a controller (``providers.slurm.SlurmHosts``).

    Args:
        means: what of this machine's user may be used to get in; a function, so that nobody looks
            for it before the first swarm needs it.
    """

    def __init__(self, means: Callable[[], Means]) -> None:
        self._means = means
        self._ssh: SshHosts | None = None
        self._logins: dict[Hashable, RemoteLogin] = {}
        self._sink: Sink | None = None
        self.stores: RemoteStores | None = StoresOverSsh(
            lambda swarm: self.host(swarm).remote, _place_of
        )

    def start(self, sink: Sink, ended: Ended | None) -> None:
        """Where records go from now on."""
        self._sink = sink

    def host(self, swarm: SwarmHandle) -> RemoteLogin:
        """A swarm's host; connected to from the first time on. Raises: ProviderError."""
        from providers.ssh import Retry, SshHosts

        parameters = swarm.parameters
        target = _target(swarm)
        place = _place(target, swarm)
        known = self._logins.get((target, place))
        if known is not None:
            return known
        if self._sink is None:
            raise ProviderError("NotStarted", "the provider for Slurm was not started")
        if self._ssh is None:
            self._ssh = SshHosts(self._means())
        # Each has a session for as long as it lives: some are left for commands and transfers.
        others = sum(one.target == target for one in self._logins.values())
        shell = self._ssh.host(
            target,
            Retry.from_parameters(parameters),
            connection=others // LOGINS_A_CONNECTION,
        )
        remote = RemoteHost(shell, place)
        remote.start(self._sink)
        login = self._logins[target, place] = RemoteLogin(remote, target)
        return login

    def known(self) -> list[SlurmHost]:
        """Those that were asked for."""
        return list(self._logins.values())

    async def discard(self, host: SlurmHost) -> None:
        """End the connection of a host that no swarm needs any more."""
        for key, login in list(self._logins.items()):
            if login is host:
                del self._logins[key]
                await login.close()
                others = self._logins.values()
                if self._ssh is not None and all(one.target != login.target for one in others):
                    await self._ssh.discard(login.target)

    async def close(self) -> None:
        """End all connections; workers run on."""
        for login in self._logins.values():
            await login.close()
        self._logins.clear()
        if self._ssh is not None:
            await self._ssh.close()
