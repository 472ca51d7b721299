"""Codex's errors (``CodexErrorInfo`` of the app-server's protocol) as classes of failures."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from worker.errors import TurnError

_STATUS = re.compile(r"\bstatus(?: code)?:? (\d{3})\b")
_AFTER = re.compile(
    r"(?:try again|retry|wait)\b[^.;]{0,24}?\b(?:in|after)\s+"
    r"((?:\d[\d.]*\s*[a-z]+[\s,]*(?:and\s+)?)+)",
    re.I,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[a-z])[a-z]*", re.I)
_CLOCK = re.compile(
    r"\btry again at (?:([A-Z][a-z]{2} \d{1,2}(?:st|nd|rd|th), \d{4}) )?(\d{1,2}:\d{2} [AP]M)"
)
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)")
_MINUTE = timedelta(minutes=1)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_MODEL = re.compile(
    r"model_not_found|model[^.]{0,120}\b(?:does not exist|not found|not supported|not available)"
    r"|(?:unknown|unsupported|invalid) model",
    re.I,
)
_DROPPED = re.compile(
    r"stream (?:disconnected|closed|error)|connection|timed? ?out|error sending", re.I
)

_KINDS = {
    "usageLimitExceeded": "quota",
    "rateLimitExceeded": "quota",
    "sessionBudgetExceeded": "quota",
    "flexUnavailable": "overloaded",
    "policyCapacityUnavailable": "overloaded",
    "serverOverloaded": "overloaded",
    "internalServerError": "overloaded",
    "unauthorized": "auth",
    "modelNotFound": "task",
    "contextWindowExceeded": "task",
    "badRequest": "task",
    "cyberPolicy": "task",
    "misalignmentPolicyViolation": "task",
    "tooManyDenials": "task",
    "inferenceHookDenied": "task",
    "sandboxError": "infrastructure",
    "threadRollbackFailed": "infrastructure",
}
_BROKEN = frozenset(
    {"httpConnectionFailed", "responseStreamConnectionFailed", "responseStreamDisconnected"}
    | {"responseTooManyFailedAttempts"}
)


def turn_error(error: Any, limits: Mapping[str, Any] | None = None, model: str = "") -> TurnError:
    """A failed turn's ``error`` as one of ours.

    Args:
        error: ``{message, codexErrorInfo, additionalDetails}``, or anything.
        limits: the last ``rateLimits`` that the server told, for when they end.
        model: the model that was asked for.
    """
    found = error if isinstance(error, Mapping) else {}
    message = str(found.get("message") or "the turn failed, and Codex does not say why")
    details = found.get("additionalDetails")
    text = f"{message} {details or ''}"
    name, status = _info(found.get("codexErrorInfo"))
    if status is None:
        named = _STATUS.search(text)
        status = int(named.group(1)) if named else None
    kind = kind_of(name, status, text)
    if name == "contextWindowExceeded":
        message = f"the conversation does not fit into the model's context window: {message}"
    elif name == "modelNotFound" or (kind != "quota" and _MODEL.search(text)):
        kind = "task"
        message = (
            f"the provider does not serve the model {model or 'asked for'} (agent.model): {message}"
        )
    elif kind == "auth":
        message = f"the provider refused the credential: {message}"
    after = _wait(text, limits) if kind == "quota" else None
    return TurnError(kind, message[:4096], after)


def kind_of(name: str, status: int | None, text: str) -> str:
    """The class of a failure.

    Args:
        name: of the ``codexErrorInfo``; empty: none.
        status: HTTP status of the provider's answer, if there was one.
        text: all that was said.
    """
    if name in _KINDS:
        return _KINDS[name]
    if status in (401, 403):
        return "auth"
    if status in (402, 429):
        return "quota"
    if status is not None:
        return "overloaded" if status >= 500 or status == 408 else "task"
    if name in _BROKEN or _DROPPED.search(text):
        return "overloaded"
    return "task"


def _info(info: Any) -> tuple[str, int | None]:
    if isinstance(info, str):
        return info, None
    if isinstance(info, Mapping) and len(info) == 1:
        ((name, more),) = info.items()
        status = more.get("httpStatusCode") if isinstance(more, Mapping) else None
        return str(name), status if isinstance(status, int) else None
    return "", None


def _wait(text: str, limits: Mapping[str, Any] | None) -> float | None:
    """Seconds until the provider takes requests again, if it was said anywhere."""
    return _until_reset(limits) or _after(text) or until_clock(text, datetime.now())


def until_clock(text: str, now: datetime) -> float | None:
    """Seconds of e.g. "try again at 3:05 PM" or "at Nov 29th, 2026 3:05 AM"; None: no time named.

    Args:
        text: what Codex says, in the node's own time, to the minute.
        now: the node's own time.
    """
    found = _CLOCK.search(text)
    if found is None:
        return None
    day, clock = found.groups()
    try:
        if day:
            at = datetime.strptime(f"{_ORDINAL.sub('', day)} {clock}", "%b %d, %Y %I:%M %p")
        else:
            at = datetime.combine(now.date(), datetime.strptime(clock, "%I:%M %p").time())
            if at + _MINUTE <= now:
                at += timedelta(days=1)
    except ValueError:
        return None
    return max(0.0, (at + _MINUTE - now).total_seconds())


def _after(text: str) -> float | None:
    """Seconds of e.g. "try again in 1 hour 5 minutes"; None where nothing is named."""
    found = _AFTER.search(text)
    if found is None:
        return None
    seconds = 0.0
    for number, unit in _PART.findall(found.group(1)):
        seconds += float(number) * _UNITS.get(unit.lower(), 0.0)
    return seconds or None


def _until_reset(limits: Mapping[str, Any] | None) -> float | None:
    """Seconds until the last of the used-up limits begins anew."""
    waits = []
    for name in ("primary", "secondary"):
        limit = (limits or {}).get(name)
        if isinstance(limit, Mapping):
            used, resets = limit.get("usedPercent"), limit.get("resetsAt")
            if isinstance(used, (int, float)) and isinstance(resets, (int, float)) and used >= 100:
                waits.append(resets - time.time())
    return max(waits) if waits and max(waits) > 0 else None
