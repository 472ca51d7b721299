"""What went wrong with a connection, as a reason and in words that say what to do."""

from __future__ import annotations

import errno
import re
import socket

import asyncssh

from providers.base import ProviderUnreachable
from providers.ssh_config import Hop
from providers.ssh_keys import Offer

LASTING = frozenset(
    {
        "AuthenticationFailed",
        "HostKeyChanged",
        "HostKeyUnknown",
        "HostNotFound",
        "KeyUnusable",
        "NotInThisHome",
        "SshConfigInvalid",
    }
)
"""Reasons that are not gone a second later: somebody has to do something."""

_ERRNO = re.compile(r"\[Errno (\d+)\]")
_NUMBERS = {
    errno.ECONNREFUSED: "ConnectionRefused",
    errno.ETIMEDOUT: "ConnectTimedOut",
    errno.EHOSTUNREACH: "HostUnreachable",
    errno.ENETUNREACH: "HostUnreachable",
    errno.ENETDOWN: "HostUnreachable",
    errno.EHOSTDOWN: "HostUnreachable",
}


def connect_error(hop: Hop, via: Hop | None, offer: Offer, error: Exception) -> ProviderUnreachable:
    """Why a host could not be logged in to.

    Args:
        hop: the host.
        via: the jump host from which it was tried; None: from here.
        offer: the keys that were offered.
        error: what asyncssh or the system raised.
    """
    place = f"{hop}" + (f" (over {via})" if via else "")
    if isinstance(error, TimeoutError):
        return ProviderUnreachable(
            "ConnectTimedOut",
            f"{place} does not answer in time: is the host up, the port right, and no firewall in "
            "between?",
        )
    if isinstance(error, socket.gaierror):
        return ProviderUnreachable(
            "HostNotFound",
            f"there is no host {hop.address} ({error.strerror}): check loginHost, and HostName in "
            "~/.ssh/config",
        )
    if isinstance(error, asyncssh.ChannelOpenError):
        return _over_jump(place, hop, error)
    if isinstance(error, asyncssh.PermissionDenied) or _too_many(error):
        return _refused(place, hop, offer, error)
    if isinstance(error, OSError):
        return _system(place, error)
    return ProviderUnreachable(
        "ConnectionLost",
        f"{place} ended the connection before the login: {_words(error)}. Is that an SSH server, "
        "and not overloaded (MaxStartups)?",
    )


def _too_many(error: Exception) -> bool:
    return isinstance(error, asyncssh.DisconnectError) and "uthentication fail" in error.reason


def _refused(place: str, hop: Hop, offer: Offer, error: Exception) -> ProviderUnreachable:
    if hop.keys.needed is not None and not offer.offered:
        return ProviderUnreachable(
            "KeyUnusable",
            f"the key file {hop.keys.needed} (identityFile) is protected by a passphrase, and the "
            f"agent does not have it: `ssh-add {hop.keys.needed}`",
        )
    tried = ", ".join([*hop.keys.names, *([offer.agent_words] if offer.agent_words else [])])
    text = f"{place} lets us in with none of our keys ({tried or 'there are none'})"
    if hop.keys.skipped:
        text += f"; not usable: {', '.join(hop.keys.skipped)}"
    if _too_many(error):
        text += ": too many were tried; name the right one with identityFile"
    else:
        text += (
            f". Its public part must be in ~/.ssh/authorized_keys of {hop.user} there (try `ssh -p "
            f"{hop.port} {hop.user}@{hop.address}`); passwords and one-time codes cannot be used"
        )
    return ProviderUnreachable("AuthenticationFailed", text)


def _over_jump(place: str, hop: Hop, error: asyncssh.ChannelOpenError) -> ProviderUnreachable:
    words = error.reason.lower()
    if "not known" in words or "resolve" in words or "no address" in words:
        return ProviderUnreachable("HostNotFound", f"{place}: the jump host does not know the host")
    if "timed out" in words:
        return ProviderUnreachable("ConnectTimedOut", f"{place} does not answer the jump host")
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return ProviderUnreachable(
            "ConnectionRefused",
            f"{place}: the jump host forwards no connections (AllowTcpForwarding): "
            f"{_plain(error.reason)}",
        )
    return ProviderUnreachable(
        "ConnectionRefused", f"the jump host cannot connect to {place}: {_plain(error.reason)}"
    )


def _system(place: str, error: OSError) -> ProviderUnreachable:
    numbers = [error.errno] if error.errno else [int(n) for n in _ERRNO.findall(str(error))]
    reason = next((_NUMBERS[n] for n in numbers if n in _NUMBERS), "ConnectionLost")
    if reason == "ConnectionRefused":
        text = f"nobody listens at {place}: is sshd running there, and the port right?"
    elif reason == "HostUnreachable":
        text = f"no way leads to {place} ({_words(error)}): is the network, or the VPN, up?"
    elif reason == "ConnectTimedOut":
        text = f"{place} does not answer: is the host up, and no firewall in between?"
    else:
        text = f"the connection to {place} was not made: {_words(error)}"
    return ProviderUnreachable(reason, text)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _plain(str(getattr(error, "reason", "") or str(error) or type(error).__name__))


def _plain(text: str) -> str:
    """A short line of what another host said."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())[:300]
