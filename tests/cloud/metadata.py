"""Instances' metadata (IMDSv2), and the hypervisor's ear for what machines ask.

Each instance has its own base path: ``http://127.N.0.3:PORT/<instance>/latest/...``.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cloud.hypervisor import Machines

_TOKEN = "a-token-of-IMDSv2=="


class _Handler(BaseHTTPRequestHandler):
    machines: Machines

    def do_PUT(self) -> None:
        _, path = self._place()
        if path == "latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            self._say(200, _TOKEN)
        else:
            self._say(400, "")

    def do_GET(self) -> None:
        instance, path = self._place()
        if self.headers.get("X-aws-ec2-metadata-token") != _TOKEN:
            self._say(401, "")
            return
        notice = self.machines.notices.get(instance)
        if path == "latest/meta-data/spot/instance-action" and notice:
            self._say(200, json.dumps(notice))
        elif path == "latest/meta-data/instance-id":
            self._say(200, instance)
        else:
            self._say(404, "")

    def do_POST(self) -> None:
        instance, path = self._place()
        values = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(200, json.dumps(self.machines.asked(instance, path, values)))

    def _place(self) -> tuple[str, str]:
        instance, _, path = self.path.lstrip("/").partition("/")
        return instance, path

    def _say(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def metadata_server(address: tuple[str, int], machines: Machines) -> ThreadingHTTPServer:
    """A server that is to be run. Raises: OSError, if the address is taken."""
    return ThreadingHTTPServer(address, type("_Bound", (_Handler,), {"machines": machines}))
