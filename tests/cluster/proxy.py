"""A proxy between a controller and its API server that goes wrong on purpose.

The client speaks plain HTTP to a port on loopback; everything goes on to the real server, with
the client's own credentials.  What goes wrong is said by rules, or by ``down``, ``hush`` and
``expire``.  It runs in a thread, with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import yaml
from aiohttp import web

from tests.kube import Cluster, wait

T = TypeVar("T")
_SKIPPED = frozenset(
    {"host", "connection", "transfer-encoding", "content-length", "accept-encoding"}
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that has come."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes = b""

    @property
    def watch(self) -> bool:
        """Whether it is a stream."""
        return self.query.get("watch") in ("1", "true")

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.method not in ("GET", "HEAD")

    @property
    def listing(self) -> bool:
        """Whether it reads all objects of one of our kinds."""
        plural = self.path.rpartition("/")[2]
        return self.method == "GET" and not self.watch and self.ours and plural in PLURALS

    @property
    def ours(self) -> bool:
        """Whether it concerns a kind of ours."""
        return self.path.startswith("/apis/codeswarm.dev/v1alpha1")


PLURALS = frozenset({"tasks", "projects", "swarms", "swarmclasses", "approvals"})


@dataclass(frozen=True, slots=True)
class Answer:
    """Answered by the proxy; the server never hears of it."""

    status: int
    reason: str = ""
    after: str = ""
    """``Retry-After``, seconds."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is cut: before the request has gone on, or after it has taken effect."""

    forwarded: bool = False


@dataclass(slots=True)
class Late:
    """The answer is held back until it is released; ``arrived`` tells that there is one."""

    arrived: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


Fault = Answer | Cut | Late
Rule = Callable[[Call], Fault | None]


def chance(seed: int, faults: Mapping[Fault, float], of: Callable[[Call], bool]) -> Rule:
    """A rule that draws lots for each request that ``of`` chooses.

    Args:
        faults: how likely each is, from 0 to 1; in sum at most 1.
    """
    lots = random.Random(seed)

    def rule(call: Call) -> Fault | None:
        if not of(call):
            return None
        drawn = lots.random()
        for fault, share in faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    return rule


def once(fault: Fault, of: Callable[[Call], bool], times: int = 1) -> Rule:
    """A rule for the first requests that ``of`` chooses."""
    left = [times]

    def rule(call: Call) -> Fault | None:
        if not left[0] or not of(call):
            return None
        left[0] -= 1
        return fault

    return rule


