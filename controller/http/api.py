"""``/api/v1``: transcripts and live events of one namespace, for who may read them.

Writing verbs would stand here too; the guard lets only GET and HEAD through so far.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from controller.http import inputs
from controller.http.auth import Authenticator, AuthError, AuthUnavailable, token_of
from controller.http.feed import Feed, Filter, Listener
from controller.http.files import MAX_LISTED, Opened, TranscriptFiles

SIZE_HEADER = "X-Codeswarm-Size"
CHUNK = 128 * 1024
HEARTBEAT_SECONDS = 15.0
ASK_AGAIN_SECONDS = 60.0
"""Between two looks whether a stream's reader still may read."""
RETRY_SECONDS = 5


class NotThere(Exception):
    """No such transcript."""


class Busy(Exception):
    """As many streams as there may be."""


class Api:
    """The routes below ``/api/v1``.

    Args:
        authenticator: decides who may read.
        files: the transcripts.
        feed: the live records.
    """

    def __init__(self, authenticator: Authenticator, files: TranscriptFiles, feed: Feed) -> None:
        self._authenticator = authenticator
        self._files = files
        self._feed = feed

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        base = "/api/v1/namespaces/{namespace}"
        return [
            Route(f"{base}/transcripts", self.transcripts),
            Route(f"{base}/transcripts/{{folder}}/{{job}}", self.transcript),
            Route(f"{base}/events", self.events),
        ]

    async def _enter(self, request: Request) -> tuple[str, str]:
        """Namespace and token of who may read there. Raises: BadInput, AuthError."""
        namespace = inputs.namespace(request.path_params["namespace"])
        token = token_of(request.headers)
        await self._authenticator.authorize(token, namespace)
        return namespace, token

    # --- transcripts ---------------------------------------------------------------------------

    async def transcripts(self, request: Request) -> Response:
        """The transcripts of a namespace, of one swarm, or of some jobs."""
        namespace, _ = await self._enter(request)
        given = inputs.query(request.query_params.multi_items(), "swarm", "job", several="job")
        swarm, jobs = inputs.swarm_of(given), inputs.jobs_of(given)
        found = await asyncio.to_thread(self._files.list, namespace, swarm=swarm, jobs=jobs)
        rows = [{"swarm": each.folder, "job": each.job, "size": each.size} for each in found]
        body: dict[str, Any] = {"transcripts": rows}
        if len(rows) >= MAX_LISTED:
            body["truncated"] = True
        return Response(json.dumps(body).encode() + b"\n", media_type="application/json")

    async def transcript(self, request: Request) -> Response:
        """A part of one transcript, byte for byte."""
        namespace, _ = await self._enter(request)
        folder = inputs.folder(request.path_params["folder"])
        job = inputs.job(request.path_params["job"])
        given = inputs.query(request.query_params.multi_items(), "offset", "limit")
        part = inputs.range_of(given)
        opened = await asyncio.to_thread(self._files.open, namespace, folder, job)
        if opened is None:
            raise NotThere(f"there is no transcript {folder}/{job}")
        length = max(0, min(part.limit, opened.size - part.offset))
        return StreamingResponse(
            _bytes(opened, part.offset, length if request.method == "GET" else 0),
            media_type="application/x-ndjson",
            headers={SIZE_HEADER: str(opened.size), "Content-Length": str(length)},
        )

    # --- events --------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Live records as Server-Sent Events, until the client goes or the controller stops."""
        namespace, token = await self._enter(request)
        given = inputs.query(request.query_params.multi_items(), "swarm", "task")
        wanted = Filter(namespace, inputs.swarm_of(given), inputs.task_of(given))
        if self._feed.full:
            raise Busy("too many streams of live events: try again later")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return StreamingResponse(
            self._stream(wanted, token),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def _stream(self, wanted: Filter, token: str) -> AsyncIterator[bytes]:
        # Only here, not before: what never begins to be read would never be left either.
        listener = self._feed.listen(wanted)
        try:
            yield b": these are live records\n\n"
            async for part in self._parts(listener, token):
                yield part
        finally:
            self._feed.leave(listener)

    async def _parts(self, listener: Listener, token: str) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            taken = await listener.take(HEARTBEAT_SECONDS)
            if loop.time() - asked >= ASK_AGAIN_SECONDS:
                if not await self._still(token, listener.wanted.namespace):
                    return
                asked = loop.time()
            if taken.missed:
                yield _event("missed", json.dumps({"count": taken.missed}).encode())
            if taken.texts:
                yield b"".join(_event("record", text) for text in taken.texts)
            elif not taken.missed:
                yield b": heartbeat\n\n"
            if taken.closed:
                return

    async def _still(self, token: str, namespace: str) -> bool:
        """Whether a reader still may read; one who cannot be asked about goes on."""
        try:
            await self._authenticator.authorize(token, namespace)
        except AuthUnavailable:
            return True
        except AuthError:
            return False
        return True


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


async def _bytes(opened: Opened, offset: int, length: int) -> AsyncIterator[bytes]:
    """A part of a file in pieces, so that a slow reader holds one of them, not all."""
    with opened.file:
        while length > 0:
            data = await asyncio.to_thread(opened.read, offset, min(CHUNK, length))
            if not data:
                return  # cut off meanwhile: the length that was promised is not kept
            offset, length = offset + len(data), length - len(data)
            yield data
