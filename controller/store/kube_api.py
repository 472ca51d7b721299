"""Requests to a Kubernetes API server as plain JSON, and what its refusals mean to a store.

The client library carries them (``kubernetes.aio``: connections, credentials, their renewal);
its model classes stay out of the way, since objects are plain dicts here.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from kubernetes.aio import client as kube
from kubernetes.aio import config as kube_config

from controller.resources import kinds
from controller.store.base import Key, Resource, StoreError, StoreUnavailable
from controller.store.kube_rest import BUSY, CHUNK, JSON_PATCH, NotServed, path_of, refusal

FIELD_MANAGER = "codeswarm-controller"
REQUEST_SECONDS = 30.0
"""For one request, its answer included."""
CONNECTIONS = 32
ATTEMPTS = 5
FIRST_PAUSE, LAST_PAUSE = 0.25, 5.0

Query = Sequence[tuple[str, str]]
Check = Callable[[], None]
"""Asked before each attempt of a write; raises, if it must not be done any more."""


def _always() -> None:
    """Nothing is in the way."""


_CHECK: ContextVar[Check] = ContextVar("check", default=_always)


class _LastMoment(aiohttp.ClientRequest):
    """Asks once more when the first byte is about to go out.

    Until then a request waits for a connection and for its turn, and the process may sleep.
    """

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        try:
            _CHECK.get()()
        except StoreError as error:
            if conn.protocol is not None:
                conn.protocol.set_exception(aiohttp.ClientConnectionError(str(error)))
            return
        await super().write_bytes(writer, conn, content_length)


class _Request(NamedTuple):
    method: str
    path: str
    body: Any
    query: Query
    content_type: str
    seconds: float


class Api:
    """One connection pool to one API server."""

    def __init__(self, client: kube.ApiClient, namespace: str = "") -> None:
        self._client = client
        self.namespace = namespace
        """That of the kubeconfig's context; empty if it names none."""
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """Answered requests by method, plural and HTTP status (0: none came)."""

    @property
    def configuration(self) -> kube.Configuration:
        """Where the server is, and who we are to it."""
        configuration: kube.Configuration = self._client.configuration
        return configuration

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def session(self, response_class: type[aiohttp.ClientResponse]) -> aiohttp.ClientSession:
        """Another HTTP session to the same server, as the same user, for long streams."""
        context = self._client.rest_client.ssl_context
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            response_class=response_class,
            middlewares=(self._authorized,),
            proxy=self.configuration.proxy,
            read_bufsize=2**21,
        )

    async def _authorized(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Tokens change while a session lives: each request takes the present one."""
        settings: dict[str, Any] = dict(await self.configuration.auth_settings())
        bearer = settings.get("BearerToken")
        if bearer:
            request.headers[bearer["key"]] = bearer["value"]
        return await handler(request)

    # --- verbs -------------------------------------------------------------------------------

    async def get(self, key: Key) -> Resource:
        """One object. Raises: NotFound, Forbidden, StoreUnavailable."""
        return await self.request("GET", path_of(key.kind, key.namespace, key.name))

    async def list(self, kind: str, namespace: str | None) -> AsyncIterator[Resource]:
        """All objects of a kind, a page at a time. Raises: as ``get``."""
        path, token = path_of(kind, namespace), ""
        kind_of = kinds.get(kind)
        while True:
            query = [("limit", str(CHUNK)), *([("continue", token)] if token else [])]
            page = await self.request("GET", path, query=query)
            for item in page.get("items") or ():
                # Items of a list do not say what they are.
                yield {"apiVersion": kind_of.api_version, "kind": kind, **item}
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def create(self, obj: Resource, check: Check = _always) -> Resource:
        """A new object. Raises: AlreadyExists, Forbidden, StoreError, StoreUnavailable."""
        path = path_of(obj["kind"], obj["metadata"]["namespace"])
        return await self.request("POST", path, body=obj, query=_MANAGED, check=check)

    async def patch(
        self,
        key: Key,
        operations: Sequence[Any],
        subresource: str = "",
        check: Check = _always,
    ) -> Resource:
        """Change an object by a JSON patch that says which version it is for.

        Raises: Conflict, NotFound, Forbidden, StoreError, StoreUnavailable.
        """
        path = path_of(key.kind, key.namespace, key.name, subresource)
        return await self.request(
            "PATCH",
            path,
            body=list(operations),
            query=_MANAGED,
            content_type=JSON_PATCH,
            check=check,
        )

    async def delete(self, key: Key, uid: str | None, check: Check = _always) -> Resource:
        """Delete an object, if it is still this one. Raises: NotFound, Conflict, ..."""
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        path = path_of(key.kind, key.namespace, key.name)
        return await self.request("DELETE", path, body=body, check=check)

    # --- one request ----------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Query = (),
        content_type: str = "application/json",
        seconds: float = REQUEST_SECONDS,
        check: Check = _always,
    ) -> Resource:
        """One request and its answer; again, after a pause, where that cannot do it twice.

        A creation whose outcome is not known is not repeated: its caller looks first. All other
        writes name the version or the uid that they are for, so the second one is refused.

        Args:
            seconds: for each attempt.
            check: asked before each attempt.

        Raises: NotFound, AlreadyExists, Conflict, Forbidden, StoreError (refused as invalid),
            StoreUnavailable (no answer, or the server is busy and stays so); what ``check`` does.
        """
        request = _Request(method, path, body, tuple(query), content_type, seconds)
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            check()
            try:
                status, data, after = await self._once(request, check)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._count(method, path, 0)
                sent = not isinstance(error, aiohttp.ClientConnectorError)
                if attempt == ATTEMPTS or (sent and method == "POST"):
                    raise StoreUnavailable(_unreachable(error)) from error
                after = 0.0
            else:
                self._count(method, path, status)
                if status < 400:
                    return data
                known = status == 429 or method != "POST"
                if status not in BUSY or attempt == ATTEMPTS or not known:
                    raise _refusal(status, data, path)
            await asyncio.sleep(max(after, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, LAST_PAUSE)
        raise AssertionError("unreachable")

    async def _once(self, request: _Request, check: Check) -> tuple[int, Resource, float]:
        """Status, answer, and the seconds that the server asks us to wait."""
        method, path, body = request.method, request.path, request.body
        headers = {
            **self._client.default_headers,
            "Accept": "application/json",
            "Content-Type": request.content_type,
        }
        # Not by ``param_serialize``: it walks through every body, which here is plain JSON already.
        query: list[tuple[str, str]] = list(request.query)
        await self._client.update_params_for_auth(
            headers, query, ["BearerToken"], path, method, body
        )
        url = f"{self.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        asked = _CHECK.set(check)
        try:
            answer = await self._client.call_api(
                method, url, headers, body, _request_timeout=request.seconds
            )
        finally:
            _CHECK.reset(asked)
        raw = await answer.read()
        try:
            data = json.loads(raw) if raw else {}
        except ValueError:
            data = {"message": raw[:500].decode("utf-8", "replace").strip()}
        wait = str(answer.headers.get("Retry-After") or "")
        after = float(wait) if wait.isascii() and wait.isdigit() else 0.0
        return answer.status, data if isinstance(data, dict) else {}, min(after, 30.0)

    def _count(self, method: str, path: str, status: int) -> None:
        self.requests[method, _plural_of(path), status] += 1


_MANAGED: Query = (("fieldManager", FIELD_MANAGER),)


async def connect(
    kubeconfig: str | None = None, context: str | None = None, *, in_cluster: bool = False
) -> Api:
    """Connect as the pod's ServiceAccount, or as a kubeconfig says.

    Raises: StoreUnavailable, with what is wrong with the configuration.
    """
    configuration = kube.Configuration()
    configuration.connection_pool_maxsize = CONNECTIONS
    # The environment is asked once, not in two threads for every request.
    configuration.client_session_kwargs = {"request_class": _LastMoment, "trust_env": False}
    namespace = ""
    try:
        if in_cluster:
            kube_config.load_incluster_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
            namespace = _namespace_of(kubeconfig, context)
    except (kube_config.ConfigException, OSError) as error:
        where = "the pod's ServiceAccount" if in_cluster else (kubeconfig or "the kubeconfig")
        raise StoreUnavailable(f"{where} cannot be used: {error}") from error
    if not configuration.proxy:
        configuration.proxy = _proxy_of(configuration.host)
    return Api(kube.ApiClient(configuration), namespace)


def _proxy_of(server: str) -> str | None:
    """What the environment says (``HTTPS_PROXY``, ``NO_PROXY``, ...) of a server's URL."""
    try:
        url = urlsplit(server)
        return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)
    except ValueError:
        return None


def _namespace_of(kubeconfig: str | None, context: str | None) -> str:
    contexts, active = kube_config.list_kube_config_contexts(config_file=kubeconfig)
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "")


def _refusal(status: int, data: Resource, path: str) -> StoreError:
    error = refusal(status, data)
    if isinstance(error, NotServed):
        return NotServed(f"the API server does not serve {_plural_of(path)}: {error}")
    return error


def _plural_of(path: str) -> str:
    parts = path.split("/")
    if "namespaces" in parts:
        parts = parts[parts.index("namespaces") :]
        return parts[2] if len(parts) > 2 else parts[0]
    return parts[-1]


def _unreachable(error: BaseException) -> str:
    return f"the API server does not answer: {error or type(error).__name__}"
