"""``/healthz``, ``/readyz`` and ``/metrics``: open to all who can reach the port."""

from __future__ import annotations

import json
import time
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response

from controller.http.health import Health

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
METRICS_SECONDS = 1.0
"""Asked again within this time, the same text is given: anybody may ask."""


class Probes:
    """What tells how the controller is."""

    def __init__(self, health: Health, registry: CollectorRegistry) -> None:
        self._health = health
        self._registry = registry
        self._text = b""
        self._made = float("-inf")

    async def healthz(self, request: Request) -> Response:
        """200 while everything moves, else 503 with what does not."""
        report = self._health.look()
        body: dict[str, Any] = {
            "status": "stale" if report.stale else "ok",
            "stale": list(report.stale),
            "loopLagSeconds": round(report.lag, 3),
            "oldestKeySeconds": round(report.oldest, 3),
        }
        if report.contact is not None:
            body["contactSeconds"] = round(report.contact, 3)
        return _json(body, 503 if report.stale else 200)

    async def readyz(self, request: Request) -> Response:
        """200 while the controller converges, else 503 with what it waits for."""
        ready, reason = self._health.ready()
        if ready:
            return _json({"status": "ready"}, 200)
        return _json({"status": "waiting", "reason": reason}, 503)

    async def metrics(self, request: Request) -> Response:
        """Everything in Prometheus' text format."""
        now = time.monotonic()
        if now - self._made >= METRICS_SECONDS:
            self._text, self._made = generate_latest(self._registry), now
        return Response(self._text, media_type=PLAIN)


def _json(body: dict[str, Any], status: int) -> Response:
    return Response(json.dumps(body).encode() + b"\n", status, media_type="application/json")
