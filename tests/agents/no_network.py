"""A proxy that records whom an agent wants to reach, and lets it reach nobody."""

from __future__ import annotations

import socketserver
import threading
from contextlib import suppress

TIMEOUT = 5.0


class NoNetwork:
    """Every host but this machine's own, by way of the proxy variables; a context manager."""

    def __init__(self) -> None:
        self.wanted: list[str] = []
        """First lines of the requests: method and host or URL."""
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _handler(self.wanted))
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def env(self) -> dict[str, str]:
        """Variables that make programs ask this proxy."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        own = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        return {**own, **{n: url for name in names for n in (name, name.lower())}}

    def __enter__(self) -> NoNetwork:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(wanted: list[str]) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        timeout = TIMEOUT

        def handle(self) -> None:
            with suppress(OSError):
                line = self.rfile.readline(4096).decode("latin-1").strip()
                if line:
                    wanted.append(line)
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    return Handler
