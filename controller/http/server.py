"""uvicorn on the controller's own event loop: without its signal handlers, ticks and logs."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from controller.http.listen import BACKLOG

HEAD_SECONDS = 10.0
"""For the whole head of a request to come."""
IDLE_SECONDS = 15
"""Between two requests of a connection."""
STUCK_SECONDS = 60
"""For a client to take something of what was sent to it."""
STOP_SECONDS = 2
MAX_CONNECTIONS = 256
MAX_FROM_ONE = 96
"""From one address, all loopback ones together: nobody alone keeps probes from being answered."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's head."""


class Protocol(H11Protocol):
    """uvicorn's, but for clients that open connections and then do not go on."""

    _timer: asyncio.TimerHandle | None = None
    _origin = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self._origin = _origin(self.client)
        if not self._room():
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_SECONDS * 1000)
        self._expect_head()

    def _room(self) -> bool:
        same = sum(getattr(other, "_origin", "") == self._origin for other in self.connections)
        return len(self.connections) <= MAX_CONNECTIONS and same <= MAX_FROM_ONE

    def data_received(self, data: bytes) -> None:
        """Something of a request has come."""
        if not self._answering:
            self._expect_head()
        super().data_received(data)
        if self._answering:
            self._expect_nothing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._expect_nothing()
        super().connection_lost(exc)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _origin(client: tuple[str, int] | None) -> str:
    """The address of a client, whichever way it is written."""
    text = (client[0] if client else "").partition("%")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)
    address = address if mapped is None else mapped
    return "loopback" if address.is_loopback else str(address)


class Server:
    """One application on one listening socket.

    Args:
        app: what answers.
        sock: listens already; closed by ``stop``.
    """

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        options: dict[str, Any] = {
            "interface": "asgi3", "http": Protocol, "ws": "none", "lifespan": "off", "workers": 1,
            "log_config": None, "log_level": "critical", "access_log": False,
            "proxy_headers": False, "server_header": False, "date_header": False,
            "backlog": BACKLOG, "timeout_keep_alive": IDLE_SECONDS,
            "timeout_graceful_shutdown": STOP_SECONDS, "h11_max_incomplete_event_size": MAX_HEAD,
        }  # fmt: skip
        self._server = uvicorn.Server(uvicorn.Config(app, **options))
        self._sock = sock

    async def start(self) -> None:
        """Accept connections, in the running event loop."""
        # Not `serve`: it takes over signals, and wakes the process ten times a second.
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=[self._sock])

    async def stop(self) -> None:
        """End connections: idle ones now, the others when their answer is out, or after 2 s."""
        await self._server.shutdown(sockets=[self._sock])
