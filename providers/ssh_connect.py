"""One SSH connection, over jump hosts if need be, each host's key verified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from providers.base import ProviderUnreachable
from providers.ssh_config import Hop, resolve
from providers.ssh_errors import connect_error
from providers.ssh_keys import Offer
from providers.ssh_target import Means, SshTarget

asyncssh.set_log_level("WARNING")  # it has a line for every channel

_KEEPALIVES = 3
"""How many may go unanswered before a connection counts as lost."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that was made; it ends with its jump hosts'."""

    last: asyncssh.SSHClientConnection
    hops: Sequence[asyncssh.SSHClientConnection]
    where: str
    """``user@host:port``, as resolved."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return any(hop.is_closed() for hop in self.hops)

    def close(self) -> None:
        """End it at once, and what runs over it."""
        for hop in reversed(self.hops):
            hop.abort()


async def connect(
    target: SshTarget,
    means: Means,
    *,
    seconds: float,
    keepalive: float,
    lost: Callable[[], None],
) -> Connection:
    """Log in.

    Args:
        target: where.
        means: what of this machine's user may be used.
        seconds: for each host on the way.
        keepalive: how often a silent host is asked whether it is still there, seconds.
        lost: called when the connection is over.

    Raises: ProviderUnreachable, its reason saying why.
    """
    way = await asyncio.to_thread(resolve, target, means)
    made: list[asyncssh.SSHClientConnection] = []
    via: Hop | None = None
    try:
        for hop in way:
            # Jump hosts are connected to by us, not by asyncssh, which would not verify them so.
            more = {"tunnel": made[-1] if made else None, "keepalive_interval": keepalive}
            made.append(await _log_in(hop, via, seconds, lost, more))
            via = hop
    except BaseException:
        for connection in reversed(made):
            connection.abort()
        raise
    return Connection(made[-1], made, str(way[-1]))


async def _log_in(
    hop: Hop,
    via: Hop | None,
    seconds: float,
    lost: Callable[[], None],
    more: Mapping[str, Any],
) -> asyncssh.SSHClientConnection:
    """Raises: ProviderUnreachable."""
    offer = Offer(hop.keys)
    client = _Client(offer, lost)
    try:
        async with asyncio.timeout(seconds):
            return await asyncssh.connect(
                hop.target.host,
                client_factory=lambda: client,
                known_hosts=hop.known.keys,
                client_keys=None,
                agent_path=None,
                password_auth=False,
                kbdint_auth=False,
                login_timeout=seconds + 1,
                keepalive_count_max=_KEEPALIVES,
                **hop.options,
                **more,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        raise client.judged(hop, error) from None
    except (OSError, asyncssh.Error, ValueError) as error:
        raise connect_error(hop, via, offer, error) from None
    finally:
        offer.close()


class _Client(asyncssh.SSHClient):
    """What asyncssh asks while it logs in."""

    def __init__(self, offer: Offer, lost: Callable[[], None]) -> None:
        self._offer = offer
        self._lost = lost
        self._shown: tuple[str, int, asyncssh.SSHKey] | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """A key that is not known: remembered for the message, never trusted."""
        self._shown = host, port, key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """The same for the signer of a host's certificate."""
        self._shown = host, port, key
        return False

    async def public_key_auth_requested(self) -> Any:
        """The next key to try."""
        return await self._offer.next()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._lost()

    def judged(self, hop: Hop, error: asyncssh.HostKeyNotVerifiable) -> ProviderUnreachable:
        """What to say of the host's key."""
        if self._shown is not None:
            return hop.known.judge(*self._shown)
        with suppress(ValueError):
            if "revoked" in error.reason:
                return hop.known.judge(hop.address, hop.port, None)
        return ProviderUnreachable(
            "HostKeyChanged", f"the host key of {hop} cannot be verified: {error.reason}"
        )
