"""Keys of hosts: which are known, and what to say of one that is not. Nothing is trusted unseen."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import get_default_certificate_algs, get_default_public_key_algs

from providers.base import ProviderUnreachable

if TYPE_CHECKING:
    from providers.ssh_target import SshTarget

_SYSTEM = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_USER = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """Keys that were read, and from where."""

    keys: asyncssh.SSHKnownHosts
    place: str
    """Where a key is to be added: a file, or ``knownHosts`` of the manifest."""
    file: bool
    """Whether that is a file."""

    def judge(self, host: str, port: int, key: asyncssh.SSHKey | None) -> ProviderUnreachable:
        """What to say of a host whose key could not be verified.

        Args:
            host, port: as known_hosts files name it.
            key: what it offered; None: nothing that could be read, or a revoked one.
        """
        name = host if port == 22 else f"[{host}]:{port}"
        known = self._of(name)
        if key is None:
            return ProviderUnreachable(
                "HostKeyChanged",
                f"the host key of {name} is marked as revoked in {self.place}: do not log in there "
                "before the host's administrators have told you why",
            )
        offered = f"{key.get_algorithm()} {key.get_fingerprint()}"
        scan = f"ssh-keyscan -t {_kind(key)} -p {port} {host}"
        add = f"`{scan} >> {self.place}`" if self.file else f"the output of `{scan}`"
        where = "" if self.file else f" to {self.place}"
        if not known:
            return ProviderUnreachable(
                "HostKeyUnknown",
                f"the host key of {name} is not in {self.place}: it offers {offered}. Ask the "
                f"host's administrators whether that is its fingerprint; if it is, add it{where}: "
                f"{add}",
            )
        before = ", ".join(f"{old.get_algorithm()} {old.get_fingerprint()}" for old in known)
        forget = f"`ssh-keygen -R '{name}' -f {self.place}`" if self.file else "the old lines"
        return ProviderUnreachable(
            "HostKeyChanged",
            f"the host key of {name} is not the one in {self.place}: it offers {offered}, known is "
            f"{before}. Either the host was installed anew, or somebody else answers in its place. "
            f"Ask its administrators; only if they confirm the new fingerprint, remove {forget} "
            f"and add it{where}: {add}",
        )

    def kinds(self, host: str, port: int) -> list[str]:
        """Algorithms of host keys to ask for: those of which a key is known come first.

        The others follow, so that a host whose key is of another kind now shows it.

        Args:
            host, port: as known_hosts files name it.
        """
        keys, signers, *_ = self.keys.match(host, "", port if port != 22 else None)
        kinds = list(get_default_certificate_algs()) if signers else []
        for key in keys:
            kinds += key.sig_algorithms
        kinds += get_default_public_key_algs()
        return list(dict.fromkeys(kind.decode() for kind in kinds))

    def _of(self, name: str) -> Sequence[asyncssh.SSHKey]:
        """Keys that are known under exactly this name."""
        found = self.keys.match(name, "", None)
        return [*found[0], *found[1]]


def _kind(key: asyncssh.SSHKey) -> str:
    """What ``ssh-keyscan -t`` calls a key's type."""
    name = key.get_algorithm()
    for kind in ("ed25519", "ecdsa", "rsa", "dss"):
        if kind in name:
            return kind
    return name


def read_known_hosts(
    target: SshTarget,
    users: Sequence[str] | None,
    systems: Sequence[str] | None,
    *,
    files: bool = True,
) -> KnownHosts:
    """The keys that count for a target.

    Args:
        target: its ``host_keys``, ``known_hosts`` and ``known_hosts_file`` come first, and alone.
        users, systems: ``UserKnownHostsFile`` and ``GlobalKnownHostsFile`` of ``~/.ssh/config``;
            None: it does not say.
        files: whether files of this machine count.

    Raises: ProviderUnreachable (``SshConfigInvalid``): ``known_hosts`` has a line that is none.
    """
    keys = asyncssh.SSHKnownHosts()
    if target.host_keys is not None:
        _take(keys, target.host_keys, "host_keys")
    if target.known_hosts is not None or not files:
        _take(keys, target.known_hosts or "", "knownHosts")
        return KnownHosts(keys, "knownHosts", file=False)
    if target.known_hosts_file is not None:
        _load(keys, target.known_hosts_file)
        return KnownHosts(keys, target.known_hosts_file, file=True)
    if target.host_keys is not None:
        return KnownHosts(keys, "knownHosts", file=False)
    mine = list(users if users is not None else _USER)
    for name in [*mine, *(systems if systems is not None else _SYSTEM)]:
        _load(keys, name)
    return KnownHosts(keys, mine[0] if mine else _USER[0], file=True)


def _take(keys: asyncssh.SSHKnownHosts, text: str, name: str) -> None:
    """Take in lines. Raises: ProviderUnreachable (``SshConfigInvalid``)."""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            keys.load(line)
        except ValueError:
            raise ProviderUnreachable(
                "SshConfigInvalid",
                f"{name}, line {number} is no line of a known_hosts file: right is what "
                "ssh-keyscan prints, host, type and key",
            ) from None


def _load(keys: asyncssh.SSHKnownHosts, name: str) -> None:
    """Take in a file, as ssh does: one that is not there, or a line that is none, says nothing."""
    try:
        path = Path(os.path.expandvars(name.replace("%d", "~"))).expanduser()
        text = path.read_text(encoding="utf-8", errors="replace")
    except (OSError, RuntimeError):
        return
    for line in text.splitlines():
        try:
            keys.load(line)
        except ValueError:
            continue
