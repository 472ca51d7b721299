"""A git server over HTTP for trying things out: no credentials, whoever reaches it may push.

    serve.py --root /srv/git --port 8080 greeter

It makes the bare repositories that it is told the names of, and serves them by git's own program
for it, git-http-backend(1).
"""

from __future__ import annotations

import argparse
import http.server
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SERVED = re.compile(
    r"/(?P<name>[a-z0-9][a-z0-9-]{0,62})\.git/(info/refs|git-upload-pack|git-receive-pack)"
)
MAX_BODY = 1 << 30


class TooLarge(Exception):
    """A request has more than MAX_BODY bytes."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request: what it may ask for is checked, the rest is git's."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    root: Path

    def do_GET(self) -> None:
        """Which refs there are."""
        self._answer()

    def do_POST(self) -> None:
        """A fetch or a push."""
        self._answer()

    def _answer(self) -> None:
        self.close_connection = True
        parts = urlsplit(self.path)
        found = SERVED.fullmatch(parts.path)
        if found is None or not (self.root / f"{found['name']}.git").is_dir():
            self.send_error(404)
            return
        try:
            with tempfile.TemporaryFile() as body:
                self._receive(body)
                self._run(parts.path, parts.query, body)
        except TooLarge:
            self.send_error(413)
        except ValueError:
            self.send_error(400)

    def _receive(self, body: IO[bytes]) -> None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(32).split(b";")[0], 16):
                self._copy(size, body)
                self.rfile.readline(8)
            self.rfile.readline(8)
        else:
            self._copy(int(self.headers.get("Content-Length") or 0), body)
        body.seek(0)

    def _copy(self, size: int, body: IO[bytes]) -> None:
        if size < 0 or body.tell() + size > MAX_BODY:
            raise TooLarge
        while size:
            block = self.rfile.read(min(size, 1 << 16))
            if not block:
                raise ValueError("the request ends early")
            body.write(block)
            size -= len(block)

    def _run(self, path: str, query: str, body: IO[bytes]) -> None:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(self.root),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(os.fstat(body.fileno()).st_size),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        with subprocess.Popen(
            ["git", "http-backend"], stdin=body, stdout=subprocess.PIPE, env=environment
        ) as backend:
            assert backend.stdout is not None
            headers = []
            while line := backend.stdout.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers.append((name, value.strip()))
            status = dict(headers).get("Status", "200 OK" if headers else "500 no answer")
            self.send_response(int(status.split()[0]))
            for name, value in headers:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(backend.stdout, self.wfile)


def make(root: Path, name: str) -> None:
    """A bare repository that takes pushes, if it is not there yet."""
    if NAME.fullmatch(name) is None:
        raise SystemExit(f"{name!r} is no name for a repository: use a-z, 0-9 and '-'")
    path = root / f"{name}.git"
    if not (path / "HEAD").exists():
        subprocess.run(
            ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(path)], check=True
        )
    subprocess.run(["git", "-C", str(path), "config", "http.receivepack", "true"], check=True)


def main() -> None:
    """Make what is missing, then serve for ever."""
    parser = argparse.ArgumentParser(description="A git server over HTTP, for trying things out.")
    parser.add_argument("--root", type=Path, required=True, help="folder of the repositories")
    parser.add_argument("--host", default="", help="address to listen on (default: all)")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("names", nargs="+", help="repositories, without .git")
    options = parser.parse_args()
    Handler.root = options.root.resolve()
    for name in options.names:
        make(Handler.root, name)
    with http.server.ThreadingHTTPServer((options.host, options.port), Handler) as server:
        print(f"serving {Handler.root} on port {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
