"""A turn of Claude Code that ended in an error, as a failure with its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.errors import TurnError

_KINDS = {
    "rate_limit": "quota",
    "billing_error": "quota",
    "authentication_failed": "auth",
    "oauth_org_not_allowed": "auth",
    "server_error": "overloaded",
    "overloaded": "overloaded",
}
"""What Claude Code calls a failed call to the API."""
_OVERFLOWS = ("prompt is too long", "context window", "context limit", "context length")
_NETWORK = ("connection", "socket", "fetch failed", "timed out", "timeout", "stream", "econn")
_LONGEST = 2_000


@dataclass(frozen=True)
class Ending:
    """What a result says of a turn that failed."""

    text: str
    subtype: str = ""
    status: int | None = None
    """HTTP status of the call that failed."""
    error: str = ""
    """Claude Code's own word for it."""
    errors: Sequence[str] = ()
    retry_after: float | None = None
    """Seconds until the provider takes requests again, if it said so."""
    model: str = ""


def failure(ending: Ending) -> TurnError:
    """The failure that a turn's end is."""
    message = _message(ending)
    kind = kind_of(ending)
    if kind == "task":
        return TurnError("task", _explained(ending, message))
    after = ending.retry_after if kind in ("quota", "overloaded") else None
    return TurnError(kind, f"the model's provider: {message}", after)


def _message(ending: Ending) -> str:
    text = ending.text or "; ".join(ending.errors) or ending.subtype or "no reason was given"
    return text.strip()[:_LONGEST]


def kind_of(ending: Ending) -> str:
    """The class of a failure, as in ``turn_complete``."""
    message = _message(ending).lower()
    status = ending.status or 0
    if status in (402, 429) or "credit balance" in message or "usage limit" in message:
        return "quota"
    if status:
        unavailable = status >= 500 or status == 408
        return "auth" if status in (401, 403) else "overloaded" if unavailable else "task"
    if ending.error in _KINDS:
        return _KINDS[ending.error]
    own = ending.subtype.startswith("error_") or any(word in message for word in _OVERFLOWS)
    remote = message.startswith("api error") or any(word in message for word in _NETWORK)
    return "overloaded" if remote and not own else "task"


def _explained(ending: Ending, message: str) -> str:
    lowered = message.lower()
    if any(word in lowered for word in _OVERFLOWS):
        return (
            f"the conversation no longer fits the model's context window: {message}. "
            "Split the task, or set agent.freshThreadPerPrompt"
        )
    if ending.status == 404 or ("model" in lowered and "not exist" in lowered):
        named = f" {ending.model!r}" if ending.model else ""
        return f"the provider does not know the model{named}: {message}"
    return f"Claude Code: {message}"
