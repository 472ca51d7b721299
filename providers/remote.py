"""A login host that we work on: its attendant's calls, mail, and files there and back.

The attendant (``worker.attendant``) is brought there, started, and started again after every cut;
``docs/remote.md`` describes it.  What it says is not trusted: agents share its user.
"""

from __future__ import annotations

import asyncio
import secrets as tokens
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from providers.archive import archive_path, is_finished, packed
from providers.base import ProviderError, ProviderUnreachable, Sink, SwarmHandle
from providers.followings import Followings
from providers.layout import swarm_parts
from providers.link import Link, Peer, Stream
from providers.remote_setup import Installed, Place, install, spoken
from providers.remote_transfer import Transfer
from providers.remote_values import Facts, JobFacts, MadeJob, Ran, facts_of, job_of
from providers.shell import Channel, Input, Shell
from worker.paths import is_component
from worker.wire import Frame, clean

PATIENCE_SECONDS = 25.0
"""How long a call waits for a connection that is being made."""
LONGEST_PAUSE = 10.0
PING_SECONDS = 15.0
SILENCE_SECONDS = 45.0
IDLE_SECONDS = 300.0
"""A host that nobody needed for so long is left alone, until somebody does."""
CALL_SECONDS = 30.0
REMOVE_SECONDS = 600.0
TRANSFERS = 4
"""At a time; others wait their turn: the host's sessions are needed for more than these."""
_GRACE = 10.0
"""Beyond a deadline that the attendant keeps itself."""


