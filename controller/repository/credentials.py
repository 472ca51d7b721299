"""How git proves who it is: an askpass helper or a key, in files of mode 0600, for one command.

Nothing secret is ever in a URL, on a command line or in the environment: the environment only
names the files.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFAULT_USERNAME = "x-access-token"
_ASKPASS = """\
#!/bin/sh
case "$1" in
[Uu]sername*) cat "${0%/*}/username" ;;
*) cat "${0%/*}/token" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The values behind ``repository.credentials``; what is not given is empty."""

    username: str = DEFAULT_USERNAME
    token: str = ""
    ssh_key: str = ""
    known_hosts: str = ""

    def __repr__(self) -> str:
        """Without the values, so that they get into no log."""
        return f"Credentials(username={self.username!r}, token=..., ssh_key=...)"


@contextmanager
def environment(credentials: Credentials | None) -> Iterator[Mapping[str, str]]:
    """The variables with which git uses these credentials; their files live as long."""
    if credentials is None or not (
        credentials.token or credentials.ssh_key or credentials.known_hosts
    ):
        yield {"GIT_SSH_COMMAND": _ssh(None, None)}
        return
    with tempfile.TemporaryDirectory(prefix="codeswarm-git-") as name:
        folder = Path(name)
        key = known_hosts = None
        variables: dict[str, str] = {}
        if credentials.token:
            _write(folder / "username", credentials.username or DEFAULT_USERNAME)
            _write(folder / "token", credentials.token)
            _write(folder / "askpass", _ASKPASS, 0o700)
            variables |= {
                "GIT_ASKPASS": str(folder / "askpass"),
                # The user's own helpers must neither answer for us nor store what we say.
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "credential.helper",
                "GIT_CONFIG_VALUE_0": "",
            }
        if credentials.ssh_key:
            key = folder / "key"
            _write(key, credentials.ssh_key.rstrip("\n") + "\n")
        if credentials.known_hosts:
            known_hosts = folder / "known_hosts"
            _write(known_hosts, credentials.known_hosts.rstrip("\n") + "\n")
        yield {**variables, "GIT_SSH_COMMAND": _ssh(key, known_hosts)}


def _ssh(key: Path | None, known_hosts: Path | None) -> str:
    words = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=15"]
    if key is not None:
        words += ["-i", str(key), "-oIdentitiesOnly=yes"]
    if known_hosts is not None:
        words += [f"-oUserKnownHostsFile={known_hosts}", "-oStrictHostKeyChecking=yes"]
    return shlex.join(words)


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
