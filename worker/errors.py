"""What ends a turn early: a failure with its class, or an interruption."""

from __future__ import annotations


class TurnError(Exception):
    """A turn failed; the text is fit for people.

    Args:
        kind: the class in ``turn_complete``: task, infrastructure, quota, overloaded, auth or
            branch_conflict (see records.py).
        message: what was wrong.
        retry_after: seconds after which the provider takes requests again, if it said so.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after


class RuntimeUnusable(Exception):
    """The agent cannot be started here, and will not be by trying again; fit for people.

    Args:
        reason: a condition's reason, e.g. ``AgentNotInstalled``, ``AgentTooOld``,
            ``CredentialMissing``, ``AgentConfigInvalid``.
        message: what is missing, and what would help.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Interrupted(Exception):
    """Somebody asked the turn to end; ``reason`` is theirs (Timeout, Cancelled, Stopped, ...)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConfigError(Exception):
    """``worker.json`` or the environment cannot be used; the text says why."""