class RemoteHost:
    """One login host, user and root.

    Args:
        shell: a way to run programs there.
        place: where, by the user's own words.
    """

    def __init__(self, shell: Shell, place: Place) -> None:
        self.place = place
        self._shell = shell
        self._installed: Installed | None = None
        self._facts: Facts | None = None
        peer = Peer(
            f"the attendant on {place.name}",
            "ConnectionLost",
            patience=PATIENCE_SECONDS,
            longest_pause=LONGEST_PAUSE,
            ping_seconds=PING_SECONDS,
            silence_seconds=SILENCE_SECONDS,
            idle_seconds=IDLE_SECONDS,
        )
        self._link = Link(
            peer,
            self._open,
            0,
            opened=self._opened,
            received=self._received,
            needed=lambda: any(True for _ in self._followings),
        )
        self._followings = Followings(self._link.post)
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._background: set[asyncio.Task[Any]] = set()

    def start(self, sink: Sink) -> None:
        """Begin to connect and to follow; needs a running event loop."""
        self._followings.sink = sink
        self._link.start()

    async def close(self) -> None:
        """End the connection; what was begun there ends by itself. The host is then spent."""
        self._followings.close()
        await self._link.close()
        for task in self._background:
            task.cancel()

    @property
    def connected(self) -> bool:
        """Whether the attendant can be reached now, as far as is known."""
        return self._link.connected

    @property
    def facts(self) -> Facts | None:
        """What the attendant said of itself when it was reached last."""
        return self._facts

    async def known(self) -> Facts:
        """The same, once it is reached. Raises: ProviderUnreachable."""
        if self._facts is None:
            await self.call("prepare", {}, effect=False)
        if self._facts is None:
            raise ProviderUnreachable("ConnectionLost", f"{self.place.name} does not greet")
        return self._facts

    async def call(
        self, verb: str, arguments: Mapping[str, Any], *, seconds: float = CALL_SECONDS,
        effect: bool = True,
    ) -> Any:  # fmt: skip
        """Ask the attendant to do something; its answer, not yet looked at.

        Args:
            verb: of ``worker.attendant.calls``.
            arguments: JSON.
            seconds: how long an answer is waited for.
            effect: whether it changes anything.

        Raises: ProviderError as the attendant tells it; ProviderUnreachable; with ``effect``
            OutcomeUnknown.
        """
        return await self._link.call(verb, dict(arguments), seconds=seconds, effect=effect)

    # --- jobs ------------------------------------------------------------------------------------

    async def prepare(self) -> Facts:
        """Make sure that the root can be written to.

        Raises: ProviderError (``WorkspaceNotWritable``), ProviderUnreachable.
        """
        await self.call("prepare", {}, effect=False)
        return await self.known()

    async def make_job(
        self, swarm: SwarmHandle, job: str, files: Mapping[str, str], *, index: int = 0
    ) -> MadeJob:
        """Make a job's folder with its mailbox and files; safe to repeat.

        Args:
            swarm: whose.
            job: its name.
            files: texts of ``worker.json``, ``env`` and ``batch.sh``.
            index: of the worker.

        Raises: ProviderError (``WorkspaceNotWritable``, ...), ProviderUnreachable, OutcomeUnknown.
        """
        what = {"job": job, "index": index, "files": dict(files)}
        told = await self.call("make_job", {**_of(swarm), **what})
        if not isinstance(told, dict) or not isinstance(told.get("folder"), str):
            raise self._nonsense("make_job")
        return MadeJob(clean(told["folder"]), told.get("claimed") is True)

    async def jobs(self, swarm: SwarmHandle) -> list[JobFacts]:
        """Every job of a swarm that has a folder. Raises: ProviderUnreachable, ProviderError."""
        told = await self.call("jobs", _of(swarm), effect=False)
        try:
            return [job_of(item) for item in told if is_component(item["job"])]
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise self._nonsense("jobs") from error

    async def shut(self, swarm: SwarmHandle, jobs: Iterable[str], ended: Iterable[str]) -> None:
        """Have no job take up these workers' folders; secrets that nobody will read are removed.

        Args:
            swarm: whose.
            jobs: the workers; one that has begun goes on.
            ended: those of them that have ended.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
        """
        told = {"jobs": sorted(set(jobs)), "ended": sorted(set(ended))}
        await self.call("shut", {**_of(swarm), **told})

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """As ``Provider.deliver``."""
        told = {
            **_of(swarm),
            "job": job,
            "index": index,
            "record": dict(record),
            "secrets": dict(secrets or {}),
        }
        await self.call("deliver", told)

    async def remove(self, swarm: SwarmHandle, jobs: Iterable[str] | None = None) -> None:
        """Remove folders of jobs; None: of all, and the swarm's own. They must have ended.

        Raises: ProviderError (``RemoveFailed``), ProviderUnreachable, OutcomeUnknown.
        """
        names = None if jobs is None else sorted(set(jobs))
        await self.call("remove", {**_of(swarm), "jobs": names}, seconds=REMOVE_SECONDS)

    # --- mail ------------------------------------------------------------------------------------

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """As ``Provider.follow``."""
        self._link.use()
        self._followings.follow(job, {**_of(swarm), "index": index}, offset)

    def offset(self, job: str) -> int:
        """How far a followed job's outbox was taken, bytes."""
        return self._followings.offset(job)

    def unfollow(self, job: str) -> None:
        """As ``Provider.unfollow``."""
        self._followings.unfollow(job)

    async def flush(self, job: str) -> None:
        """As ``Provider.flush``. Raises: ProviderUnreachable."""
        if self._followings.before_flush(job):
            await self.call("flush", {"job": job}, effect=False)

    # --- commands --------------------------------------------------------------------------------

    async def run(
        self,
        argv: Sequence[str],
        *,
        seconds: float = CALL_SECONDS,
        effect: bool,
        input: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: Sequence[str] | None = None,
        lock: str | None = None,
        detached: bool = False,
    ) -> Ran:
        """Run a command on the login host.

        Args:
            argv: the command and its arguments.
            seconds: its deadline, at which it is killed with all of its session.
            effect: whether it changes anything, so that a cut leaves that in doubt.
            input: for its stdin.
            env: added to the environment of a login; None takes a variable away.
            cwd: components of a folder below the root.
            lock: one that it inherits, and so keeps until its end.
            detached: let it go on after its deadline.

        Raises: ProviderError (``CommandNotFound``, ``LockLost``), ProviderUnreachable,
            OutcomeUnknown.
        """
        told = {
            "argv": list(argv),
            "seconds": seconds,
            "input": input,
            "env": None if env is None else dict(env),
            "cwd": None if cwd is None else list(cwd),
            "lock": lock,
            "detached": detached,
        }
        answer = await self.call("run", told, seconds=seconds + _GRACE, effect=effect)
        try:
            code, out, err = answer["code"], str(answer["out"]), str(answer["err"])
            if code is not None and not isinstance(code, int):
                raise TypeError
            return Ran(code, clean(out), clean(err), bool(answer["timed_out"]), bool(answer["cut"]))
        except (TypeError, KeyError) as error:
            raise self._nonsense("run") from error

    @asynccontextmanager
    async def lock(self, *path: str, seconds: float = CALL_SECONDS) -> AsyncIterator[str]:
        """Hold a lock, an flock(2) of a file below the root; its name, for ``run``.

        A command that was started with it holds it on, also after the connection is cut.

        Raises: ProviderError (``LockHeld``), ProviderUnreachable.
        """
        name = tokens.token_hex(8)
        told = {"name": name, "path": list(path), "seconds": seconds}
        try:
            await self.call("lock", told, seconds=seconds + _GRACE, effect=False)
            yield name
        finally:
            task = asyncio.create_task(self._unlock(name))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            await asyncio.shield(task)

    async def _unlock(self, name: str) -> None:
        if self._link.connected:  # with a connection that was cut its locks are gone too
            with suppress(ProviderError):
                await self.call("unlock", {"name": name})

    # --- files -----------------------------------------------------------------------------------

    async def download(
        self, verb: str, arguments: Mapping[str, Any], path: Path, *, limit: int | None = None
    ) -> Any:
        """Have a file from the host, under its name only when it is whole; the answer.

        ``limit`` is its greatest size in bytes.

        Raises: ProviderError (``TooLarge``, ...), ProviderUnreachable; OSError of this side.
        """
        async with self._transfers:
            return await (await self._transfer(verb, arguments)).download(path, limit=limit)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all job folders of a swarm into a file of this machine; a finished one is found.

        Raises: ProviderError (``ArchiveExists``, ``ArchiveFailed``), ProviderUnreachable.
        """
        path = archive_path(swarm, destination.expanduser().absolute())
        if await asyncio.to_thread(is_finished, path, swarm):
            return path
        of = packed(swarm)
        told = {"namespace": of.namespace, "name": of.swarm, "uid": of.uid, "folder": of.folder}
        try:
            await self.download("pack", told, path)
        except OSError as error:
            raise ProviderError(
                "ArchiveFailed", f"{path} cannot be written: {error.strerror or error}"
            ) from error
        return path

    async def upload(self, verb: str, arguments: Mapping[str, Any], path: Path) -> Any:
        """Send a file to the host; the answer.

        Raises: ProviderError, ProviderUnreachable, OutcomeUnknown; OSError of this side.
        """
        async with self._transfers:
            return await (await self._transfer(verb, arguments)).upload(path)

    async def _transfer(self, verb: str, arguments: Mapping[str, Any]) -> Transfer:
        await self.known()
        installed = self._installed
        if installed is None:
            raise ProviderUnreachable("ConnectionLost", f"{self.place.name} was lost")
        return Transfer(self._shell, installed, verb, arguments)

    # --- the connection --------------------------------------------------------------------------

    async def _open(self) -> Stream:
        """Raises: ProviderError and its kinds, OSError."""
        if self._installed is None:
            self._installed = await install(self._shell, self.place)
        channel = await self._shell.open(self._installed.argv("attendant"))
        try:
            await spoken(channel, self.place)
        except BaseException:
            channel.close()
            self._installed = None  # its file or its Python may be gone: look again
            raise
        return Stream(channel.reader, _Writer(channel), channel)

    def _opened(self, welcome: Frame) -> None:
        """Raises: WireError."""
        self._facts = facts_of(welcome.json())
        self._followings.opened()

    def _received(self, message: Frame) -> None:
        """Raises: WireError."""
        if message.type == "records":
            self._followings.records(message)

    def _nonsense(self, verb: str) -> ProviderUnreachable:
        return ProviderUnreachable(
            "AttendantFailed", f"{verb}: what {self.place.name} answers cannot be read"
        )


class _Writer:
    """A channel's input, which ends with the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._input: Input = channel.writer

    def write(self, data: bytes) -> None:
        """Send, some time."""
        self._input.write(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait."""
        return self._input.get_write_buffer_size()

    def close(self) -> None:
        """Let go of the attendant, which ends by itself."""
        self._channel.close()


def _of(swarm: SwarmHandle) -> dict[str, Any]:
    return {"swarm": list(swarm_parts(swarm))}
