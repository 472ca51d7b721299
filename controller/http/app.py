"""The ASGI application: routes, and how errors read. It knows no home and no server."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, ExceptionHandler

from controller.http.api import RETRY_SECONDS, Api, Busy, NotThere
from controller.http.auth import Authenticator, AuthUnavailable, Forbidden, Unauthenticated
from controller.http.feed import Feed
from controller.http.files import TranscriptFiles
from controller.http.guard import Guard, problem
from controller.http.health import Health
from controller.http.inputs import BadInput
from controller.http.probes import Probes

_AGAIN = {"Retry-After": str(RETRY_SECONDS)}
_REFUSALS: dict[type[Exception], tuple[int, str, dict[str, str]]] = {
    BadInput: (400, "BadRequest", {}),
    Unauthenticated: (401, "Unauthenticated", {"WWW-Authenticate": "Bearer"}),
    Forbidden: (403, "Forbidden", {}),
    NotThere: (404, "NotFound", {}),
    AuthUnavailable: (503, "Unavailable", _AGAIN),
    Busy: (503, "Busy", _AGAIN),
}


def make_app(
    *,
    health: Health,
    registry: CollectorRegistry,
    authenticator: Authenticator,
    transcripts: Path,
    feed: Feed,
    hosts: frozenset[str] | None = None,
) -> ASGIApp:
    """Everything that is served.

    Args:
        transcripts: their folder; it need not exist yet.
        hosts: values of the ``Host`` header that are taken; None: all.
    """
    probes, api = Probes(health, registry), Api(authenticator, TranscriptFiles(transcripts), feed)
    handlers: dict[type[Exception], ExceptionHandler] = dict.fromkeys(_REFUSALS, _refused)
    app = Starlette(
        routes=[
            Route("/healthz", probes.healthz),
            Route("/readyz", probes.readyz),
            Route("/metrics", probes.metrics),
            *api.routes(),
        ],
        exception_handlers={**handlers, HTTPException: _no_route},
    )
    app.router.redirect_slashes = False  # a redirect would name the host that the client named
    return Guard(app, hosts)


async def _refused(request: Request, error: Exception) -> Response:
    status, reason, headers = _REFUSALS[type(error)]
    return _problem(status, reason, str(error), headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    reason = "".join(word.capitalize() for word in status.phrase.split())
    return _problem(status, reason, f"{status.phrase.lower()}; see docs/http.md", {})


def _problem(status: int, reason: str, message: str, headers: dict[str, str]) -> Response:
    return Response(
        problem(reason, message), status, headers=headers, media_type="application/json"
    )
