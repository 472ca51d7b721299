"""Git commands on a store of repositories: a deadline on each, nobody is asked for anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worker.environ import clean_environ
from worker.failures import ProviderError
from worker.git import FIXED, last_lines

_SETTINGS = ("gc.auto=0", "maintenance.auto=false", "fetch.writeCommitGraph=false")
_ANONYMOUS = {
    "GIT_ALLOW_PROTOCOL": "http:https",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GCM_INTERACTIVE": "never",
}
STALL_SECONDS = 60
"""A server from which less than 1 kB/s comes for so long is given up: the store is locked."""
_KILLED_SECONDS = 10.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    errors: str

    @property
    def said(self) -> str:
        """What git complained of, in one line."""
        return last_lines(self.errors) or f"git ended with exit code {self.code}"


class StoreGit:
    """Runs git in one bare repository.

    Args:
        path: the repository.
        held: descriptor of its lock, if that is held: a command goes on holding it when this
            process is killed, so that nobody else begins before the command has ended.
    """

    def __init__(self, path: Path, held: int | None = None) -> None:
        self._path = path
        self._held = held

    def run(
        self,
        *args: str,
        seconds: float,
        stdin: str = "",
        out: BinaryIO | None = None,
        anonymous: bool = False,
    ) -> Done:
        """Run ``git <args>``; any exit code is a result.

        Args:
            seconds: after these it is ended with all that it started.
            stdin: what it reads.
            out: where its output goes, instead of into the result.
            anonymous: it may reach the web, and says nobody's name there.

        Raises: ProviderError (``GitNotFound``, ``GitTooSlow``).
        """
        settings = [*_SETTINGS, *(_careful() if anonymous else ())]
        command = ["git", *(word for s in settings for word in ("-c", s)), *args]
        process = self._start(command, _ANONYMOUS if anonymous else {}, stdin, out)
        try:
            output, errors = process.communicate(stdin.encode() if stdin else None, seconds)
        except subprocess.TimeoutExpired:
            raise ProviderError(
                "GitTooSlow", f"git {args[0]} took longer than {seconds:g} seconds"
            ) from None
        finally:
            _end(process)
        return Done(process.returncode, output or b"", errors.decode("utf-8", "replace"))

    def _start(
        self, command: Sequence[str], extra: Mapping[str, str], stdin: str, out: BinaryIO | None
    ) -> subprocess.Popen[bytes]:
        environ = {**clean_environ(os.environ), **FIXED, **extra, "GIT_DIR": str(self._path)}
        try:
            return subprocess.Popen(
                command,
                cwd="/",
                env=environ,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if out is None else out,
                stderr=subprocess.PIPE,
                pass_fds=() if self._held is None else (self._held,),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise ProviderError(
                "GitNotFound",
                "git is not on the PATH of the login host: install it, or load its module in the "
                "login profile",
            ) from None


def _careful() -> tuple[str, ...]:
    return (
        "credential.helper=",
        "http.lowSpeedLimit=1000",
        f"http.lowSpeedTime={STALL_SECONDS}",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that runs, with what it started; nothing happens to one that has ended."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_SECONDS)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
