"""Credentials for one attempt's remote: read once, handed to git without a trace.

They never stand in a URL, on a command line or in an agent's environment: git asks a helper
script, which reads a file of mode 0600 that exists only while git talks to the remote.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import TurnError
from worker.objectstore import Remote

DEFAULT_USERNAME = "x-access-token"
"""What code hosts take beside a token, where the user named none."""

MAX_BYTES = 1 << 20

_ASKPASS = """\
#!/bin/sh
case "$1" in
[Uu]sername*) exec cat {folder}/username ;;
*) exec cat {folder}/token ;;
esac
"""


@dataclass(frozen=True)
class Credentials:
    """What a remote wants to know; empty: what the user's own configuration says."""

    token: str = ""
    username: str = ""
    ssh_key: str = ""
    known_hosts: str = ""

    def __repr__(self) -> str:
        return "Credentials(...)"


def take(base: Path, name: str | None) -> Credentials:
    """Read ``<base>/secrets/<name>`` and remove it.

    Args:
        base: the worker's folder.
        name: a file name without folders (checked with the record); None: there are none.

    Raises: TurnError (infrastructure); the values are never in its text.
    """
    if not name:
        return Credentials()
    path = base / "secrets" / name
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            data: Any = json.loads(file.read(MAX_BYTES))
        path.unlink()
    except OSError as error:
        raise _unusable(error.strerror or "cannot be read") from None
    except (ValueError, RecursionError):
        raise _unusable("not JSON") from None
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise _unusable("not an object of texts")
    return Credentials(
        token=data.get("token", ""),
        username=data.get("username", ""),
        ssh_key=data.get("sshKey", ""),
        known_hosts=data.get("knownHosts", ""),
    )


def _unusable(why: str) -> TurnError:
    return TurnError("infrastructure", f"the repository's credentials cannot be used: {why}")


@contextmanager
def remote(base: Path, url: str, credentials: Credentials) -> Iterator[Remote]:
    """The remote, open for git as long as the context lasts."""
    if credentials == Credentials():
        yield Remote(url, {})
        return
    folder = base / "secrets" / f"remote-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield Remote(url, *_offer(folder, credentials))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _offer(folder: Path, credentials: Credentials) -> tuple[Mapping[str, str], tuple[str, ...]]:
    env: dict[str, str] = {}
    options: tuple[str, ...] = ()
    if credentials.token:
        _put(folder / "token", credentials.token + "\n")
        _put(folder / "username", (credentials.username or DEFAULT_USERNAME) + "\n")
        script = _ASKPASS.format(folder=shlex.quote(str(folder)))
        env["GIT_ASKPASS"] = str(_put(folder / "askpass", script, 0o700))
        # An empty helper clears the list: none may answer first, or store the token.
        options = ("-c", "credential.helper=")
    ssh = ["ssh", "-o", "BatchMode=yes"]
    if credentials.ssh_key:
        key = _put(folder / "key", credentials.ssh_key.rstrip("\n") + "\n")
        ssh += ["-i", str(key), "-o", "IdentitiesOnly=yes"]
    if credentials.known_hosts:
        hosts = _put(folder / "known_hosts", credentials.known_hosts.rstrip("\n") + "\n")
        ssh += ["-o", f"UserKnownHostsFile={hosts}", "-o", "StrictHostKeyChecking=yes"]
    if len(ssh) > 3:
        env["GIT_SSH_COMMAND"] = shlex.join(ssh)
        env["GIT_SSH_VARIANT"] = "ssh"
    return env, options


def _put(path: Path, text: str, mode: int = 0o600) -> Path:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(handle, "w") as file:
        file.write(text)
    return path
