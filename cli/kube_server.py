"""Requests of one process to an API server, as plain JSON, with a kubeconfig's credentials.

The client library carries them (addresses, certificates, tokens and the programs that make
tokens); its model classes stay out of the way, since objects are plain dicts here.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from controller.store.base import Resource, StoreError, StoreUnavailable
from controller.store.kube_rest import BUSY, refusal

if TYPE_CHECKING:
    from cli.kube_config import Place

FIELD_MANAGER = "codeswarm"
CONNECT_SECONDS, REQUEST_SECONDS = 10.0, 30.0
PATIENCE_SECONDS = 30.0
"""How long a server that answered before is tried again."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 3.0

Query = Sequence[tuple[str, str]]


class _Request(NamedTuple):
    method: str
    path: str
    query: Query
    body: Any
    headers: Mapping[str, str]
    seconds: float
    """Without a byte for so long, it has failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Resource:
        """The body as an object; what is none becomes its ``message``."""
        try:
            found = json.loads(self.body) if self.body else {}
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        return {"message": self.body[:500].decode("utf-8", "replace").strip()}

    @property
    def is_status(self) -> bool:
        """Whether the API server itself says so, not what stands behind it."""
        return self.json().get("kind") == "Status"


class Stream:
    """An answer without end, line by line; ``close`` may come from another thread."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        """Lines. Raises: StoreUnavailable when the connection breaks."""
        import urllib3

        try:
            yield from self._response
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
            # The last two: what a response says that was closed meanwhile.
            raise StoreUnavailable(f"the API server's answer broke off: {error}") from error
        finally:
            self._response.close()  # what is left of it must not be taken for the next answer

    def close(self) -> None:
        """Let a reader in another thread come to its end."""
        with suppress(ValueError, RuntimeError, OSError, AttributeError):
            self._response.shutdown()


class Server:
    """An API server as a context of a kubeconfig names it; connects at the first request."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._client: Any = None
        self._connecting = threading.Lock()
        self._answered = False

    @property
    def host(self) -> str:
        """Its address."""
        return str(self._api().configuration.host)

    def token(self) -> str:
        """The bearer token of the kubeconfig's user, renewed if need be; empty if it has none."""
        settings = self._api().configuration.auth_settings().get("BearerToken") or {}
        scheme, _, token = str(settings.get("value") or "").partition(" ")
        return token if scheme == "Bearer" else ""

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Query = (),
        content_type: str = "application/json",
    ) -> Resource:
        """One request and its answer.

        Raises: NotFound, AlreadyExists, Conflict, Forbidden, Rejected (not valid),
            StoreUnavailable (no answer, or the server is busy and stays so).
        """
        answer = self.send(method, path, body=body, query=query, content_type=content_type)
        if answer.status < 400:
            return answer.json()
        raise self.refused(answer)

    def refused(self, answer: Answer) -> StoreError:
        """The error of an answer of 400 or above."""
        if answer.status == 401:
            return StoreUnavailable(
                f"{self.host} does not accept the credentials of context {self.place.context}"
            )
        found = answer.json()
        if answer.status == 404 and not found.get("details"):
            return StoreUnavailable(
                f"{self.host} does not know Codeswarm's kinds: "
                "apply its CRDs there, and its controller (docs/kubernetes.md)"
            )
        return refusal(answer.status, found)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Query = (),
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; again after a pause where that cannot do it twice.

        Raises: StoreUnavailable (no answer).
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        more = {"Content-Type": content_type, "Accept-Encoding": "gzip", **(headers or {})}
        while True:
            wait, over = 0.0, time.monotonic() >= deadline
            try:
                request = _Request(method, path, query, body, more, REQUEST_SECONDS)
                response = self._call(request)
                answer = Answer(response.status, response.headers, response.data)
            except StoreUnavailable:
                if over or not self._answered or method == "POST":
                    raise
            else:
                self._answered = True
                repeatable = answer.status == 429 or (answer.status in BUSY and method != "POST")
                if over or not repeatable or _is_proxy(path):
                    return answer
                wait = _seconds(answer.headers.get("Retry-After"))
            time.sleep(max(wait, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, LAST_PAUSE)

    def stream(self, path: str, query: Query, seconds: float) -> Stream:
        """An answer that goes on; ``seconds`` without a byte break it off.

        Raises: as ``request``.
        """
        response = self._call(_Request("GET", path, query, None, {}, seconds), whole=False)
        if response.status < 400:
            return Stream(response)
        raise self.refused(Answer(response.status, response.headers, response.data))

    def _call(self, request: _Request, *, whole: bool = True) -> Any:
        """The library's response; with ``whole`` all of it has been read."""
        import urllib3
        from kubernetes.client.exceptions import ApiException

        client = self._api()
        serialized = client.param_serialize(
            request.method,
            request.path,
            query_params=list(request.query),
            header_params={"Accept": "application/json", **request.headers},
            body=request.body,
            auth_settings=["BearerToken"],
        )
        try:
            limits = (CONNECT_SECONDS, request.seconds)
            response = client.call_api(*serialized, _request_timeout=limits)
            if whole:
                response.read()
        except ApiException as error:
            raise StoreUnavailable(f"{self.host} cannot be trusted: {error.reason}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreUnavailable(f"{self.host} does not answer: {_words(error)}") from error
        return response.response

    def _api(self) -> Any:
        with self._connecting:
            if self._client is None:
                self._client = connect(self.place)
            return self._client


def connect(place: Place) -> Any:
    """A client of the library for a context.

    Raises: StoreUnavailable, with what is wrong with the kubeconfig.
    """
    import urllib3
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration

    urllib3.disable_warnings()  # who turned verification off in the kubeconfig knows it
    configuration = Configuration()
    configuration.retries = False  # a request that may have been carried out is not repeated
    configuration.keep_alive = True
    try:
        config.load_kube_config(
            config_file=place.files, context=place.context, client_configuration=configuration
        )
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        raise StoreUnavailable(
            f"context {place.context} of {place.files} cannot be used: {error}"
        ) from error
    client = ApiClient(configuration)
    client.user_agent = FIELD_MANAGER
    return client


def _is_proxy(path: str) -> bool:
    """Whether the answer is another server's, which is tried again in its own way."""
    return "/proxy/" in path


def _seconds(text: str | None) -> float:
    return min(float(text), 30.0) if text and text.isascii() and text.isdigit() else 0.0


def _words(error: BaseException) -> str:
    """The innermost of nested errors, without addresses of objects."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _words(reason)
    if isinstance(error.__cause__, OSError):
        return _words(error.__cause__)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
