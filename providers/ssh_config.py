"""How a login host is reached: ``~/.ssh/config``, jump hosts, keys, known hosts, put together.

asyncssh reads the configuration, and only the user's own: what stands in ``/etc/ssh`` often names
algorithms that OpenSSH alone knows.  Of what it says, host, port, user, keys, jump hosts, proxy
command, known hosts and algorithms count; forwarding does not.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import asyncssh

from providers.base import ProviderUnreachable
from providers.ssh_hostkeys import KnownHosts, read_known_hosts
from providers.ssh_keys import Keys, read_keys
from providers.ssh_target import Means, SshTarget

_LONGEST = 8
"""Jump hosts on one way."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One host on the way, ready to be connected to."""

    target: SshTarget
    address: str
    port: int
    user: str
    options: Mapping[str, Any]
    """For ``asyncssh.connect``."""
    keys: Keys
    known: KnownHosts

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{host}:{self.port}"


def resolve(target: SshTarget, means: Means) -> list[Hop]:
    """The hosts on the way to a target, nearest first, the target last. Reads files.

    Raises: ProviderUnreachable (``SshConfigInvalid``, ``KeyUnusable``, ``NotInThisHome``).
    """
    _be_somebody()
    return _way(target, means, _LONGEST)


def _way(target: SshTarget, means: Means, longest: int) -> list[Hop]:
    hop, jump = _hop(target, means)
    try:
        jumps = target.jumps(target.jump_host or jump)
    except ValueError as error:
        raise _invalid(f"jump hosts of {target.host}: {error}") from None
    if jumps and target.jump_host is None:
        nearest, _ = _hop(jumps[0], means)
        if (nearest.address, nearest.port) == (hop.address, hop.port):
            jumps = []  # `Host *` with a ProxyJump concerns that jump host too
    if not jumps:
        return [hop]
    if longest <= 1:
        raise _invalid(f"the jump hosts of {target.host} are too many, or go round in circles")
    way = _way(jumps[0], means, longest - 1)
    return [*way, *(_hop(other, means)[0] for other in jumps[1:]), hop]


def _hop(target: SshTarget, means: Means) -> tuple[Hop, str | None]:
    """A host, and what the configuration says of jump hosts before it."""
    if not means.files:
        _refuse_files(target)
    asked: dict[str, Any] = {"config": [str(means.config)] if means.config else None}
    if target.port is not None:
        asked["port"] = target.port
    if target.user is not None:
        asked["username"] = target.user
    asked |= {"agent_forwarding": False, "x11_forwarding": False, "request_pty": False}
    try:
        found = asyncssh.SSHClientConnectionOptions(
            host=target.host, client_keys=None, agent_path=None, **asked
        )
    except (ValueError, OSError) as error:
        raise _invalid(_config_words(error, means)) from None
    if target.user is None and found.config.get("User") is None and not means.files:
        raise _invalid(f"no user is given for {target.host}: set `user` beside the host")
    config = found.config
    known = read_known_hosts(
        target,
        _texts(config.get("UserKnownHostsFile")),
        _texts(config.get("GlobalKnownHostsFile")),
        files=means.files,
    )
    if config.get("HostKeyAlgorithms") is None:
        name = cast("str", config.get("HostKeyAlias") or found.host)
        asked["server_host_key_algs"] = known.kinds(name, found.port)
    agent = config.get("IdentityAgent", means.agent) if means.files else None
    keys = read_keys(
        target,
        _texts(config.get("IdentityFile")) or (),
        alone=bool(config.get("IdentitiesOnly")),
        agent=_socket(agent),
        defaults=means.files,
    )
    hop = Hop(target, found.host, found.port, found.username, asked, keys, known)
    return hop, cast("str | None", config.get("ProxyJump"))


def _refuse_files(target: SshTarget) -> None:
    for name, value, instead in (
        ("identityFile", target.identity_file, "sshKeyFrom, a key of a Secret"),
        ("knownHostsFile", target.known_hosts_file, "knownHosts, the lines themselves"),
    ):
        if value is not None:
            raise ProviderUnreachable(
                "NotInThisHome", f"{name}: this home has no files of yours; use {instead}"
            )


def _texts(value: object) -> Sequence[str] | None:
    """A list of names in the configuration; None: it has none."""
    if value is None:
        return None
    return [value] if isinstance(value, str) else list(cast("Sequence[str]", value))


def _socket(value: object) -> str | None:
    """The socket of an agent as ``IdentityAgent`` or ``SSH_AUTH_SOCK`` name it."""
    if value == "SSH_AUTH_SOCK":
        value = os.environ.get("SSH_AUTH_SOCK")
    return str(Path(str(value)).expanduser()) if value else None


def _config_words(error: Exception, means: Means) -> str:
    text = str(error)
    if isinstance(error, UnicodeDecodeError):
        text = "it is not UTF-8"
    place = str(means.config)
    if place not in text:
        text = f"{place}: {text}"
    return (
        f"{text}. Codeswarm reads what asyncssh understands of it: put it right there, or "
        "give host, port, user and identityFile in the manifest and move that line away"
    )


def _invalid(message: str) -> ProviderUnreachable:
    return ProviderUnreachable("SshConfigInvalid", message)


def _be_somebody() -> None:
    """Give the process a name and a home where its user has none, as in some containers.

    asyncssh asks for both even where nothing depends on them, and fails without.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"
