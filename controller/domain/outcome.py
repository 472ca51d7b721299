"""What a finished turn means: success, a failure of some class, or a person's attention.

Joins what the worker says (``turn_complete``), what git says (``task_complete``) and what the
agent reports (``TASK_RESULT``).  Where git and the agent differ, git is right.  All of it comes
from an outbox that an agent could write to, so every value is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from controller.domain import blocks
from controller.domain.planning import Plan, PlanProblem, parse_plan
from controller.domain.results import ReportedStatus, ResultProblem, TaskResult, parse_result
from controller.domain.retry import FailureClass

MAX_MESSAGE = 1024
MAX_ANSWER = 64 * 1024
MAX_PLAN = 4 * 1024 * 1024
"""Characters of a planner's answer: 1,000 tasks with prompts of a few pages."""
MAX_FILES = 200
MAX_MERGES = 1000
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Verdict(StrEnum):
    """What to do with a settled attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    ATTENTION = "attention"
    """The task has failed and is not retried by itself; a person decides."""


@dataclass(frozen=True, slots=True)
class GitFacts:
    """What the worker found in its checkout and did with it (``task_complete``)."""

    base_commit: str
    head_commit: str
    pushed: bool
    attempt_ref: str = ""
    branch: str = ""
    files_changed: tuple[str, ...] = ()
    """The first 200."""
    files_changed_count: int = 0
    merges: tuple[tuple[str, str, str], ...] = ()
    """(task, commit, state) of an integration."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt, settled."""

    verdict: Verdict
    reason: str = ""
    message: str = ""
    failure: FailureClass | None = None
    """Set unless the verdict is success."""
    retry_after: float | None = None
    """Seconds that the model's provider asked to wait."""
    answer: str = ""
    result: TaskResult | None = None
    git: GitFacts | None = None
    plan: Plan | None = None
    warnings: tuple[str, ...] = ()
    """Where the agent's report and git differ."""


TIME_LIMIT = "TimeLimit"
OUT_OF_MEMORY = "OutOfMemory"
OVERLOADED = "ProviderOverloaded"
"""Reason of an attempt that ended since the model's provider failed by itself."""
LEFT = frozenset({TIME_LIMIT, "SpotInterruption", "Stopped"})
"""Reasons of attempts whose worker was told to leave by somebody else than us: a batch system whose
time limit nears, EC2 that wants a spot instance back, an administrator.  What it had done so far
it has put at the attempt's ref."""
_ERROR_CLASSES: dict[str, tuple[FailureClass, str]] = {
    "task": (FailureClass.TASK, "TurnFailed"),
    "infrastructure": (FailureClass.INFRASTRUCTURE, "WorkerError"),
    "out_of_memory": (FailureClass.INFRASTRUCTURE, OUT_OF_MEMORY),
    "quota": (FailureClass.QUOTA, "QuotaExhausted"),
    "overloaded": (FailureClass.INFRASTRUCTURE, OVERLOADED),
    "auth": (FailureClass.CREDENTIAL, "CredentialRefused"),
    "branch_conflict": (FailureClass.INFRASTRUCTURE, "BranchConflict"),
}
_LIMITS = {
    "Timeout": "the turn took longer than timeoutSeconds (a project's taskTimeoutSeconds)",
    "Stalled": "nothing was heard of the turn for stallTimeoutSeconds",
    "BudgetExceeded": "the budget is used up; the task begins anew once it is raised",
}
_INTERRUPTIONS: dict[str, FailureClass] = {
    "Timeout": FailureClass.TIMEOUT,
    "Stalled": FailureClass.TIMEOUT,
    "Cancelled": FailureClass.CANCELLED,
    "Superseded": FailureClass.SUPERSEDED,
    "Suspended": FailureClass.SUPERSEDED,
    "BudgetExceeded": FailureClass.SUPERSEDED,
    "Replaced": FailureClass.SUPERSEDED,
    "Refused": FailureClass.REFUSED,
    "Denied": FailureClass.REFUSED,
}


