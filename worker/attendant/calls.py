"""What an attendant does for a controller, each argument looked at before it is used.

Paths are components below the root, nothing else.  What may wait for a disk runs in threads; what
may take minutes in others, so that mail is not kept waiting by a removal.
"""

from __future__ import annotations

import asyncio
import getpass
import itertools
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from worker import leftovers
from worker.attendant import files, stores, tools
from worker.attendant.commands import Command, Commands
from worker.attendant.locks import Locks
from worker.attendant.tools import Wish
from worker.failures import ProviderError
from worker.follower import Follower
from worker.paths import component, inbox_name
from worker.posting import post
from worker.wire_values import Arguments

T = TypeVar("T")

STORES = "stores"
"""The folder of shared git stores below the root."""

_QUICK_THREADS = 4
_SLOW_THREADS = 4
_MAX_ARGUMENTS = 4096


def facts(root: Path) -> bytes:
    """What a controller wants to know first, as JSON."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    told = {
        "root": str(root),
        "home": str(Path("~").expanduser()),
        "user": user,
        "host": platform.node(),
        "python": sys.executable,
        "version": platform.python_version(),
        "worker": str(Path(sys.argv[0]).absolute()),
        "pid": os.getpid(),
    }
    return json.dumps(told).encode()


class Calls:
    """The verbs (a ``worker.connection.Service``).

    Args:
        root: below which all is.
        follower: reads the outboxes.
    """

    name = "the attendant"
    failed = "AttendantFailed"
    looks = frozenset({"prepare", "jobs", "flush", "lacking", "tips"})
    lasting = frozenset({"lock", "tools"})

    def __init__(self, root: Path, follower: Follower) -> None:
        self._root = root
        self._stores = root / STORES
        self._follower = follower
        self._commands = Commands()
        self._locks = Locks(root)
        self._quick = ThreadPoolExecutor(_QUICK_THREADS)
        self._slow = ThreadPoolExecutor(_SLOW_THREADS)
        self._numbers = itertools.count()
        self._verbs: Mapping[str, Callable[[Arguments], Awaitable[Any]]] = {
            "prepare": self._prepare,
            "make_job": self._make_job,
            "jobs": self._jobs,
            "shut": self._shut,
            "deliver": self._deliver,
            "remove": self._remove,
            "lacking": self._lacking,
            "tips": self._tips,
            "clone": self._clone,
            "discard_store": self._discard_store,
            "run": self._run,
            "lock": self._lock,
            "unlock": self._unlock,
            "tools": self._tools,
        }

    async def perform(self, verb: str, told: Any) -> Any:
        """Do what is asked; what is to be answered, as JSON knows it.

        Raises: ProviderError and its kinds.
        """
        work = self._verbs.get(verb)
        if work is None:
            raise ProviderError("BadRequest", f"this attendant knows no call {verb!r}")
        return await work(Arguments.of(told))

    def following(self, job: str, told: Any) -> Callable[[], None]:
        """What begins to read a job's outbox. Raises: ProviderError."""
        arguments = Arguments.of(told)
        folder = self._root.joinpath(*_swarm(arguments), component(job), "mailbox", "outbox")
        path = folder / inbox_name(job, arguments.number("index"))
        offset = arguments.number("offset")
        return lambda: self._follower.follow(job, path, offset)

    def abandon(self) -> None:
        """Nobody is there any more: commands that only look end, locks are let go."""
        self._commands.abandon()
        self._locks.close()

    # --- files -----------------------------------------------------------------------------------

    async def _prepare(self, arguments: Arguments) -> None:
        await self._in_thread(lambda: files.prepare(self._root))

    async def _make_job(self, arguments: Arguments) -> Any:
        swarm, job = _swarm(arguments), arguments.text("job")
        index, texts = arguments.number("index"), arguments.strings("files")
        return await self._in_thread(lambda: files.make_job(self._root, swarm, job, index, texts))

    async def _jobs(self, arguments: Arguments) -> Any:
        swarm = _swarm(arguments)
        return await self._in_thread(lambda: files.jobs(self._root, swarm))

    async def _shut(self, arguments: Arguments) -> None:
        swarm, names = _swarm(arguments), arguments.texts("jobs")
        ended = arguments.texts("ended")
        await self._in_thread(lambda: files.shut(self._root, swarm, names, ended))

    async def _deliver(self, arguments: Arguments) -> None:
        folder = (*_swarm(arguments), component(arguments.text("job")))
        index, record = arguments.number("index"), arguments.table("record")
        secrets = arguments.strings("secrets") or None
        await self._in_thread(
            lambda: post(self._root, folder, index, record, secrets, durable=True)
        )
        self._follower.stir(folder[-1])

    async def _remove(self, arguments: Arguments) -> None:
        swarm = _swarm(arguments)
        names = None if arguments.values.get("jobs") is None else arguments.texts("jobs")
        try:
            await self._in_thread(
                lambda: leftovers.remove_jobs(self._root, swarm, names), slow=True
            )
        except OSError as error:
            where = "/".join(swarm)
            raise ProviderError(
                "RemoveFailed", f"{where} cannot be removed: {error.strerror or error}"
            ) from error

    # --- stores of repositories ------------------------------------------------------------------

    async def _lacking(self, arguments: Arguments) -> Any:
        name, commits = arguments.text("store"), arguments.texts("commits")
        return await self._in_thread(lambda: stores.lacking(self._stores, name, commits), slow=True)

    async def _tips(self, arguments: Arguments) -> Any:
        name = arguments.text("store")
        return await self._in_thread(lambda: stores.tips(self._stores, name), slow=True)

    async def _clone(self, arguments: Arguments) -> None:
        name, url = arguments.text("store"), arguments.text("url")
        branch, commit = arguments.text("branch"), arguments.text("commit")
        seconds = arguments.seconds("seconds")
        await self._in_thread(
            lambda: stores.clone(self._stores, name, url, branch, commit, seconds=seconds),
            slow=True,
        )

    async def _discard_store(self, arguments: Arguments) -> None:
        name = arguments.text("store")
        try:
            await self._in_thread(lambda: stores.discard(self._stores, name), slow=True)
        except OSError as error:
            raise ProviderError(
                "RemoveFailed", f"the store {name} cannot be removed: {error.strerror or error}"
            ) from error

    # --- commands --------------------------------------------------------------------------------

    async def _run(self, arguments: Arguments) -> Any:
        argv = arguments.texts("argv")
        if not argv or len(argv) > _MAX_ARGUMENTS or any("\0" in text for text in argv):
            raise ProviderError("BadRequest", "argv: must be a command and its arguments")
        given = arguments.values
        lock = None if given.get("lock") is None else arguments.text("lock")
        data = None if given.get("input") is None else arguments.text("input").encode()
        below = [] if given.get("cwd") is None else arguments.texts("cwd")
        return await self._commands.run(
            Command(
                argv,
                self._root.joinpath(*map(component, below)),
                arguments.seconds("seconds"),
                data,
                _environment(arguments),
                None if lock is None else self._locks.descriptor(lock),
                bool(given.get("detached")),
            )
        )

    async def _lock(self, arguments: Arguments) -> None:
        name, place = arguments.text("name"), arguments.texts("path")
        try:
            await self._locks.acquire(name, place, arguments.seconds("seconds"))
        except OSError as error:
            raise files.not_writable(self._root, error) from error

    async def _unlock(self, arguments: Arguments) -> None:
        self._locks.release(arguments.text("name"))

    # --- tools -----------------------------------------------------------------------------------

    async def _tools(self, arguments: Arguments) -> Any:
        wish, seconds = Wish.of(arguments.values), arguments.seconds("seconds")
        found = await self._in_thread(lambda: tools.installed(self._root, wish))
        if found is not None:
            return found
        name = f"tools {next(self._numbers)}"
        try:
            await self._locks.acquire(name, wish.lock, seconds)
            lock = os.dup(self._locks.descriptor(name))  # ours, whoever lets go of the other
            return await self._in_thread(
                lambda: tools.install(self._root, wish, lock, seconds), slow=True
            )
        except OSError as error:
            raise files.not_writable(self._root, error) from error
        finally:
            self._locks.release(name)

    def _in_thread(self, work: Callable[[], T], *, slow: bool = False) -> asyncio.Future[T]:
        pool = self._slow if slow else self._quick
        return asyncio.get_running_loop().run_in_executor(pool, work)


def _swarm(arguments: Arguments) -> tuple[str, str]:
    """A swarm's two components below the root. Raises: ProviderError."""
    parts = arguments.texts("swarm")
    if len(parts) != 2:
        raise ProviderError("BadRequest", "swarm: must be a namespace and a folder")
    return component(parts[0]), component(parts[1])


def _environment(arguments: Arguments) -> dict[str, str | None]:
    if arguments.values.get("env") is None:
        return {}
    told = arguments.table("env")
    for name, value in told.items():
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise ProviderError("BadRequest", "env: a name or a value that cannot be")
        if value is not None and not isinstance(value, str):
            raise ProviderError("BadRequest", "env: values must be texts, or null")
    return told