class Proxy:
    """Between a controller and a cluster.

    Args:
        cluster: what lies behind it.
        folder: where the client's kubeconfig is written.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self.kubeconfig = folder / "proxy.kubeconfig"
        self.rules: list[Rule] = []
        self.calls: list[tuple[float, Call, str]] = []
        """When, what, and what came of it: a status, or a word for the fault."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._streams: dict[int, tuple[asyncio.Future[bytes], web.Request]] = {}
        self._requests: dict[int, web.Request] = {}
        self._hushed = False
        self._expired = False
        self.silenced = 0
        """Streams from which something was held back."""
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- what goes wrong -----------------------------------------------------------------------

    def down(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._run(self._down())

    def up(self) -> None:
        """Be there again."""
        self._run(self._listen())

    def hush(self) -> None:
        """Streams, present and new ones, say nothing any more; their connections stay."""
        self._hushed = True

    def speak(self) -> None:
        """New streams are heard again; what is silent now stays so."""
        self._hushed = False

    def cut_streams(self) -> None:
        """Cut the present streams; they may be begun anew."""
        self._run(self._cut_streams())

    def expire(self) -> None:
        """End all streams with 410 Gone, as new ones from an old version, until ``renew``."""
        self._expired = True
        self._run(self._end_all(_gone()))

    def renew(self) -> None:
        """Versions are kept for long enough again."""
        self._expired = False

    def say(self, code: int, message: str, plural: str) -> None:
        """End the present streams of a kind with an error."""
        self._run(self._end_all(_error(code, "InternalError", message), plural))

    def streams(self) -> int:
        """Streams that are open now."""
        return len(self._streams)

    def wait_calls(self, of: Callable[[Call], bool], what: str, since: float = 0.0) -> None:
        """Wait for a request that ``of`` chooses. Raises: Timeout."""
        wait(lambda: self.count(of, since), what)

    def count(self, of: Callable[[Call], bool], since: float = 0.0) -> int:
        """How many requests there were."""
        return sum(at >= since and of(call) for at, call, _ in list(self.calls))

    def came_of(self, of: Callable[[Call], bool], since: float = 0.0) -> list[str]:
        """What came of each of these requests."""
        return [end for at, call, end in list(self.calls) if at >= since and of(call)]

    # --- life ----------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**21,
        )
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        self._site: web.TCPSite | None = None
        await self._listen()
        self.kubeconfig.write_text(yaml.safe_dump(self._config()))

    def _config(self) -> dict[str, Any]:
        cluster = {"server": f"http://127.0.0.1:{self._port}"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": self._cluster.token}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "u"}}],
            "current-context": "proxy",
        }

    async def _listen(self) -> None:
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    async def _down(self) -> None:
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for request in list(self._requests.values()):
            _abort(request)
        server = self._runner.server
        for connection in list(server.connections) if server else ():
            if connection.transport is not None:
                connection.transport.abort()

    async def _close(self) -> None:
        await self._down()
        await self._runner.cleanup()
        await self._session.close()
        await asyncio.sleep(0.1)  # for connections to end

    async def _cut_streams(self) -> None:
        for _, request in list(self._streams.values()):
            _abort(request)

    async def _end_all(self, last: bytes, plural: str = "") -> None:
        for ending, request in list(self._streams.values()):
            if request.path.endswith(plural) and not ending.done():
                ending.set_result(last)

    # --- requests ------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Call(request.method, request.path, dict(request.query), body)
        self._requests[id(request)] = request
        try:
            return await self._carry(request, call)
        finally:
            del self._requests[id(request)]

    def _note(self, call: Call, end: str) -> None:
        self.calls.append((time.monotonic(), call, end))

    async def _carry(self, request: web.Request, call: Call) -> web.StreamResponse:
        fault = next((found for rule in list(self.rules) if (found := rule(call))), None)
        if isinstance(fault, Answer):
            self._note(call, f"{fault.status}")
            return _refuse(fault)
        if isinstance(fault, Cut) and not fault.forwarded:
            self._note(call, "cut before")
            return _abort(request)
        if call.watch:
            return await self._watch(request, call)
        try:
            status, headers, data = await self._forward(request, call)
        except (aiohttp.ClientError, OSError) as error:
            self._note(call, f"unreachable: {error}")
            return _abort(request)
        if isinstance(fault, Cut):
            self._note(call, f"cut after {status}")
            return _abort(request)
        if isinstance(fault, Late):
            fault.arrived.set()
            await asyncio.get_running_loop().run_in_executor(None, fault.release.wait, 30)
        self._note(call, f"{status}")
        return web.Response(status=status, headers=headers, body=data)

    def _upstream(self, request: web.Request) -> dict[str, Any]:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _SKIPPED}
        return {"headers": headers, "url": f"{self._cluster.server}{request.path_qs}"}

    async def _forward(self, request: web.Request, call: Call) -> tuple[int, dict[str, str], bytes]:
        arguments = self._upstream(request)
        data = call.body or None
        async with self._session.request(call.method, data=data, **arguments) as answer:
            return answer.status, _kept(answer.headers), await answer.read()

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        if self._expired:
            self._note(call, "410 in the stream")
            await stream.prepare(request)
            await stream.write(_gone())
            return stream
        async with self._session.get(**self._upstream(request)) as answer:
            self._note(call, f"{answer.status}")
            stream.set_status(answer.status)
            await stream.prepare(request)
            ending: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._streams[id(stream)] = ending, request
            try:
                await self._copy(answer.content, stream, ending)
            except (ConnectionError, aiohttp.ClientError):
                _abort(request)
            finally:
                del self._streams[id(stream)]
        return stream

    async def _copy(
        self,
        source: aiohttp.StreamReader,
        stream: web.StreamResponse,
        ending: asyncio.Future[bytes],
    ) -> None:
        """Pass a stream on until it ends, or until its end is ordered, with a last word."""
        hushed = False
        while True:
            reading = asyncio.ensure_future(source.readany())
            try:
                await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
            finally:
                reading.cancel()
            if ending.done():
                await stream.write(ending.result())
                return
            data = reading.result()
            if not data:
                return
            if self._hushed and not hushed:
                hushed = True
                self.silenced += 1
            if not hushed:
                await stream.write(data)


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=599)  # nobody hears it


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = ("content-type", "retry-after", "date", "content-encoding")
    return {k: v for k, v in headers.items() if k.lower() in wanted}


def _refuse(fault: Answer) -> web.Response:
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": fault.status,
        "reason": fault.reason,
        "message": f"the proxy says {fault.status}",
    }
    headers = {"Retry-After": fault.after} if fault.after else {}
    return web.json_response(status, status=fault.status, headers=headers)


def _gone() -> bytes:
    return _error(410, "Expired", "too old resource version")


def _error(code: int, reason: str, message: str) -> bytes:
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
