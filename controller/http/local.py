"""HTTP of the file home: on this machine alone, with a token of its own for each start.

The socket listens from the start; the server behind it is imported and started when the first
client comes.  Who never asks pays nothing for it: no start-up time, no memory, no timer.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from controller.http.auth import OneToken
from controller.http.endpoint import Endpoint, EndpointFile
from controller.http.health import Health
from controller.http.listen import address_of, is_loopback, listen, port_of, url_of
from controller.http.monitor import Monitor
from controller.resources.settings import Http

if TYPE_CHECKING:
    from controller.http.service import Service

LOG = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"


class LocalHttp:
    """Never a reason for the controller not to run: what goes wrong here is only logged.

    Args:
        settings: where to listen.
        health: what the probes ask.
        monitor: the observer of the controller.
        transcripts: their folder.
        file: ``http.json`` of the home.
    """

    def __init__(
        self, settings: Http, health: Health, monitor: Monitor, transcripts: Path, file: Path
    ) -> None:
        self._settings = settings
        self._health = health
        self._monitor = monitor
        self._transcripts = transcripts
        self._file = EndpointFile(file)
        self._endpoint: Endpoint | None = None
        self._sock: socket.socket | None = None
        self._opening: asyncio.Task[None] | None = None
        self._service: Service | None = None

    def start(self) -> None:
        """Listen, and say where in ``http.json``."""
        self._file.remove()  # what a killed controller left
        if not self._settings.enabled:
            return
        try:
            self._sock = self._listen()
            self._sock.setblocking(False)
            self._endpoint = Endpoint(url_of(self._sock), secrets.token_urlsafe(32))
            self._file.write(self._endpoint)
        except OSError as error:
            LOG.warning("no HTTP: %s: %s", self._where(), _why(error))
            self._let_go()
            return
        LOG.info("HTTP on %s", self._endpoint.url)
        asyncio.get_running_loop().add_reader(self._sock, self._called)

    async def stop(self) -> None:
        """Listen no more."""
        if self._opening is not None:
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._service is not None:
            await self._service.stop()
            self._sock = None
        self._let_go()

    def _let_go(self) -> None:
        if self._endpoint is not None:
            self._file.remove(self._endpoint)
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _where(self) -> str:
        return f"{self._settings.host or DEFAULT_HOST} port {self._settings.port}"

    def _listen(self) -> socket.socket:
        """Where the settings say, else on any free port there. Raises: OSError."""
        host, port = self._settings.host or DEFAULT_HOST, self._settings.port
        try:
            return listen(host, port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            sock = listen(host, 0)
            LOG.warning("%s: %s; HTTP is on %s instead", self._where(), _why(error), url_of(sock))
            return sock

    def _called(self) -> None:
        """The first client waits in the backlog."""
        loop = asyncio.get_running_loop()
        assert self._sock is not None
        loop.remove_reader(self._sock)
        self._opening = loop.create_task(self._open(), name="http")

    async def _open(self) -> None:
        assert self._sock is not None and self._endpoint is not None
        try:
            # In a thread: the loop goes on meanwhile.
            module = await asyncio.to_thread(importlib.import_module, "controller.http.service")
            service: Service = module.Service(
                health=self._health,
                monitor=self._monitor,
                authenticator=OneToken(self._endpoint.token),
                transcripts=self._transcripts,
                hosts=self._hosts(self._sock),
            )
            await service.start(self._sock)
        except Exception as error:
            LOG.error("no HTTP: the server cannot be started", exc_info=error)
            self._let_go()
            return
        self._service = service

    @staticmethod
    def _hosts(sock: socket.socket) -> frozenset[str] | None:
        """Who opened it to a network reaches it by names that are not known here."""
        if not is_loopback(sock):
            return None
        from controller.http.guard import loopback_hosts

        return loopback_hosts(port_of(sock), address_of(sock))


def _why(error: OSError) -> str:
    """In the system's words; a name that cannot be looked up has a negative number."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
