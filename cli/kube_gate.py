"""The way to the controller's own HTTP API: through the API server's service proxy, or straight.

The proxy needs nothing but the kubeconfig.  It does not pass ``Authorization`` on, so the token
goes in a header of its own.  A user with a client certificate has no token; such a one gets a
short-lived token of a ServiceAccount that may read transcripts and no more.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from cli.errors import UNAVAILABLE, CliError
from cli.kube_controller import namespace as controller_namespace
from cli.kube_server import Answer
from controller.store.base import Forbidden, NotFound, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from cli.kube_server import Server

URL_VARIABLE = "CODESWARM_API_URL"
TOKEN_VARIABLE = "CODESWARM_API_TOKEN"
TOKEN_HEADER = "X-Codeswarm-Token"
SERVICE = "codeswarm"
PORT = 4000
READER = "codeswarm-reader"
TOKEN_SECONDS = 600
RENEW_SECONDS = 60
"""A token is not used any more when it ends so soon."""
PATIENCE_SECONDS = 60.0
"""How long a controller that answered before is tried again: it may be starting anew."""
FIRST_PAUSE, LAST_PAUSE = 0.2, 3.0
_PASSING = frozenset({429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    expires: float
    """Monotonic seconds."""


class Gate:
    """Reads of the controller's HTTP API."""

    def __init__(self, server: Server) -> None:
        self._server = server
        url = os.environ.get(URL_VARIABLE)
        self._direct = _Direct(url) if url else None
        self._lent: _Token | None = None
        self._answered = False

    def get(self, parts: Sequence[str], query: Query = ()) -> Answer:
        """The answer to a request for ``/api/v1/<parts>``; again where it may pass.

        Raises: NotFound, Forbidden, StoreError, StoreUnavailable; CliError when the controller
            cannot be reached, with what to do.
        """
        path = "/".join(["/api/v1", *(quote(part, safe="") for part in parts)])
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        while True:
            try:
                answer = self._once(path, query)
            except StoreUnavailable as error:
                problem: Exception = self._unreachable(str(error)) if self._direct else error
                passing = True
            else:
                if answer.status < 400:
                    self._answered = True
                    return answer
                if answer.status == 401 and self._lent is not None:
                    self._lent, passing = None, True
                else:
                    passing = answer.status in _PASSING
                problem = self._problem(answer)
            if not passing or not self._answered or time.monotonic() >= deadline:
                raise problem
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LAST_PAUSE)

    def _once(self, path: str, query: Query) -> Answer:
        if self._direct is not None:
            token = os.environ.get(TOKEN_VARIABLE) or self._token()
            return self._direct.get(path, query, token)
        proxy = (
            f"/api/v1/namespaces/{quote(controller_namespace(), safe='')}"
            f"/services/http:{SERVICE}:{PORT}/proxy"
        )
        headers = {TOKEN_HEADER: self._token(), "Accept": "*/*"}
        return self._server.send("GET", proxy + path, query=query, headers=headers)

    # --- tokens ------------------------------------------------------------------------------

    def _token(self) -> str:
        """The user's own, else one that is lent; empty if there is none of either."""
        own = self._server.token()
        if own:
            return own
        if self._lent is None or self._lent.expires - time.monotonic() < RENEW_SECONDS:
            self._lent = self._borrow()
        return self._lent.text

    def _borrow(self) -> _Token:
        space = controller_namespace()
        path = f"/api/v1/namespaces/{quote(space, safe='')}/serviceaccounts/{READER}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        try:
            status = self._server.request("POST", path, body=body)["status"]
        except (NotFound, Forbidden) as error:
            raise CliError(
                f"transcripts need a token, and the kubeconfig's user has a certificate: {error}; "
                f"the right to create serviceaccounts/token of {READER} in namespace {space} "
                f"is needed, or {URL_VARIABLE} and {TOKEN_VARIABLE}",
                UNAVAILABLE,
            ) from error
        return _Token(str(status["token"]), time.monotonic() + _left(status))

    # --- errors ------------------------------------------------------------------------------

    def _problem(self, answer: Answer) -> Exception:
        """What an answer of 400 or above means."""
        found = answer.json()
        told = found.get("message") or found.get("error") or found.get("detail")
        message = str(told or f"HTTP status {answer.status}")
        if self._direct is None and answer.is_status:
            return self._unreachable(message)
        if answer.status == 401:
            return StoreUnavailable(f"the controller does not accept the token: {message}")
        if answer.status == 403:
            return Forbidden(f"transcripts may not be read: {message}")
        if answer.status == 404:
            return NotFound(message)
        kind = StoreUnavailable if answer.status in _PASSING else StoreError
        return kind(f"the controller does not give transcripts: {message}")

    def _unreachable(self, message: str) -> CliError:
        space, context = controller_namespace(), self._server.place.context
        if self._direct is not None:
            where = f"{self._direct.url} ({URL_VARIABLE})"
            return CliError(f"the controller at {where} is not reached: {message}", UNAVAILABLE)
        return CliError(
            f"the controller is not reached through the API server: {message}\n"
            f"  transcripts come from its Service {SERVICE} in namespace {space}; "
            "set CODESWARM_CONTROLLER_NAMESPACE if it is in another one\n"
            f"  without the right to services/proxy: kubectl --context {context} -n {space} "
            f"port-forward service/{SERVICE} {PORT}, and {URL_VARIABLE}=http://127.0.0.1:{PORT}",
            UNAVAILABLE,
        )


class _Direct:
    """A controller whose address is known."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CliError(f"{URL_VARIABLE}={url}: not of the form http://127.0.0.1:{PORT}")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise CliError(
                f"{URL_VARIABLE}={url}: a token is sent over https, or to this machine alone"
            )
        self.url = url.rstrip("/")
        self._pool: Any = None

    def get(self, path: str, query: Query, token: str) -> Answer:
        """Raises: StoreUnavailable."""
        import urllib3

        if self._pool is None:
            self._pool = urllib3.PoolManager(retries=False, timeout=30.0)
        url = f"{self.url}{path}" + (f"?{urlencode(list(query))}" if query else "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            response = self._pool.request("GET", url, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreUnavailable(str(getattr(error, "reason", None) or error)) from error
        return Answer(response.status, response.headers, response.data)


def _left(status: dict[str, Any]) -> float:
    """Seconds until a token ends, by the server's word."""
    try:
        end = datetime.fromisoformat(str(status["expirationTimestamp"]))
    except (KeyError, ValueError):
        return TOKEN_SECONDS
    if end.tzinfo is None:
        end = end.replace(tzinfo=UTC)
    return max(float(RENEW_SECONDS), (end - datetime.now(UTC)).total_seconds())
