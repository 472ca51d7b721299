"""The port's values as frames carry them: swarms, launches, observed jobs, errors.

Both ends read them here, and neither believes the other: what comes in is looked at before it
is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.base import (
    JobState,
    JobStatus,
    LaunchRequest,
    OutcomeUnknown,
    ProviderError,
    ProviderUnreachable,
    SwarmHandle,
)
from providers.host_wire import Frame, WireError, clean
from providers.layout import is_component

_ERRORS: Mapping[str, type[ProviderError]] = {
    error.__name__: error for error in (ProviderError, ProviderUnreachable, OutcomeUnknown)
}
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}\Z")
_MAX_MESSAGE = 4000
_MAX_WORD = 255


def error_frame(type: str, error: ProviderError, **head: Any) -> Frame:
    """A frame of a type that tells an error."""
    kind = error.__class__.__name__
    told = {
        "class": kind if kind in _ERRORS else ProviderError.__name__,
        "reason": error.reason,
        "message": str(error)[:_MAX_MESSAGE],
    }
    return Frame({"type": type, **head, **told})


def error_of(message: Frame) -> ProviderError:
    """The error that a frame tells; its reason is fit for a condition. Raises: WireError."""
    kind = _ERRORS.get(message.text("class"))
    if kind is None or not _REASON.match(message.text("reason")):
        raise WireError("an error of an unknown kind")
    return kind(message.text("reason"), message.text("message")[:_MAX_MESSAGE])


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a call's body says, each value looked at before it is used.

    Args:
        values: the JSON object.

    Every method raises ProviderError (``BadRequest``) for a value that is missing or wrong.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Arguments:
        """The arguments that a JSON value holds."""
        if not isinstance(value, dict):
            raise _bad("arguments", "an object")
        return cls(value)

    def text(self, name: str) -> str:
        """A text."""
        value = self.values.get(name)
        if not isinstance(value, str):
            raise _bad(name, "a text")
        return value

    def number(self, name: str) -> int:
        """A number, not negative."""
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _bad(name, "a number, not negative")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise _bad(name, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _bad(name, "a list of texts")
        return value

    def table(self, name: str) -> dict[str, Any]:
        """An object."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise _bad(name, "an object")
        return value

    def strings(self, name: str) -> dict[str, str]:
        """An object of texts."""
        value = self.table(name)
        if not all(isinstance(item, str) for item in value.values()):
            raise _bad(name, "an object of texts")
        return value

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


def _bad(name: str, wanted: str) -> ProviderError:
    return ProviderError("BadRequest", f"{name}: must be {wanted}")