def settle(
    turn: Mapping[str, Any],
    task: Mapping[str, Any] | None,
    kind: str,
    *,
    interrupt_reason: str = "",
    report_required: bool = True,
) -> Outcome:
    """The meaning of a finished turn.

    Args:
        turn: data of ``turn_complete``.
        task: data of ``task_complete``, if it came.
        kind: ``work``, ``integration``, ``plan`` or ``prompt``.
        interrupt_reason: why the controller itself asked for the interruption, if it did; the
            worker's own word counts less.
        report_required: False for an integration whose ``verify`` commands the worker runs
            itself: it may succeed without any agent being asked, thus without a report.
    """
    answer = _end_of(turn.get("answer"), MAX_PLAN if kind == "plan" else MAX_ANSWER)
    status = turn.get("status")
    if status == "completed":
        outcome = _completed(answer, task, kind, report_required)
    elif status == "interrupted":
        outcome = _interrupted(interrupt_reason or _text(turn.get("reason"), 128), turn)
    elif status == "failed":
        outcome = _failed(turn, interrupt_reason)
    else:
        outcome = _failure(
            FailureClass.INFRASTRUCTURE,
            "MalformedRecord",
            f"the worker reported the unknown turn status {_text(status, 40)!r}",
        )
    return replace(outcome, answer=answer, git=outcome.git or read_git(task))


def has_progressed(outcome: Outcome) -> bool:
    """Whether an attempt was stopped from outside, and its unfinished work is kept."""
    git = outcome.git
    kept = git is not None and git.pushed and git.head_commit != git.base_commit
    return outcome.verdict is Verdict.FAILURE and outcome.reason in LEFT and kept


def is_excused(outcome: Outcome, *, began_late: bool) -> bool:
    """Whether such an attempt is no failure at all.

    Not one that had its worker's whole time: an agent that starts over each time, and never gets
    done in so long, would go on for ever.
    """
    had_all = outcome.reason == TIME_LIMIT and not began_late
    return has_progressed(outcome) and not had_all


def left_before(where: str, reason: str) -> Outcome:
    """An attempt whose worker left before it began: nothing has been tried."""
    message = f"worker {where} had to leave ({reason}) before the turn began"
    return _failure(FailureClass.SUPERSEDED, "NotBegun", message)


def lost(reason: str, message: str) -> Outcome:
    """An attempt whose worker went away, e.g. ``lost("WorkerLost", "signal 9")``."""
    return _failure(FailureClass.INFRASTRUCTURE, reason, message)


def interruption_class(reason: str) -> FailureClass:
    """The class of an attempt that was interrupted for this reason."""
    return _INTERRUPTIONS.get(reason, FailureClass.INFRASTRUCTURE)


def _failure(failure: FailureClass, reason: str, message: str) -> Outcome:
    return Outcome(Verdict.FAILURE, reason, message[:MAX_MESSAGE], failure)


def _interrupted(reason: str, turn: Mapping[str, Any]) -> Outcome:
    message = _LIMITS.get(reason) or _error_message(turn)
    message = message or f"the turn was interrupted ({reason or 'no reason given'})"
    return _failure(interruption_class(reason), reason or "Interrupted", message)


def _failed(turn: Mapping[str, Any], interrupt_reason: str) -> Outcome:
    error = turn.get("error")
    error = error if isinstance(error, Mapping) else {}
    name = _text(error.get("class"), 40)
    if name == "interrupted":
        return _interrupted(interrupt_reason or _text(turn.get("reason"), 128), turn)
    failure, reason = _ERROR_CLASSES.get(name, (FailureClass.INFRASTRUCTURE, "WorkerError"))
    message = _error_message(turn) or f"the turn failed ({name or 'no class given'})"
    return replace(
        _failure(failure, reason, message),
        retry_after=_seconds(error.get("retry_after_seconds")),
    )


def _error_message(turn: Mapping[str, Any]) -> str:
    error = turn.get("error")
    return _text(error.get("message"), MAX_MESSAGE) if isinstance(error, Mapping) else ""


def _completed(
    answer: str, task: Mapping[str, Any] | None, kind: str, report_required: bool
) -> Outcome:
    if kind == "prompt":
        return Outcome(Verdict.SUCCESS)
    if kind == "plan":
        return _planned(answer)
    result = parse_result(answer)
    if isinstance(result, ResultProblem):
        if report_required or result.reason != "ResultMissing":
            return _failure(FailureClass.TASK, str(result.reason), result.message)
        return _from_git(task, None)
    outcome = _reported(result, task)
    return replace(outcome, result=result)


