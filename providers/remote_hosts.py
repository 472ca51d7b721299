"""The login hosts of a controller: swarms that share host, user and root share an attendant."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from providers.base import Sink
from providers.remote import RemoteHost
from providers.remote_setup import Place
from providers.shell import Shell


class RemoteHosts:
    """One ``RemoteHost`` for each shell and place, made when first asked for.

    Args:
        sink: where records go.
        make: makes a host; for tests.
    """

    def __init__(
        self, sink: Sink, *, make: Callable[[Shell, Place], RemoteHost] = RemoteHost
    ) -> None:
        self._sink = sink
        self._make = make
        self._hosts: dict[Hashable, RemoteHost] = {}

    def __iter__(self) -> Iterator[RemoteHost]:
        return iter(list(self._hosts.values()))

    def host(self, shell: Shell, place: Place) -> RemoteHost:
        """The host; connecting begins when it is made. Needs a running event loop."""
        key = (id(shell), place)
        host = self._hosts.get(key)
        if host is None:
            host = self._hosts[key] = self._make(shell, place)
            host.start(self._sink)
        return host

    async def discard(self, host: RemoteHost) -> None:
        """End the connection of a host that nobody needs any more."""
        for key, known in list(self._hosts.items()):
            if known is host:
                del self._hosts[key]
        await host.close()

    async def close(self) -> None:
        """End them all."""
        for host in self:
            await self.discard(host)
