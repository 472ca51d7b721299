"""What frames carry beside outbox lines: errors, and the arguments of calls.

Both ends read them here, and neither believes the other: what comes in is looked at before it
is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from worker.failures import OutcomeUnknown, ProviderError, ProviderUnreachable
from worker.wire import Frame, WireError

_ERRORS: Mapping[str, type[ProviderError]] = {
    error.__name__: error for error in (ProviderError, ProviderUnreachable, OutcomeUnknown)
}
_REASON = re.compile(r"[A-Z][A-Za-z0-9]{0,63}\Z")
_MAX_MESSAGE = 4000


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


A = TypeVar("A", bound="Arguments")


@dataclass(frozen=True)
class Arguments:
    """What a call's body says, each value looked at before it is used.

    Args:
        values: the JSON object.

    Every method raises ProviderError (``BadRequest``) for a value that is missing or wrong.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls: type[A], value: Any) -> A:
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

    def number_or(self, name: str, default: int) -> int:
        """A number, not negative; the default if there is none."""
        return default if self.values.get(name) is None else self.number(name)

    def seconds(self, name: str) -> float:
        """A span of time, more than nothing."""
        value = self.values.get(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e6:
            raise _bad(name, "a number of seconds")
        return float(value)


def _bad(name: str, wanted: str) -> ProviderError:
    return ProviderError("BadRequest", f"{name}: must be {wanted}")
