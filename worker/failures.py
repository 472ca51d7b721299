"""How work with a provider fails, as both sides of a wire tell it.

Here, and not with the providers' port (``providers.base``, which names them all), because the part
of a provider that runs on a login host is the worker's package and raises them too.
"""

from __future__ import annotations


class ProviderError(Exception):
    """A call failed for a reason that is fit for people. ``reason`` is a condition reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProviderUnreachable(ProviderError):
    """Nothing is known about the workers now: neither alive nor dead."""


class OutcomeUnknown(ProviderError):
    """The call may or may not have taken effect: observe before deciding."""
