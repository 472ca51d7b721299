"""What an instance is told at its first boot: its SSH host key, as cloud-init's UserData.

The key pair is ours, so that the host is known before anybody logs in there.  Its private half is
the only secret in UserData, which every process on the instance can read: whoever runs there can
claim to be that instance, or one of the same launch, and nothing else.

Format: cloud-init's module "SSH" (``cloudinit/config/cc_ssh.py``): ``ssh_deletekeys`` removes the
image's own host keys, ``ssh_keys`` gives the ones to use; then no others are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from providers.ssh_target import SshTarget

LIMIT_BYTES = 16 * 1024
"""EC2's, before base64."""


@dataclass(frozen=True, slots=True)
class HostKey:
    """An Ed25519 key pair of a host."""

    public: str
    """``ssh-ed25519 AAAA...``, without a comment: what its tag says."""
    private: str = field(repr=False)
    """OpenSSH's format."""


def host_key() -> HostKey:
    """Make a key pair."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return HostKey(public.decode(), private.decode())


def public_half(private: str) -> str | None:
    """The public half of a private key in any format that SSH knows; None: it cannot be read
    without a passphrase, or at all."""
    import asyncssh

    try:
        key = asyncssh.import_private_key(private)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        return None
    return " ".join(key.export_public_key("openssh").decode().split()[:2])


def lets_in(target: SshTarget, *, files: bool) -> tuple[str, ...]:
    """Public keys of whoever logs in by the key that a manifest names; empty: it names none that
    can be read.

    Args:
        target: with the key's text or file.
        files: whether files of this machine count.
    """
    text = target.key
    if text is None and target.identity_file is not None and files:
        path = Path(target.identity_file)
        try:
            path = path.expanduser()
            beside = path.with_name(f"{path.name}.pub")
            if beside.exists():
                return (" ".join(beside.read_text("utf-8").split()[:2]),)
            text = path.read_text("utf-8")
        except (OSError, RuntimeError, ValueError):
            return ()
    half = public_half(text) if text else None
    return (half,) if half else ()


def user_data(key: HostKey, authorized: Sequence[str] = ()) -> str:
    """The cloud-config text.

    Args:
        key: the host's.
        authorized: public keys that are let in, where no key pair of EC2's says so.

    Raises: ValueError, if it is larger than EC2 takes.
    """
    lines = [
        "#cloud-config",
        "ssh_deletekeys: true",
        "ssh_keys:",
        "  ed25519_private: |",
        *(f"    {line}" for line in key.private.strip().splitlines()),
        f"  ed25519_public: {key.public}",
    ]
    if authorized:
        lines.append("ssh_authorized_keys:")
        lines += [f"  - {json.dumps(' '.join(one.split()))}" for one in authorized]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > LIMIT_BYTES:
        raise ValueError(f"UserData has {len(text.encode())} bytes, EC2 takes {LIMIT_BYTES}")
    return text
