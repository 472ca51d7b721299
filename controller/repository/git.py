"""Running git for the controller: no prompts, no hooks, a deadline, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from controller.repository.credentials import Credentials, environment
from controller.repository.problems import RepositoryProblem, RepositoryReason

DEADLINE_SECONDS = 60.0
MAX_OUTPUT = 64 * 1024 * 1024
"""Bytes of output after which a command is stopped: no repository of ours answers with more."""
_PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "protocol.ext.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    "push.gpgSign=false",
    "push.followTags=false",
    "push.recurseSubmodules=no",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
)


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str


class Git:
    """Runs git commands, so many at a time.

    Args:
        parallel: commands that run at once; the others wait.
        deadline: seconds that one command may take, waiting for its turn not counted.
    """

    def __init__(self, *, parallel: int = 4, deadline: float = DEADLINE_SECONDS) -> None:
        self._turns = asyncio.Semaphore(parallel)
        self._deadline = deadline
        self.commands = 0
        """Commands started so far."""

    async def run(
        self,
        *args: str,
        cwd: Path | None = None,
        stdin: str = "",
        source: BinaryIO | None = None,
        credentials: Credentials | None = None,
        variables: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Result:
        """Run ``git <args>``; any exit status is a result.

        ``source`` is a file that it reads from where that stands, instead of ``stdin``.

        Raises: RepositoryProblem (``RepositoryUnreadable``) for no git, no end before the
            deadline, or too much output.
        """
        async with self._turns:
            self.commands += 1
            with environment(credentials) as secret_variables:
                env = {**_base_environment(), **secret_variables, **(variables or {})}
                command = ["git", *(word for s in _SETTINGS for word in ("-c", s)), *args]
                given = stdin if source is None else source
                return await self._run(command, cwd, given, env, deadline or self._deadline)

    async def _run(
        self,
        command: Sequence[str],
        cwd: Path | None,
        stdin: str | BinaryIO,
        env: Mapping[str, str],
        deadline: float,
    ) -> Result:
        text = stdin if isinstance(stdin, str) else ""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd or "/",
                env=env,
                stdin=_input(stdin),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise _unreadable(f"git cannot be run: {error}") from error
        try:
            async with asyncio.timeout(deadline):
                out, err, _ = await asyncio.gather(
                    _read(process.stdout), _read(process.stderr), _feed(process.stdin, text)
                )
                code = await process.wait()
        except TimeoutError as error:
            verb = next((word for word in command[1:] if word in _VERBS), "git")
            raise _unreadable(f"git {verb} took longer than {deadline:g} seconds") from error
        finally:
            if process.returncode is None:
                _kill_group(process.pid)
                await process.wait()
        return Result(code, _text(out), _text(err))


_VERBS = frozenset(
    {
        "ls-remote",
        "fetch",
        "push",
        "rev-list",
        "init",
        "cat-file",
        "bundle",
        "index-pack",
        "unpack-objects",
    }
)


def inside(repository: Path) -> tuple[str, str]:
    """The options with which a command works on a local repository."""
    return ("-C", str(repository))


def ceiling(repository: Path) -> dict[str, str]:
    """Variables so that git does not take a repository around this folder for it."""
    return {"GIT_CEILING_DIRECTORIES": str(repository.parent)}


def _base_environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **passed_on,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
    }


def _input(stdin: str | BinaryIO) -> int | BinaryIO:
    if isinstance(stdin, str):
        return asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL
    return stdin


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while stream is not None and (chunk := await stream.read(65_536)):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise _unreadable(f"git answered with more than {MAX_OUTPUT} bytes")
    return b"".join(chunks)


async def _feed(stream: asyncio.StreamWriter | None, text: str) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # its exit status tells why
        stream.write(text.encode())
        await stream.drain()
    stream.close()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _unreadable(message: str) -> RepositoryProblem:
    return RepositoryProblem(RepositoryReason.UNREADABLE, message)
