"""Around every request: which host, method and size are taken, and what every answer carries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)

MAX_QUERY = 32 * 1024
METHODS = frozenset({"GET", "HEAD"})
_ALWAYS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


def loopback_hosts(port: int, *names: str) -> frozenset[str]:
    """What ``Host`` may say of a server that only this machine can reach.

    A page from elsewhere whose name was made to lead here (DNS rebinding) still sends its own.
    """
    found = {"127.0.0.1", "localhost", "[::1]", *names}
    return frozenset(f"{host}:{port}" for host in found) | (found if port == 80 else frozenset())


class Guard:
    """The outermost layer.

    Args:
        app: what answers.
        hosts: values of ``Host`` that are taken; None: all.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None = None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_ALWAYS]
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            status, reason, text, extra = refused
            await answer(sending, status, reason, text, extra)
            return
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            LOG.error("%s %r failed", scope["method"], scope["path"][:200], exc_info=error)
            if not started:
                await answer(sending, 500, "Internal", "it failed; the controller's log says why")

    def _refusal(self, scope: Scope) -> tuple[int, str, str, Mapping[str, str]] | None:
        if self._hosts is not None:
            given = [value for name, value in scope["headers"] if name == b"host"]
            if len(given) != 1 or given[0].decode("latin-1").lower() not in self._hosts:
                text = f"ask for {' or '.join(sorted(self._hosts))}"
                return 421, "WrongHost", text, {}
        if scope["method"] not in METHODS:
            return 405, "MethodNotAllowed", "only GET and HEAD", {"allow": "GET, HEAD"}
        if len(scope["query_string"]) > MAX_QUERY:
            return 414, "TooLong", f"the query is longer than {MAX_QUERY} bytes", {}
        return None


async def answer(
    send: Send, status: int, reason: str, message: str, extra: Mapping[str, str] | None = None
) -> None:
    """Send one small JSON answer about what is wrong."""
    body = problem(reason, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += _encoded((extra or {}).items())
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _encoded(items: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in items]


def problem(reason: str, message: str) -> bytes:
    """How every refusal reads."""
    body: dict[str, Any] = {"reason": reason, "message": message}
    return json.dumps(body).encode() + b"\n"
