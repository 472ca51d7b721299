"""HTTP of one controller, put together: application, metrics, heartbeat and server."""

from __future__ import annotations

import socket
from pathlib import Path

from controller.http.app import make_app
from controller.http.auth import Authenticator
from controller.http.health import Health
from controller.http.metrics import Requests, make_registry
from controller.http.monitor import Monitor
from controller.http.server import Server


class Service:
    """Serves until it is stopped.

    Args:
        health: what the probes ask.
        monitor: the observer of the controller; ``monitor.watch(ctx)`` may come later.
        authenticator: who may read transcripts and events.
        transcripts: their folder.
        hosts: values of the ``Host`` header that are taken; None: all.
        api_requests: counts of requests to the API server, for metrics.
    """

    def __init__(
        self,
        *,
        health: Health,
        monitor: Monitor,
        authenticator: Authenticator,
        transcripts: Path,
        hosts: frozenset[str] | None = None,
        api_requests: Requests | None = None,
    ) -> None:
        self._health = health
        self._monitor = monitor
        self._app = make_app(
            health=health,
            registry=make_registry(monitor, health, api_requests),
            authenticator=authenticator,
            transcripts=transcripts,
            feed=monitor.feed,
            hosts=hosts,
        )
        self._server: Server | None = None

    async def start(self, sock: socket.socket) -> None:
        """Begin to serve on a socket that listens (see ``listen``), in the running event loop."""
        self._server = Server(self._app, sock)
        await self._server.start()
        self._health.heartbeat.start()

    async def stop(self) -> None:
        """End streams and connections, and close the socket."""
        self._monitor.feed.close()
        self._health.heartbeat.stop()
        if self._server is not None:
            await self._server.stop()
            self._server = None
