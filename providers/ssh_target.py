"""Which host to log in to over SSH, as whom, and by what its key is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_PARAMETERS = {
    "port": "port",
    "user": "user",
    "identityFile": "identity_file",
    "knownHostsFile": "known_hosts_file",
    "knownHosts": "known_hosts",
    "jumpHost": "jump_host",
}


@dataclass(frozen=True, slots=True)
class Means:
    """What of this machine's own user may be used to get in."""

    config: Path | None = None
    """The user's SSH configuration; None: there is none."""
    agent: str | None = None
    """Socket of the user's agent."""
    files: bool = False
    """Whether key files and known_hosts files of this machine count."""

    @classmethod
    def own(cls) -> Means:
        """All that the user who runs this has: the file home, where users are that user."""
        try:
            config: Path | None = Path.home() / ".ssh" / "config"
        except RuntimeError:
            config = None
        if config is not None and not os.access(config, os.R_OK):
            config = None
        return cls(config, os.environ.get("SSH_AUTH_SOCK") or None, files=True)

    @classmethod
    def none(cls) -> Means:
        """Only what the manifest itself gives: keys and files of this machine are others'."""
        return cls()


@dataclass(frozen=True, slots=True)
class SshTarget:
    """A login host. What is None is taken from ``~/.ssh/config``, else from SSH's own defaults."""

    host: str
    """An address, or a name from ``~/.ssh/config``."""
    port: int | None = None
    user: str | None = None
    identity_file: str | None = None
    """Private key file on this machine; may begin with ``~/``."""
    key: str | None = field(default=None, repr=False)
    """A private key's text; goes before ``identity_file``."""
    known_hosts_file: str | None = None
    known_hosts: str | None = field(default=None, repr=False)
    """Lines of a known_hosts file; go before ``known_hosts_file``."""
    host_keys: str | None = field(default=None, repr=False)
    """Lines of a known_hosts file that hold for this host alone, and for none that is jumped over:
    what is known of a machine that was made for us.  With them the files of ``~/.ssh`` do not
    count for it: they may know another machine that had its address before."""
    jump_host: str | None = None
    """``[user@]host[:port]``, several with commas, nearest first, as ``ssh -J`` takes them."""

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, Any], secrets: Mapping[str, str], *, host: str | None = None
    ) -> SshTarget:
        """The target that a provider block describes.

        Args:
            parameters: with ``port``, ``user``, ``identityFile``, ``knownHostsFile``,
                ``knownHosts``, ``jumpHost``, and without ``host`` ``loginHost``.
            secrets: ``sshKey`` is the text of a private key.
            host: instead of ``loginHost``.
        """
        known = {
            name: parameters[key]
            for key, name in _PARAMETERS.items()
            if parameters.get(key) is not None
        }
        return cls(host or parameters["loginHost"], key=secrets.get("sshKey") or None, **known)

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{user}{host}{port}"

    def jumps(self, hosts: str | None) -> list[SshTarget]:
        """The hosts that are jumped over, nearest first; let in and known by the same means.

        Args:
            hosts: as ``jump_host``.

        Raises: ValueError: it is not such a list.
        """
        return [
            replace(self, host=host, port=port, user=user, jump_host=None, host_keys=None)
            for user, host, port in map(_parse, (hosts or "").split(","))
            if host
        ]


def _parse(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port of ``[user@]host[:port]``. Raises: ValueError."""
    user, _, place = text.strip().rpartition("@")
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"{text!r} is not [user@]host[:port]")
        port = rest[1:]
    elif place.count(":") > 1:
        host, port = place, ""  # an IPv6 address
    else:
        host, _, port = place.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: {port!r} is no port")
    return user or None, host, int(port) if port else None
