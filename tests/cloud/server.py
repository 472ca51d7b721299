"""The test cloud's process: ``python -m tests.cloud <folder>``.

It listens on one port of three loopback addresses of a network of its own: EC2's API
(``127.N.0.1``), control (``127.N.0.2``: POST of ``{"call", "with"}``) and the instances' metadata
(``127.N.0.3``).  Machines listen on the same port of theirs.  It prints one line of JSON when it
is ready, and ends when its standard input does.  With ``--machines`` instances have machines.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tests.cloud.ec2 import World, dumps
from tests.cloud.faults import Front, Lost
from tests.cloud.hypervisor import Machines
from tests.cloud.metadata import metadata_server
from tests.cloud.rules import patch

_NETWORKS = range(60, 250)
_PORTS = range(20000, 32000)
"""Below the range from which systems give ports to whoever asks for any."""


class _Quiet(WSGIRequestHandler):
    """Cuts connections where it is told to, and logs nothing."""

    open: set[socket.socket]

    def setup(self) -> None:
        super().setup()
        self.open.add(self.connection)

    def finish(self) -> None:
        self.open.discard(self.connection)
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except Lost:
            pass

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            print(message % args if args else message, file=sys.stderr)


class Server:
    """All of it.

    Args:
        path: folder for its files.
        public_key: of the key pair ``codeswarm``.
        machines: whether there are machines behind the instances.
    """

    def __init__(self, path: Path, public_key: str, *, machines: bool = False) -> None:
        self.path = path
        self.network, self.port, self._control = _listen(_Control)
        self.world = World(self.network)
        patch(self.world)
        self.front = Front(DomainDispatcherApplication(create_backend_app), self.world)
        self.machines: Machines | None = None
        self._metadata: ThreadingHTTPServer | None = None
        if machines:
            self._with_machines()
        self._key = public_key
        self._open: set[socket.socket] = set()
        self._api: BaseWSGIServer | None = None
        self.seed("us-east-1")
        self.up()
        self._control.owner = self  # type: ignore[attr-defined]
        threading.Thread(target=self._control.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """Of the API."""
        return f"127.{self.network}.0.1"

    def _with_machines(self) -> None:
        address = (f"127.{self.network}.0.3", self.port)
        url = f"http://{address[0]}:{address[1]}"
        self.machines = Machines(self.path, self.world, self.port, url)
        self.world.hypervisor = self.machines
        self._metadata = metadata_server(address, self.machines)
        threading.Thread(target=self._metadata.serve_forever, daemon=True).start()

    # --- what control may call -------------------------------------------------------------------

    def seed(self, region: str) -> None:
        """Make what manifests name in a region."""
        with self.world.lock:
            self.world.seed(region, self._key)

    def up(self) -> None:
        """Listen."""
        if self._api is None:
            handler = type("_Handler", (_Quiet,), {"open": self._open})
            self._api = make_server(
                self.address, self.port, self.front, threaded=True, request_handler=handler
            )
            threading.Thread(target=self._api.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Do not listen any more, and cut all connections."""
        if self._api is not None:
            self._api.shutdown()
            self._api.server_close()
            self._api = None
            for connection in list(self._open):
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def set(self, **knobs: Any) -> None:
        """Change how long things take."""
        self.world.knobs.change(knobs)

    def calm(self) -> None:
        """Let things take as long as at first."""
        self.world.calm()
        if self.machines is not None:
            self.machines.block_nfs(False)

    def counts(self) -> dict[str, int]:
        """How many requests came, by action."""
        return dict(self.front.counts)

    def requests(self, action: str = "") -> list[dict[str, Any]]:
        """The last requests, of one action or all."""
        with self.world.lock:
            return [r for r in self.front.kept if not action or r["action"] == action]

    def reset(self) -> None:
        """Begin to count anew, and let everything go well."""
        self.front.mend()
        self.front.expired = False
        self.front.counts.clear()
        self.front.kept.clear()

    def expire(self, on: bool) -> None:
        """Refuse all credentials as expired, or take them again."""
        self.front.expired = on

    def quota(self, code: str, value: float) -> None:
        """Set a quota of Service Quotas."""
        self.front.quotas[code] = value

    def call(self, name: str, values: dict[str, Any]) -> Any:
        """Do what control asks for."""
        for owner in (self, self.front, self.world, self.machines):
            method = getattr(owner, name, None)
            if callable(method) and not name.startswith("_"):
                return method(**values)
        raise KeyError(name)

    def close(self) -> None:
        """End it all."""
        self.down()
        self.world.close()
        if self.machines is not None:
            self.machines.close()


class _Control(BaseHTTPRequestHandler):
    """One call a request."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            answer = {"answer": self.server.owner.call(asked["call"], asked["with"])}  # type: ignore[attr-defined]
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        body = dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def _listen(handler: type[BaseHTTPRequestHandler]) -> tuple[int, int, ThreadingHTTPServer]:
    """A network and a port that nobody else has: who listens on its control address owns it."""
    while True:
        network, port = random.choice(_NETWORKS), random.choice(_PORTS)
        try:
            server = ThreadingHTTPServer((f"127.{network}.0.2", port), handler)
        except OSError:
            continue
        return network, port, server


def main(path: Path, *options: str) -> None:
    """Serve until standard input ends."""
    machines = "--machines" in options
    server = Server(path, (path / "key.pub").read_text(), machines=machines)
    told = {"network": server.network, "port": server.port}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    server.close()
    sys.stderr.flush()
    os._exit(0)  # quicker than all of moto's modules are taken down
