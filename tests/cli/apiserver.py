"""A stand-in for an API server: answers as a test says, and notes what was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: an object, bytes, or lines that come one after the other."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def status(code: int, message: str, reason: str = "", **details: Any) -> Reply:
    """A refusal as an API server writes it."""
    body = {"kind": "Status", "message": message, "reason": reason, "code": code}
    return Reply({**body, "details": details} if details else body, code)


Answer = Callable[[Asked], Reply]


class ApiServer:
    """Serves on this machine alone while it is entered."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.asked: list[Asked] = []
        self._answer = answer
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, folder: Path, *, token: str = "secret", namespace: str = "") -> Path:
        """A kubeconfig that leads here."""
        user = {"token": token} if token else {}
        context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
        path = folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": user}],
                    "contexts": [{"name": "test", "context": context}],
                    "current-context": "test",
                }
            )
        )
        return path

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                parts = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                query = {k: ",".join(v) for k, v in parse_qs(parts.query).items()}
                asked = Asked(
                    self.command,
                    parts.path,
                    query,
                    {k.lower(): v for k, v in self.headers.items()},
                    body,
                )
                outer.asked.append(asked)
                self._send(outer._answer(asked))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

            def _send(self, reply: Reply) -> None:
                self.send_response_only(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if isinstance(reply.body, Iterator):
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self._stream(reply.body)
                    return
                raw = (
                    reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                )
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def _stream(self, lines: Iterator[Any]) -> None:
                try:
                    for line in lines:
                        raw = json.dumps(line).encode() + b"\n"
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                    self.wfile.write(b"0\r\n\r\n")
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        return Handler
