"""Keys to log in with: a key's text, key files, an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from providers.base import ProviderUnreachable

if TYPE_CHECKING:
    from providers.ssh_target import SshTarget

_DEFAULTS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
_ENCRYPTED = "it is protected by a passphrase"


@dataclass(frozen=True, slots=True)
class Keys:
    """What is offered to a host, and what could not be."""

    pairs: Sequence[asyncssh.SSHKeyPair]
    names: Sequence[str]
    """Where they are from, for messages."""
    agent: str | None
    """Socket of an agent whose keys are offered too; None: no agent."""
    only: frozenset[bytes] | None = None
    """Public keys of the agent's that count; None: all."""
    needed: str | None = None
    """A key file that can only be used through the agent."""
    skipped: Sequence[str] = field(default_factory=tuple)
    """Key files that cannot be used, and why."""


def read_keys(
    target: SshTarget,
    configured: Sequence[str],
    *,
    alone: bool,
    agent: str | None,
    defaults: bool = True,
) -> Keys:
    """The keys for a target.

    Args:
        target: its ``key`` or ``identity_file`` is offered alone.
        configured: ``IdentityFile`` of ``~/.ssh/config``, expanded.
        alone: ``IdentitiesOnly``: of an agent only the configured keys.
        agent: socket of the agent, if there is any.
        defaults: whether ``~/.ssh/id_ed25519`` and the like count where none is configured.

    Raises: ProviderUnreachable (``KeyUnusable``).
    """
    if target.key is not None:
        return Keys([_given(target.key)], ["sshKeyFrom"], None)
    if target.identity_file is not None:
        return _file(target.identity_file, agent)
    pairs: list[asyncssh.SSHKeyPair] = []
    names: list[str] = []
    skipped: list[str] = []
    public: set[bytes] = set()
    usual = [f"~/.ssh/{name}" for name in _DEFAULTS] if defaults else []
    for name in configured or usual:
        try:
            path = Path(name).expanduser()
            if path.is_file():
                public.update(_public(path))
                pairs.extend(_load(path))
                names.append(name)
        except (OSError, RuntimeError, ValueError) as error:
            skipped.append(f"{name} ({_words(error)})")
    only = frozenset(public) if alone and configured else None
    return Keys(pairs, names, agent, only, skipped=skipped)


def _given(text: str) -> asyncssh.SSHKeyPair:
    """Raises: ProviderUnreachable (``KeyUnusable``)."""
    try:
        return asyncssh.load_keypairs(text.strip().encode() + b"\n")[0]
    except (ValueError, IndexError) as error:
        right = (
            "use a key without a passphrase, made for this alone"
            if _words(error) == _ENCRYPTED
            else "right is the whole text of a private key file, from -----BEGIN to END-----"
        )
        raise ProviderUnreachable(
            "KeyUnusable",
            f"the key of sshKeyFrom cannot be used: {_words(error)}; {right}",
        ) from None


def _file(name: str, agent: str | None) -> Keys:
    """Raises: ProviderUnreachable (``KeyUnusable``)."""
    try:
        path = Path(name).expanduser()
        return Keys(_load(path), [name], None)
    except (OSError, RuntimeError, ValueError) as error:
        why = _words(error)
        if why == _ENCRYPTED and agent:
            return Keys([], [], agent, frozenset(_public(path)) or None, needed=name)
        if why == _ENCRYPTED:
            why += f" and no agent runs: start one and `ssh-add {name}`, or name another key"
        raise ProviderUnreachable(
            "KeyUnusable", f"the key file {name} (identityFile) cannot be used: {why}"
        ) from None


def _load(path: Path) -> list[asyncssh.SSHKeyPair]:
    """Raises: OSError, ValueError."""
    pairs = list(asyncssh.load_keypairs(str(path)))
    if not pairs:
        raise ValueError("it holds no private key")
    return pairs


def _public(path: Path) -> set[bytes]:
    """Public parts of a key file, also of an encrypted one."""
    found = set()
    for place in (path.with_name(f"{path.name}.pub"), path):
        try:
            found.add(asyncssh.read_public_key(str(place)).public_data)
        except (OSError, ValueError):
            continue
    return found


def _words(error: Exception) -> str:
    """Why a key cannot be used, in words for people."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file on the controller's machine"
    if isinstance(error, OSError):
        return str(error.strerror or error)
    if isinstance(error, RuntimeError):
        return "the controller has no home folder: give an absolute path"
    if isinstance(error, asyncssh.KeyEncryptionError) or "assphrase" in str(error):
        return _ENCRYPTED
    return "it holds no private key"  # never what it does hold


class Offer:
    """Hands out keys one by one while a host asks for more, and remembers which."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._left: list[asyncssh.SSHKeyPair] | None = None
        self._agent: asyncssh.SSHAgentClient | None = None
        self.offered = 0
        self.agent_words = ""
        """What came of the agent, for messages."""

    async def next(self) -> asyncssh.SSHKeyPair | None:
        """The next key to try; None: that were all."""
        if self._left is None:
            self._left = await self._collect()
        if not self._left:
            return None
        self.offered += 1
        return self._left.pop(0)

    def close(self) -> None:
        """Let go of the agent; signatures are made by now."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    async def _collect(self) -> list[asyncssh.SSHKeyPair]:
        mine = list(self._keys.pairs)
        if self._keys.agent is None:
            return mine
        try:
            self._agent = await asyncssh.connect_agent(self._keys.agent)
            theirs = list(await self._agent.get_keys(list(self._keys.only or ())))
        except (OSError, ValueError) as error:
            self.agent_words = f"the agent at {self._keys.agent} does not answer ({error})"
            return mine
        self.agent_words = f"{len(theirs)} of the agent"
        known = {pair.public_data for pair in mine}
        return mine + [pair for pair in theirs if pair.public_data not in known]
