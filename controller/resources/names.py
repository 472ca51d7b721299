"""Names that parts agree on: objects, jobs, branches, refs, and the workers of a target."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

MAX_PROJECT_NAME = 30
MAX_TASK_NAME = 32
RESERVED_TASK_NAMES = frozenset({"integration", "plan"})
"""Tasks that a Project adds by itself."""
MAX_TARGET_WORKERS = 1000
"""Most workers that one prompt can be expanded to."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_OTHER = re.compile(r"[^-a-z0-9]+")
_JOB_SWARM_LENGTH = 30
_UID_LENGTH = 8


def is_label(name: str, max_length: int = 63) -> bool:
    """Whether a name is lower-case letters, digits and inner dashes only (a DNS label)."""
    return len(name) <= max_length and _LABEL.fullmatch(name) is not None


def task_object_name(project: str, task: str) -> str:
    """The Task object of a project's task: ``greeter.library``."""
    return f"{project}.{task}"


def task_name_of(object_name: str, project: str) -> str:
    """The task's name within its project; the whole name if it is not of that project."""
    return object_name.removeprefix(f"{project}.")


def child_task_name(parent: str, index: int) -> str:
    """The Task object for one worker of an expanded prompt: ``hello-everyone.3``."""
    return f"{parent}.{index}"


def task_name_from_id(task_id: str, taken: Collection[str] = ()) -> str:
    """A task name for a planner's id: lower-cased, other characters turned to ``-``.

    A short hash of the id is added where the name would be too long, empty, reserved or
    taken, so the same ids in the same order always give the same names.
    """
    base = _OTHER.sub("-", task_id.lower()).strip("-")
    name = base
    digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
    length = 6
    while not is_label(name, MAX_TASK_NAME) or name in RESERVED_TASK_NAMES or name in taken:
        suffix = digest[:length]
        head = (base or "task")[: MAX_TASK_NAME - length - 1].rstrip("-")
        name = f"{head}-{suffix}" if head else suffix
        if name in taken and length >= MAX_TASK_NAME - 2:
            raise ValueError(f"no free task name for the id {task_id!r}")
        length += 1
    return name


def job_prefix(swarm: str, uid: str) -> str:
    """What all jobs of a swarm begin with: ``<swarm, cut to 30>-<first 8 of its uid>``."""
    return f"{swarm[:_JOB_SWARM_LENGTH]}-{uid[:_UID_LENGTH]}"


def job_name(swarm: str, uid: str, index: int, incarnation: int) -> str:
    """The job of one incarnation of one worker."""
    return f"{job_prefix(swarm, uid)}-{index}-{incarnation}"


def injection_id(task_uid: str, attempt: int) -> str:
    """The identity of the prompt of one attempt."""
    return f"{task_uid}.{attempt}"


def system_injection_id(job: str) -> str:
    """The identity of a worker's system prompt."""
    return f"{job}.system"


def task_branch(project: str, task: str) -> str:
    """The branch of a task, without ``refs/heads/``."""
    return f"codeswarm/{project}/{task}"


def integration_branch(project: str) -> str:
    """The integration branch of a project, without ``refs/heads/``."""
    return task_branch(project, "integration")


def attempt_ref(task_uid: str, attempt: int) -> str:
    """The ref that an attempt's work is pushed to first."""
    return f"refs/codeswarm/{task_uid}/{attempt}"


class TargetMode(enum.StrEnum):
    """How a target names its workers."""

    ALL = "all"
    IDLE = "idle"
    INDICES = "indices"


@dataclass(frozen=True, slots=True)
class TargetWorkers:
    """The parsed ``target.workers``."""

    mode: TargetMode
    indices: tuple[int, ...] = ()
    """Ascending, each once; only with ``INDICES``."""


class TargetError(ValueError):
    """``target.workers`` cannot be read; the text says why."""


_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", re.ASCII)


def parse_workers(value: str | int, *, limit: int = MAX_TARGET_WORKERS) -> TargetWorkers:
    """Parse ``target.workers``: ``all``, ``idle``, an index, or ranges such as ``"0,2-4"``.

    Raises: TargetError (anything else, a range that runs backwards, more than ``limit``).
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise TargetError(f"workers: {value!r} is neither a word nor an index")
    if isinstance(value, int):
        if not 0 <= value <= 9999:
            raise TargetError(f"workers: {value} is not an index from 0 to 9999")
        return TargetWorkers(TargetMode.INDICES, (value,))
    if value in (TargetMode.ALL, TargetMode.IDLE):
        return TargetWorkers(TargetMode(value))
    found: set[int] = set()
    for part in value.split(","):
        found.update(_range(value, part.strip()))
        if len(found) > limit:
            raise TargetError(f'workers: "{value}" names more than {limit} workers')
    return TargetWorkers(TargetMode.INDICES, tuple(sorted(found)))


def _range(value: str, part: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise TargetError(f'workers: "{value}" must be all, idle, an index, or ranges like "0,2-4"')
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if last < first:
        raise TargetError(f'workers: the range "{part}" runs backwards')
    return range(first, last + 1)
