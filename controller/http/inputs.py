"""What clients send, checked: parts of paths and queries. Nothing else of them is used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from controller.domain.machine_logs import is_machine
from controller.resources.metadata import is_subdomain
from controller.resources.names import is_label

MAX_READ = 4 * 1024 * 1024
DEFAULT_READ = 1024 * 1024
MAX_JOBS = 500
_FOLDER = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?-[0-9a-f]{8}")
_JOB = re.compile(r"[a-z0-9][-a-z0-9]{0,29}-[0-9a-f]{8}-[0-9]{1,9}-[0-9]{1,9}")
_NUMBER = re.compile(r"[0-9]{1,15}")


class BadInput(Exception):
    """A request that cannot be meant; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a transcript, bytes."""

    offset: int
    limit: int


def namespace(text: str) -> str:
    """Raises: BadInput."""
    if not is_label(text):
        raise BadInput("the namespace is no DNS label")
    return text


def is_folder(text: str) -> bool:
    """Whether it can be the name of a swarm's folder: ``<swarm>-<uid8>``."""
    return _FOLDER.fullmatch(text) is not None


def folder(text: str) -> str:
    """Raises: BadInput."""
    if not is_folder(text):
        raise BadInput("the swarm's folder is not of the form <swarm>-<first 8 of its uid>")
    return text


def is_job(text: str) -> bool:
    """Whether it can be a job, ``<swarm>-<uid8>-<index>-<incarnation>``, or a machine's id."""
    return _JOB.fullmatch(text) is not None or is_machine(text)


def job(text: str) -> str:
    """Raises: BadInput."""
    if not is_job(text):
        raise BadInput(
            "the job is not of the form <swarm>-<uid8>-<index>-<incarnation>, nor a machine's id"
        )
    return text


Query = dict[str, list[str]]


def query(items: Iterable[tuple[str, str]], *known: str, several: str = "") -> Query:
    """The query by name, every value of it; only ``several`` may be given more than once.

    Raises: BadInput.
    """
    found: Query = {}
    for name, value in items:
        if name not in known:
            raise BadInput(f"an unknown query parameter; known here: {', '.join(known) or 'none'}")
        if name in found and name != several:
            raise BadInput(f"{name} is given more than once")
        found.setdefault(name, []).append(value)
    return found


def swarm_of(given: Query) -> str | None:
    """``swarm=NAME``. Raises: BadInput."""
    name = one(given, "swarm")
    if name is not None and not is_label(name, 50):
        raise BadInput("swarm is no name of a Swarm")
    return name


def task_of(given: Query) -> str | None:
    """``task=NAME``. Raises: BadInput."""
    name = one(given, "task")
    if name is not None and not is_subdomain(name):
        raise BadInput("task is no name of a Task")
    return name


def jobs_of(given: Query) -> frozenset[str] | None:
    """``job=J&job=...``; None: any. Raises: BadInput."""
    jobs = given.get("job")
    if jobs is None:
        return None
    if len(jobs) > MAX_JOBS:
        raise BadInput(f"more than {MAX_JOBS} jobs")
    return frozenset(map(job, jobs))


def range_of(given: Query) -> Range:
    """``offset=N&limit=N``. Raises: BadInput."""
    offset, limit = _number(given, "offset", 0), _number(given, "limit", DEFAULT_READ)
    if not 1 <= limit <= MAX_READ:
        raise BadInput(f"limit must be from 1 to {MAX_READ}")
    return Range(offset, limit)


def _number(given: Query, name: str, default: int) -> int:
    text = one(given, name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text):
        raise BadInput(f"{name} must be a whole number")
    return int(text)


def one(given: Query, name: str) -> str | None:
    """The only value of a name, if it was given."""
    values = given.get(name)
    return values[0] if values else None
