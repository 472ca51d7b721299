"""What a machine is asked to do, and what it answers: one JSON object each way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.failures import ProviderError
from worker.paths import component

STARTED = "started"
"""The worker runs, or has run: by this very order."""
GONE = "gone"
RUNNING = "running"
CLAIMED = "claimed"
"""Key of an answer: somebody else has the folder, and this is what its claim says."""
LEAVING = "leaving"
"""Key of an answer: this machine is about to be taken away, so nothing begins."""
MAX_ORDER = 4 << 20
_MAX_SECONDS = 300.0
_DEPTH = 3


@dataclass(frozen=True)
class Job:
    """A worker that is to be started or ended."""

    folder: tuple[str, ...]
    """Below the root: namespace, ``<swarm>-<8 characters of uid>``, job."""
    job: str
    index: int = 0


@dataclass(frozen=True)
class Claim:
    """Who has a folder."""

    node: str
    token: str
    coordinator: str

    def __str__(self) -> str:
        return f"{self.node} {self.token} {self.coordinator}"


@dataclass(frozen=True)
class StartOrder:
    """Workers to start."""

    jobs: tuple[Job, ...]
    node: str
    """This machine."""
    coordinator: str
    """The machine whose volume the folders are on."""
    token: str = ""
    """Of the claims; empty: each job's name, so that anybody may repeat the order."""
    path: tuple[str, ...] = ()
    """Folders that come first on the workers' PATH."""
    python: str = ""
    """What runs the workers; empty: what runs this."""
    spot: bool = False
    """Whether the machine may be taken away at two minutes' notice."""

    def claim(self, job: str) -> Claim:
        """What is to stand in a job's folder."""
        return Claim(self.node, self.token or job, self.coordinator)


@dataclass(frozen=True)
class StopOrder:
    """Workers to end."""

    jobs: tuple[Job, ...]
    node: str = ""
    """This machine; what another one has claimed is left alone.  Empty: not told."""
    force: bool = False
    seconds: float = 5.0
    """How long may be waited until none is left."""


def start_order(told: Any) -> StartOrder:
    """Read an order. Raises: ProviderError (``BadRequest``, ``InvalidName``)."""
    given = _Given(told)
    token = given.text("token", "")
    return StartOrder(
        given.jobs(),
        _word(given.text("node")),
        _word(given.text("coordinator")),
        token and _word(token),
        tuple(given.texts("path")),
        given.text("python", ""),
        given.flag("spot"),
    )


def stop_order(told: Any) -> StopOrder:
    """Read an order. Raises: ProviderError (``BadRequest``, ``InvalidName``)."""
    given = _Given(told)
    node = given.text("node", "")
    seconds = given.seconds("seconds", StopOrder.seconds)
    return StopOrder(given.jobs(), node and _word(node), given.flag("force"), seconds)


def seconds_of(told: Any, default: float) -> float:
    """``seconds`` of an order without jobs. Raises: ProviderError (``BadRequest``)."""
    return _Given(told).seconds("seconds", default)


def refused(error: ProviderError) -> dict[str, str]:
    """The answer for a job of which nothing came."""
    return {"reason": error.reason, "message": str(error)}


def parse(data: bytes) -> Any:
    """An order as JSON. Raises: ProviderError (``BadRequest``)."""
    try:
        return json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ProviderError("BadRequest", f"an order is a JSON object: {error}") from error


@dataclass(frozen=True)
class _Given:
    """An order's fields, each looked at before it is used."""

    told: Any

    def _value(self, name: str, default: Any) -> Any:
        if not isinstance(self.told, Mapping):
            raise ProviderError("BadRequest", "an order is a JSON object")
        value = self.told.get(name, default)
        if value is None:
            raise ProviderError("BadRequest", f"{name} is missing")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value(name, default)
        if not isinstance(value, str) or "\0" in value or "\n" in value:
            raise ProviderError("BadRequest", f"{name} is no line of text")
        return value

    def texts(self, name: str) -> list[str]:
        values = self._value(name, [])
        if not isinstance(values, list):
            raise ProviderError("BadRequest", f"{name} is no list")
        return [_Given({name: value}).text(name) for value in values]

    def flag(self, name: str) -> bool:
        value = self._value(name, False)
        if not isinstance(value, bool):
            raise ProviderError("BadRequest", f"{name} is neither true nor false")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self._value(name, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= _MAX_SECONDS:
            raise ProviderError("BadRequest", f"{name} is no number from 0 to {_MAX_SECONDS:.0f}")
        return float(value)

    def jobs(self) -> tuple[Job, ...]:
        values = self._value("jobs", None)
        if not isinstance(values, list):
            raise ProviderError("BadRequest", "jobs is no list")
        return tuple(_job(value) for value in values)


def _job(told: Any) -> Job:
    given = _Given(told)
    parts = tuple(component(part) for part in given.text("folder").split("/"))
    job = component(given.text("job"))
    index = given._value("index", 0)
    if len(parts) != _DEPTH or parts[-1] != job:
        raise ProviderError(
            "BadRequest", f"folder: {'/'.join(parts)!r} is not <namespace>/<swarm>-<uid>/{job}"
        )
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise ProviderError("BadRequest", "index is no number from 0 on")
    return Job(parts, job, index)


def _word(text: str) -> str:
    """A word of a claim. Raises: ProviderError (``BadRequest``)."""
    if not text or len(text) > 255 or any(c.isspace() or not c.isprintable() for c in text):
        raise ProviderError("BadRequest", f"{text!r} is no word of a claim (1 to 255 characters)")
    return text