def _planned(answer: str) -> Outcome:
    plan = parse_plan(answer)
    if isinstance(plan, PlanProblem):
        return _failure(FailureClass.TASK, str(plan.reason), plan.message)
    return Outcome(Verdict.SUCCESS, plan=plan)


def _reported(result: TaskResult, task: Mapping[str, Any] | None) -> Outcome:
    notes = f": {result.notes}" if result.notes else ""
    match result.status:
        case ReportedStatus.DONE:
            return _from_git(task, result)
        case ReportedStatus.FAILED:
            message = f"the agent reports that it failed{notes}"
            return _failure(FailureClass.TASK, "ReportedFailed", message)
        case ReportedStatus.BLOCKED:
            reason, message = "Blocked", f"the agent reports that it is blocked{notes}"
        case ReportedStatus.NEEDS_FOLLOWUPS:
            reason, message = "NeedsFollowups", f"the agent reports that work remains{notes}"
    return Outcome(Verdict.ATTENTION, reason, message[:MAX_MESSAGE], FailureClass.TASK)


def _from_git(task: Mapping[str, Any] | None, result: TaskResult | None) -> Outcome:
    facts = read_git(task)
    if facts is None:
        return _failure(
            FailureClass.INFRASTRUCTURE,
            "GitReportMissing",
            "the worker finished the turn without telling what git says of it",
        )
    if not facts.pushed:
        message = f"the work ({facts.head_commit[:12]}) was not pushed to the repository"
        return replace(_failure(FailureClass.INFRASTRUCTURE, "NotPushed", message), git=facts)
    warnings = _differences(result, facts) if result else ()
    return Outcome(Verdict.SUCCESS, git=facts, warnings=warnings)


def read_git(task: Mapping[str, Any] | None) -> GitFacts | None:
    """The data of ``task_complete``, checked; None if it has no valid head and base."""
    if task is None:
        return None
    base, head = _text(task.get("base_commit"), 64), _text(task.get("head_commit"), 64)
    if not _COMMIT.fullmatch(base) or not _COMMIT.fullmatch(head):
        return None
    files = task.get("files_changed")
    names = [_text(f, 4096) for f in files if isinstance(f, str)] if isinstance(files, list) else []
    count = task.get("files_changed_count")
    if isinstance(count, bool) or not isinstance(count, int) or count < len(names):
        count = len(names)
    return GitFacts(
        base_commit=base,
        head_commit=head,
        pushed=task.get("pushed") is True,
        attempt_ref=_text(task.get("attempt_ref"), 400),
        branch=_text(task.get("branch"), 255),
        files_changed=tuple(names[:MAX_FILES]),
        files_changed_count=count,
        merges=_merges(task.get("merges")),
    )


def _merges(value: Any) -> tuple[tuple[str, str, str], ...]:
    items = value if isinstance(value, list) else []
    return tuple(
        (_text(item.get("task"), 63), _text(item.get("commit"), 64), _text(item.get("state"), 20))
        for item in items[:MAX_MERGES]
        if isinstance(item, Mapping)
    )


def _differences(result: TaskResult, facts: GitFacts) -> tuple[str, ...]:
    """Where the agent's report is wrong; an abbreviated commit is right if it is a prefix."""
    found = []
    for name, said, true in (
        ("head_commit", result.head_commit, facts.head_commit),
        ("base_commit", result.base_commit, facts.base_commit),
    ):
        if re.fullmatch(r"[0-9a-f]{4,64}", said) and not true.startswith(said):
            found.append(f"the agent reports {name} {said[:12]}, git says {true[:12]}")
    if result.branch and facts.branch and result.branch != facts.branch:
        found.append(f"the agent reports branch {result.branch}, git says {facts.branch}")
    if result.files_changed and facts.files_changed_count <= MAX_FILES:
        surplus = sorted(set(result.files_changed) - set(facts.files_changed))
        if surplus:
            found.append(f"the agent reports changes that git does not have: {_some(surplus)}")
    return tuple(found)


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:200] for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _end_of(value: Any, limit: int) -> str:
    """The last characters of a text: what an agent reports stands at the end."""
    return blocks.clean(value[-limit:]) if isinstance(value, str) else ""


def _text(value: Any, limit: int) -> str:
    return blocks.clean(value[:limit]) if isinstance(value, str) else ""


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < float(2**53) else None
