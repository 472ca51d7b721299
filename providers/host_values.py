"""The port's values as frames carry them: swarms, launches, observed jobs.

Both ends read them here, and neither believes the other: what comes in is looked at before it
is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from providers.base import JobState, JobStatus, LaunchRequest, SwarmHandle
from worker.paths import is_component
from worker.wire import WireError, clean
from worker.wire_values import Arguments

_MAX_WORD = 255


@dataclass(frozen=True, slots=True)
class HostArguments(Arguments):
    """What the body of a call to a worker host says."""

    def swarm(self) -> SwarmHandle:
        """The swarm that a call is about."""
        told = Arguments(self.table("swarm"))
        return SwarmHandle(
            told.text("namespace"), told.text("name"), told.text("uid"), told.table("parameters")
        )

    def launch(self) -> LaunchRequest:
        """The worker that is to be started."""
        return LaunchRequest(
            self.swarm(),
            self.text("job"),
            self.number("index"),
            self.table("config"),
            self.strings("env"),
        )


def swarm_value(swarm: SwarmHandle) -> dict[str, Any]:
    """A swarm as calls name it: of its parameters, those that say where it lives."""
    root = swarm.parameters.get("workspaceRoot")
    return {
        "namespace": swarm.namespace,
        "name": swarm.name,
        "uid": swarm.uid,
        "parameters": {"workspaceRoot": str(root)} if root else {},
    }


def launch_value(request: LaunchRequest) -> dict[str, Any]:
    """A launch as a call says it."""
    return {
        "swarm": swarm_value(request.swarm),
        "job": request.job,
        "index": request.index,
        "config": dict(request.config),
        "env": dict(request.env),
    }


def status_value(status: JobStatus) -> list[Any]:
    """An observed job as an answer tells it."""
    return [status.job, status.state.value, status.reason, status.heartbeat, status.handle]


def statuses_of(value: Any) -> list[JobStatus]:
    """The observed jobs that an answer tells, less those whose names are no names of jobs.

    Agents can make folders of any name beside those of their workers.

    Raises: WireError.
    """
    try:
        return [
            JobStatus(
                job,
                JobState(state),
                _text(reason),
                None if heartbeat is None else float(heartbeat),
                _text(handle),
            )
            for job, state, reason, heartbeat, handle in value
            if is_component(job)
        ]
    except (TypeError, ValueError) as error:
        raise WireError("a list of jobs that cannot be read") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return clean(value)[:_MAX_WORD]
