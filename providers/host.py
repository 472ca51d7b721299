"""The worker host: local workers of a controller that lives in another container.

It wraps the local provider and offers it over a Unix socket, to one controller at a time: the
one with the highest epoch, run by a user that may.  See ``docs/worker-host.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from providers.base import NotTaken, ProviderError, RecordBatch
from providers.host_calls import Calls
from providers.host_end import end_workers
from providers.host_epoch import MAX_EPOCH, EpochFile
from providers.host_reaper import Reaper
from providers.host_socket import listening, peer_uid
from providers.local import LocalProvider
from worker.connection import Connection
from worker.wire import PROTOCOL, Frame, WireError, encode, frame, frames, read
from worker.wire_values import error_frame

_LOG = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
TAKEOVER_SECONDS = 5.0
"""How long a new controller waits for what the one before it had begun."""
LINGER_SECONDS = 1.0
EXIT_UNAVAILABLE = 5
_LIMIT = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What a worker host is told at its start."""

    socket: Path
    root: Path
    """Folder of workers, shared git stores and archives; absolute."""
    uids: frozenset[int]
    """Users that may speak to it."""
    workspace_roots: tuple[Path, ...] = ()
    """Folders below which a swarm's ``workspaceRoot`` may be; absolute."""
    grace_seconds: float = 30.0
    """How long workers get to end when the host is told to."""
    command: Sequence[str] | None = None
    """What to run as a worker; default: the worker package."""
    poll_seconds: float = 1.0
    """How often outboxes are looked at where no hint came."""


class Host:
    """Lets controllers in, one at a time.

    Args:
        provider: runs the workers.
        calls: what a controller may ask.
        epochs: which controller is the newest.
        uids: users that may speak.
    """

    def __init__(
        self, provider: LocalProvider, calls: Calls, epochs: EpochFile, uids: frozenset[int]
    ) -> None:
        self._provider = provider
        self._calls = calls
        self._epochs = epochs
        self._uids = uids
        self._active: Connection | None = None

    def sink(self, batch: RecordBatch) -> None:
        """Send records to the controller. Raises: NotTaken."""
        if self._active is None:
            raise NotTaken
        self._active.streams.sink(batch)

    def job_ended(self, job: str) -> None:
        """Tell the controller that a job seems to have ended."""
        if self._active is not None:
            self._active.send(frame("ended", job=job))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its last."""
        try:
            await self._admit(reader, writer)
        except WireError as error:
            _LOG.warning("a connection was ended: %s", error)
        except OSError as error:
            _LOG.info("a connection was cut: %s", error)
        finally:
            writer.close()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises: WireError, OSError."""
        connection = Connection(frames(reader), writer, self._provider, self._calls)
        try:
            self._require_user(writer)
            epoch = _epoch_of(await _hello(reader))
            self._epochs.admit(epoch)
        except ProviderError as error:
            _LOG.warning("a controller was refused: %s", error)
            await _turn_away(reader, writer, error)
            return
        before, self._active = self._active, connection
        try:
            if before is not None:
                before.end(frame("fenced", epoch=epoch))
                await before.settled(TAKEOVER_SECONDS)
            _LOG.info("the controller of epoch %d is connected", epoch)
            await connection.serve(frame("welcome"))
        finally:
            connection.end()
            if self._active is connection:
                self._active = None
                _LOG.info("the controller of epoch %d is gone", epoch)

    def _require_user(self, writer: asyncio.StreamWriter) -> None:
        """Raises: ProviderError (``NotAllowed``), OSError."""
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid not in self._uids:
            allowed = ", ".join(map(str, sorted(self._uids)))
            raise ProviderError(
                "NotAllowed", f"user {uid} may not use this worker host (--allow-uid: {allowed})"
            )

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._active is not None:
            self._active.end()


async def _hello(reader: asyncio.StreamReader) -> Frame:
    """The first frame. Raises: WireError, OSError."""
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            message = await read(reader)
    except TimeoutError as error:
        raise WireError(f"no greeting came within {HELLO_SECONDS:.0f} s") from error
    if message is None or message.type != "hello":
        raise WireError("a connection must begin with a greeting")
    return message


async def _turn_away(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: ProviderError
) -> None:
    """Say why, and read on until it is heard: a stream that is closed at once may lose it.

    Raises: OSError.
    """
    writer.write(encode(error_frame("turned-away", error)))
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(65536):
                pass


def _epoch_of(hello: Frame) -> int:
    """Raises: ProviderError (``ProtocolMismatch``), WireError."""
    if hello.number("protocol") != PROTOCOL:
        raise ProviderError(
            "ProtocolMismatch",
            f"the controller speaks protocol {hello.number('protocol')}, this worker host "
            f"{PROTOCOL}: let both be of one version",
        )
    epoch = hello.number("epoch")
    if epoch > MAX_EPOCH:
        raise WireError("an epoch that is no epoch")
    return epoch


async def serve(settings: HostSettings, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    """Be a worker host until ``stop`` is set, then end the workers (``hurry``: do not wait).

    Raises: ProviderError.
    """
    root = settings.root.resolve()
    epochs = EpochFile(root)
    epochs.acquire()
    provider = LocalProvider(root, command=settings.command, poll_seconds=settings.poll_seconds)
    host = Host(
        provider,
        Calls(provider, root / "archives", settings.workspace_roots),
        epochs,
        settings.uids,
    )
    reaper = Reaper(provider.started)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, reaper.child_ended)
    reaping = loop.create_task(reaper.run(), name="reaper")
    try:
        provider.start(host.sink, host.job_ended)
        with listening(settings.socket) as listener:
            server = await asyncio.start_unix_server(host.handle, sock=listener, limit=_LIMIT)
            _LOG.info("worker host of %s listens at %s", root, settings.socket)
            await stop.wait()
            _LOG.info("stopping, and the workers with it")
            server.close()
            host.close()
        roots = [root, *(path.resolve() for path in settings.workspace_roots)]
        left = await end_workers(roots, hurry, settings.grace_seconds)
        if left:
            _LOG.warning("%d workers have not ended yet", left)
    finally:
        await provider.close()
        reaping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reaping
        loop.remove_signal_handler(signal.SIGCHLD)
        epochs.release()


def run(settings: HostSettings) -> int:
    """Be a worker host in this process until SIGTERM or SIGINT; an exit code.

    A second signal ends it without waiting for workers.
    """
    try:
        asyncio.run(_until_told(settings))
    except ProviderError as error:
        _LOG.error("%s", error)
        return EXIT_UNAVAILABLE
    return 0


async def _until_told(settings: HostSettings) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    await serve(settings, stop, hurry)
