"""Commands that are run for a controller, each with a deadline and bounded output."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.failures import ProviderError

MAX_OUTPUT = 5 * 1024 * 1024
"""Bytes that are kept of each of a command's two outputs; an answer holds both."""
_FOREIGN = ("SBATCH_", "SLURM_", "SQUEUE_", "SCANCEL_", "SINFO_", "SACCT_")
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SBATCH_ACCOUNT"})
"""Of a login's variables that change what Slurm's commands do, those that a site needs."""
_NOT_FOR_JOBS = frozenset({"SSH_AUTH_SOCK"})
"""Jobs get the environment of sbatch, and live longer than a login."""
_CHUNK = 64 * 1024
_AFTER_KILL = 2.0
_LASTING: set[_Running] = set()
"""Commands that may outlive us.  asyncio kills a process whose object goes: these never do."""


@dataclass(frozen=True)
class Command:
    """What to run."""

    argv: Sequence[str]
    cwd: Path
    seconds: float
    input: bytes | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    """Added to our own environment; None takes a variable away."""
    lock: int | None = None
    """Descriptor that it inherits."""
    detached: bool = False
    """Whether it may outlive its deadline, and us."""


@dataclass(eq=False)
class _Running:
    """One command, and what it has said so far."""

    process: asyncio.subprocess.Process
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    cut: bool = False
    """Whether it said more than is kept."""

    async def talk(self, data: bytes | None) -> None:
        """Give it its input, and take its output to the end."""
        await asyncio.gather(
            self._give(data),
            self._take(self.process.stdout, self.out),
            self._take(self.process.stderr, self.err),
        )
        await self.process.wait()

    async def _give(self, data: bytes | None) -> None:
        writer = self.process.stdin
        if writer is None:
            return
        with suppress(BrokenPipeError, ConnectionResetError):
            writer.write(data or b"")
            await writer.drain()
        writer.close()

    async def _take(self, reader: asyncio.StreamReader | None, kept: bytearray) -> None:
        while reader is not None:
            data = await reader.read(_CHUNK)
            if not data:
                return
            room = MAX_OUTPUT - len(kept)
            kept += data[:room]
            self.cut = self.cut or len(data) > room

    def kill(self) -> None:
        """End it and all of its session."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Commands:
    """Those that run now."""

    def __init__(self) -> None:
        self._ours: set[_Running] = set()
        self._left: set[asyncio.Task[None]] = set()
        """Output of commands that outlived their deadline."""

    async def run(self, command: Command) -> dict[str, Any]:
        """Run a command to its end or its deadline.

        Returns: ``code`` (negative: a signal; None: it runs on), ``out``, ``err``, ``timed_out``,
            ``cut`` (more was said than is kept).

        Raises: ProviderError (``CommandNotFound``); OSError.
        """
        running = await _start(command)
        lasting = command.detached or command.lock is not None
        group = _LASTING if lasting else self._ours
        group.add(running)
        talking = asyncio.get_running_loop().create_task(running.talk(command.input))
        try:
            done, _ = await asyncio.wait({talking}, timeout=command.seconds)
            if not done and not command.detached:
                running.kill()
                await asyncio.wait({talking}, timeout=_AFTER_KILL)
                talking.cancel()  # somebody it left behind may hold its output open
        finally:
            if talking.done() or not lasting:
                group.discard(running)
            if not talking.done():
                self._left.add(talking)
                talking.add_done_callback(lambda done: self._forget(done, running))
        if done:
            talking.result()
        return {
            "code": running.process.returncode,
            "out": running.out.decode(errors="replace"),
            "err": running.err.decode(errors="replace"),
            "timed_out": not done,
            "cut": running.cut,
        }

    def abandon(self) -> None:
        """Nobody wants to know any more: end all but those that hold a lock or may outlive us."""
        for running in self._ours:
            running.kill()

    def _forget(self, talking: asyncio.Task[None], running: _Running) -> None:
        self._left.discard(talking)
        if not talking.cancelled():
            talking.exception()
            _LASTING.discard(running)


def login_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What commands get of the environment that a login gave us: nothing that would make them do
    something else, such as hold a job, or hide jobs from a look at the queue.
    """
    return {
        name: value
        for name, value in own.items()
        if name in _KEPT or not (name.startswith(_FOREIGN) or name in _NOT_FOR_JOBS)
    }


async def _start(command: Command) -> _Running:
    """Raises: ProviderError (``CommandNotFound``); OSError."""
    env = {**login_environment(os.environ), **command.env}
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=nothing if command.input is None else pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=command.cwd if command.cwd.is_dir() else "/",
            env={name: value for name, value in env.items() if value is not None},
            start_new_session=True,
            pass_fds=() if command.lock is None else (command.lock,),
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise ProviderError(
            "CommandNotFound", f"{command.argv[0]} cannot be run here: {error.strerror}"
        ) from error
    return _Running(process)
