"""The provider for this machine: a worker is a detached process with a folder of its own.

It survives the controller and is found again by the next one from its folder alone.  What takes
long (starting, looking, ending, packing, removing) runs in a few threads; mail does not.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from providers import archive
from providers.base import (
    Ended,
    JobState,
    JobStatus,
    LaunchRequest,
    Machine,
    ProviderError,
    ProviderUnreachable,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.exits import ExitWatch
from providers.identity import has_begun, live_worker
from providers.launching import Children, Launcher, worker_command
from providers.layout import Layout, swarm_parts
from providers.observing import Observer
from providers.processes import (
    Target,
    kill_all,
    signal_marked,
    signal_worker,
)
from worker.follower import Follower
from worker.leftovers import remove_jobs, remove_store
from worker.mailbox import poke
from worker.paths import component, inbox_name
from worker.posting import post

T = TypeVar("T")

_THREADS = 4


class LocalProvider:
    """Workers on this machine (the port is ``providers.base.Provider``).

    Args:
        home_root: folder of all swarms that have no ``workspaceRoot`` (``workspaces`` in the
            home), of the shared git stores and of the hint FIFO; made when first needed.
        command: what to run as a worker, less the job's folder; default: the worker package.
        poll_seconds: how often outboxes are looked at where no hint came.
    """

    name = "local"
    stores: RemoteStores | None = None
    rents = False

    def __init__(
        self,
        home_root: Path,
        *,
        command: Sequence[str] | None = None,
        poll_seconds: float = 1.0,
    ) -> None:
        self._layout = Layout(home_root.expanduser().resolve())
        self._children = Children()
        self._launcher = Launcher(
            self._layout, tuple(command) if command else worker_command(), self._children
        )
        self._follower = Follower(self._layout.hint, poll_seconds=poll_seconds)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="local-provider")
        self._launchers = ThreadPoolExecutor(
            max(2, os.cpu_count() or 2), thread_name_prefix="local-launch"
        )
        self._launching: dict[str, asyncio.Future[None]] = {}
        self._exits = ExitWatch()
        self._observer = Observer(self._layout, self._children, self._launching)
        self._archiving = asyncio.Lock()
        self._closing = threading.Event()

    def start(self, sink: Sink, ended: Ended | None = None) -> None:
        """Begin following. Raises: ProviderError (``HomeUnusable``)."""
        if ended is not None:
            self._exits.start(ended)
        try:
            self._follower.start(sink)
        except OSError as error:
            raise ProviderError(
                "HomeUnusable", f"{self._layout.root} cannot be used: {error.strerror or error}"
            ) from error

    async def close(self) -> None:
        """Stop following and give up packing; workers run on. The provider is then spent."""
        self._closing.set()
        self._follower.close()
        self._exits.close()
        for pool in (self._launchers, self._pool):
            await asyncio.to_thread(pool.shutdown)

    # --- workers -----------------------------------------------------------------------------

    async def launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Start workers that were not started yet, a few at a time.

        A job whose worker has begun is not begun again, even if it ended: ``observe`` tells.

        Raises: ProviderError of the first that failed, after all were tried.
        """
        results = await asyncio.gather(
            *(self._launch(request) for request in requests), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _launch(self, request: LaunchRequest) -> None:
        running = self._launching.get(request.job)
        if running is None:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._launchers, self._launcher.launch, request)
            self._launching[request.job] = running
            running.add_done_callback(lambda _: self._launching.pop(request.job, None))
        await asyncio.shield(running)

    async def observe(self, swarm: SwarmHandle) -> list[JobStatus]:
        """Every job with a folder. Raises: ProviderUnreachable."""
        try:
            jobs = await self._in_thread(lambda: self._observer.observe(swarm))
        except OSError as error:
            raise ProviderUnreachable(
                "WorkspaceUnreadable",
                f"{self._layout.swarm_dir(swarm)} cannot be read: {error.strerror or error}",
            ) from error
        self._exits.watch(
            (job.job, int(job.handle.removeprefix("pid ")))
            for job in jobs
            if job.state is JobState.RUNNING
        )
        return jobs

    async def stop(self, swarm: SwarmHandle, jobs: Iterable[str], *, force: bool) -> None:
        """SIGTERM to the workers, or SIGKILL to them and all that ever descended from them.

        With ``force`` also what dead workers left running is found and killed.

        Raises: ProviderError (``StopFailed``).
        """
        names = sorted({component(job) for job in jobs})
        pending = [self._launching[job] for job in names if job in self._launching]
        if pending:
            await asyncio.wait(pending)
        if names:
            end = self._kill if force else self._terminate
            await self._in_thread(lambda: end(swarm, names))

    def _terminate(self, swarm: SwarmHandle, jobs: Sequence[str]) -> None:
        unproven: list[Target] = []
        for job in jobs:
            folder = self._layout.job_dir(swarm, job)
            if signal_worker(folder, job, signal.SIGTERM):
                continue
            child = self._children.running(job)
            if child is not None:
                child.send_signal(signal.SIGTERM)
            elif folder.is_dir() and not has_begun(folder):
                unproven.append(Target(job, folder))
        if unproven:
            signal_marked(unproven, signal.SIGTERM)

    def _kill(self, swarm: SwarmHandle, jobs: Sequence[str]) -> None:
        targets: list[Target] = []
        for job in jobs:
            folder = self._layout.job_dir(swarm, job)
            child = self._children.running(job)
            worker = live_worker(folder, job) or (child.pid if child is not None else None)
            targets.append(Target(job, folder, worker))
        kill_all(targets)
        self._children.reap()

    def started(self) -> set[int]:
        """Pids of the workers that this process started and has still to wait for."""
        return self._children.pids()

    # --- mail --------------------------------------------------------------------------------

    async def machines(self, swarm: SwarmHandle) -> list[Machine]:
        """None: what workers run on here is not this provider's to pay for."""
        return []

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """Follow a job's outbox from ``offset`` (again from there, if followed already)."""
        folder = self._layout.job_dir(swarm, job)
        path = folder / "mailbox" / "outbox" / inbox_name(job, index)
        self._follower.follow(job, path, offset)

    def unfollow(self, job: str) -> None:
        """Stop following a job's outbox."""
        self._follower.unfollow(job)

    async def flush(self, job: str) -> None:
        """Hand all that a followed job's outbox holds now to the sink, before returning."""
        await self._follower.flush(job)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        *,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Append one record to a job's inbox and wake its worker.

        ``secrets`` are in place, under the name that the record's ``secrets`` says (else
        ``<injection_id>.json``), before the record is.

        Raises: ProviderError (``WorkerGone``, ``UnsafePath``, ``DeliveryFailed``).
        """
        folder = (*swarm_parts(swarm), job)
        inbox = post(self._layout.base(swarm), folder, index, record, secrets)
        poke(inbox / "wake", b"\n")

    # --- what is left ------------------------------------------------------------------------

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        """Pack all job folders of the swarm; a finished archive of it is found again.

        Raises: ProviderError (``ArchiveExists``, ``InvalidArchivePath``, ``ArchiveFailed``).
        """
        path = archive.archive_path(swarm, destination.expanduser().absolute())
        async with self._archiving:
            try:
                await self._in_thread(lambda: self._archive(swarm, path))
            except OSError as error:
                raise ProviderError(
                    "ArchiveFailed", f"{path} cannot be written: {error.strerror or error}"
                ) from error
        return path

    def _archive(self, swarm: SwarmHandle, path: Path) -> None:
        if path.resolve().is_relative_to(self._layout.swarm_dir(swarm)):
            raise ProviderError(
                "InvalidArchivePath", f"{path} lies in the folder that is packed and then removed"
            )
        if archive.is_finished(path, swarm):
            return
        folder = self._layout.open(swarm)
        try:
            archive.pack(swarm, folder, path, self._closing)
        finally:
            if folder is not None:
                os.close(folder)

    async def remove(
        self, swarm: SwarmHandle, jobs: Iterable[str] | None = None, *, keep: bool = False
    ) -> None:
        """Remove the folders of ended jobs; None: of all, and the swarm's own.

        Args:
            swarm: whose.
            jobs: names; None: all.
            keep: is about volumes, of which there are none here.

        Raises: ProviderError (``StillRunning``, before anything is removed; ``RemoveFailed``).
        """
        names = None if jobs is None else {component(job) for job in jobs}
        statuses = await self.observe(swarm)
        alive = [
            status.job
            for status in statuses
            if status.state in (JobState.RUNNING, JobState.PENDING)
            and (names is None or status.job in names)
        ]
        if alive:
            raise ProviderError("StillRunning", f"still running: {', '.join(alive)}")
        try:
            await self._in_thread(lambda: self._remove(swarm, names))
        except OSError as error:
            raise ProviderError(
                "RemoveFailed",
                f"{self._layout.swarm_dir(swarm)} cannot be removed: {error.strerror or error}",
            ) from error

    def _remove(self, swarm: SwarmHandle, jobs: set[str] | None) -> None:
        for name in remove_jobs(self._layout.base(swarm), swarm_parts(swarm), jobs):
            self._children.forget(name)

    async def discard_store(self, name: str) -> None:
        """Remove a project's shared git store. Raises: ProviderError (``RemoveFailed``)."""
        store = self._layout.stores / component(name)
        try:
            await self._in_thread(lambda: remove_store(store))
        except OSError as error:
            raise ProviderError(
                "RemoveFailed", f"{store} cannot be removed: {error.strerror or error}"
            ) from error

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, work)
