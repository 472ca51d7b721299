"""What an attendant on a login host tells: of itself, of jobs' folders, of commands that it ran.

Nothing of it is trusted before it has passed here: agents share the attendant's user.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.wire import WireError, clean


@dataclass(frozen=True, slots=True)
class Facts:
    """What an attendant says of itself and its host."""

    root: str
    """Absolute."""
    home: str
    user: str
    host: str
    python: str
    """Path of the Python that runs it."""
    version: str
    """Of that Python."""
    worker: str
    """Path of the file that holds the worker."""


@dataclass(frozen=True, slots=True)
class MadeJob:
    """A job's folder that is there now."""

    folder: str
    """Its absolute path."""
    claimed: bool
    """A worker has taken it up already: then nothing was written."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What a job's folder tells."""

    job: str
    prepared: bool
    """All that a worker needs is there."""
    claim: str | None
    """Who has taken it up: what its batch script wrote."""
    failure: tuple[str, str] | None
    """Reason and message of why no worker could begin."""
    begun: bool
    """A worker began, and maybe ended."""
    ended: str | None
    """How it ended (``exit N``, ``signal N``, ``gone``), where somebody watched over it; None: it
    has not, or nobody did."""
    heartbeat: float | None
    """As in ``JobStatus``."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command."""

    code: int | None
    """Exit status; negative: a signal; None: it runs on (``detached``)."""
    out: str
    err: str
    timed_out: bool
    cut: bool
    """It said more than was kept."""


def facts_of(told: Any) -> Facts:
    """What a greeting says. Raises: WireError."""
    names = ("root", "home", "user", "host", "python", "version", "worker")
    if not isinstance(told, dict) or not all(isinstance(told.get(n), str) for n in names):
        raise WireError("its greeting cannot be read")
    return Facts(*(clean(told[name]) for name in names))


def job_of(item: Mapping[str, Any]) -> JobFacts:
    """What an answer tells of a job. Raises: TypeError, KeyError, ValueError, OverflowError."""
    claim, told, heartbeat = item["claim"], item["failure"], item["heartbeat"]
    ended = item["ended"]
    if not isinstance(claim, str | None) or not isinstance(ended, str | None):
        raise TypeError
    return JobFacts(
        item["job"],
        item["prepared"] is True,
        None if claim is None else clean(claim)[:200],
        None if told is None else (_reason(told["reason"]), clean(str(told["message"]))[:4000]),
        item["begun"] is True,
        None if ended is None else clean(ended)[:200],
        None if heartbeat is None else float(heartbeat),
    )


def _reason(text: Any) -> str:
    """A condition's reason, whatever a file says."""
    word = "".join(c for c in str(text) if c.isascii() and c.isalnum())[:64]
    return word if word[:1].isupper() else "StartFailed"
