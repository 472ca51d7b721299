"""What the scripted model servers have in common: HTTP on loopback, server-sent events, a record of
who asked what."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.agents.script import Reply

HOLD_SECONDS = 60.0


@dataclass
class Request:
    """One request that a server got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class Cut(Exception):
    """The answer ends here, unfinished."""


class ModelServer(ABC):
    """A server in threads of this process; a context manager."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._held = 0
        self._releases = 0
        self._closing = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:<port>``."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()

    def release(self) -> None:
        """Let the answers that are held go on; waits until there is one."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._held > 0, HOLD_SECONDS), "nothing is held"
            self._held = 0
            self._releases += 1
            self._changed.notify_all()

    def hold(self) -> None:
        """Wait for ``release``; the answer is cut if the server is being closed."""
        with self._changed:
            before = self._releases
            self._held += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self._releases > before, HOLD_SECONDS)
            if self._closing:
                raise Cut

    def asked(self) -> list[Request]:
        """The requests for an answer so far."""
        with self._lock:
            return [one for one in self.requests if one.method == "POST" and self.answers(one)]

    def note(self, request: Request) -> None:
        """Keep a request."""
        with self._lock:
            self.requests.append(request)

    @abstractmethod
    def answers(self, request: Request) -> bool:
        """Whether this is a request for an answer of the model."""

    @abstractmethod
    def reply(self, request: Request) -> Reply:
        """What the script says to a request."""

    @abstractmethod
    def events(self, request: Request, reply: Reply) -> Iterator[tuple[str, dict[str, Any]]]:
        """The answer's events: name and data.

        Raises: Cut.
        """

    @abstractmethod
    def failure(self, status: int, reply: Reply) -> dict[str, Any]:
        """The body of an answer that is an error."""


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.note(Request("GET", self.path, dict(self.headers)))
            self._json(404, {"error": {"message": "there is nothing here"}})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                body = json.loads(data)
            except ValueError:
                body = {}
            request = Request("POST", self.path, dict(self.headers), body)
            server.note(request)
            if not server.answers(request):
                self._json(404, {"error": {"message": "there is nothing here"}})
                return
            reply = server.reply(request)
            if "fail" in reply:
                status = int(reply["fail"])
                self._json(status, server.failure(status, reply), reply.get("headers", {}))
                return
            with suppress(Cut, OSError):
                self._stream(request, reply)

        def _stream(self, request: Request, reply: Reply) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for name, data in server.events(request, reply):
                self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
                self.wfile.flush()

        def _json(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
