"""A login host that is this very process: what the Slurm provider needs, without SSH.

For tests of what the provider makes of Slurm; it can be told to lose an answer.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Collection, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from providers.base import (
    Ended,
    OutcomeUnknown,
    ProviderUnreachable,
    RemoteStores,
    Sink,
    SwarmHandle,
)
from providers.layout import swarm_parts
from providers.remote_tools import Tools
from providers.slurm_host import Folder, Place, Ran, SlurmHost
from tests.slurm import Slurm
from worker import bundle, leftovers, paths
from worker.attendant import files as files_there
from worker.follower import Follower
from worker.posting import post


class LocalLogin:
    """One login host, user and root.

    Args:
        root: the shared file system.
        environment: of the login session.
    """

    name = "root@here"
    login: Hashable = "root@here"

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.environment = dict(environment)
        self.follower = Follower(None, poll_seconds=0.05)
        self.ran: list[list[str]] = []
        self.lose: str = ""
        """A command whose answer will be lost, once; it runs all the same."""
        self.away = False
        self._place: Place | None = None

    def _reach(self) -> None:
        if self.away:
            raise ProviderUnreachable("ConnectTimedOut", "here does not answer")

    async def place(self) -> Place:
        self._reach()
        if self._place is None:
            worker = await asyncio.to_thread(bundle.build, self.root / "worker")
            self._place = Place(str(self.root), str(worker))
        return self._place

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        seconds: float,
        lock: str | None = None,
        effect: bool = False,
    ) -> Ran:
        self._reach()
        self.ran.append(list(argv))
        env = {"PATH": os.environ["PATH"], "HOME": "/", **self.environment}
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=() if lock is None else (int(lock),),
        )
        out, err = await asyncio.wait_for(process.communicate(input.encode()), seconds)
        if self.lose and self.lose in argv:
            self.lose = ""
            raise OutcomeUnknown("ConnectionLost", f"{argv} was cut off")
        return Ran(process.returncode, out.decode(), err.decode())

    async def tools(self, parameters: Mapping[str, Any]) -> Tools:
        return Tools()

    @asynccontextmanager
    async def locked(self, swarm: SwarmHandle) -> AsyncIterator[str]:
        self._reach()
        path = paths.make(self.root, *swarm_parts(swarm)) / "submit.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.02)
            yield str(handle)
        finally:
            os.close(handle)

    async def make_job(
        self, swarm: SwarmHandle, job: str, index: int, files: Mapping[str, str]
    ) -> str:
        self._reach()
        made = files_there.make_job(self.root, swarm_parts(swarm), job, index, dict(files))
        return str(made["folder"])

    async def folders(self, swarm: SwarmHandle) -> list[Folder]:
        self._reach()
        return [_folder(told) for told in files_there.jobs(self.root, swarm_parts(swarm))]

    async def shut(self, swarm: SwarmHandle, jobs: Collection[str], ended: Collection[str]) -> None:
        self._reach()
        files_there.shut(self.root, swarm_parts(swarm), list(jobs), list(ended))

    async def remove(self, swarm: SwarmHandle, jobs: Collection[str] | None) -> None:
        self._reach()
        await asyncio.to_thread(leftovers.remove_jobs, self.root, swarm_parts(swarm), jobs)

    async def archive(self, swarm: SwarmHandle, destination: Path) -> Path:
        raise NotImplementedError

    async def discard_store(self, name: str) -> None:
        shutil.rmtree(self.root / "stores" / name, ignore_errors=True)

    async def deliver(
        self,
        swarm: SwarmHandle,
        job: str,
        index: int,
        record: Mapping[str, Any],
        secrets: Mapping[str, str],
    ) -> None:
        self._reach()
        folder = (*swarm_parts(swarm), job)
        await asyncio.to_thread(post, self.root, folder, index, record, dict(secrets) or None)

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        folder = self.root.joinpath(*swarm_parts(swarm), job)
        path = folder / "mailbox" / "outbox" / paths.inbox_name(job, index)
        self.follower.follow(job, path, offset)

    def offset(self, job: str) -> int:
        raise NotImplementedError

    def unfollow(self, job: str) -> None:
        self.follower.unfollow(job)

    async def flush(self, job: str) -> None:
        await self.follower.flush(job)


def _folder(told: Mapping[str, Any]) -> Folder:
    failure = told["failure"]
    return Folder(
        job=told["job"],
        prepared=told["prepared"],
        claim=told["claim"],
        failure=(failure["reason"], failure["message"]) if failure else None,
        begun=told["begun"],
        heartbeat=told["heartbeat"],
    )


class LocalLogins:
    """The only login host there is."""

    stores: RemoteStores | None = None

    def __init__(self, root: Path, cluster: Slurm) -> None:
        self.only = LocalLogin(root, cluster.environment)

    def start(self, sink: Sink, ended: Ended | None) -> None:
        self.only.follower.start(sink)

    def host(self, swarm: SwarmHandle) -> SlurmHost:
        return self.only

    def known(self) -> list[SlurmHost]:
        return [self.only]

    async def discard(self, host: SlurmHost) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.only.follower.close()
