"""The end of a turn elsewhere: its work comes home before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.domain.outcome import Outcome, Verdict, lost, read_git
from controller.domain.retry import FailureClass
from controller.reconcile.carrying import bring_home, doubt
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo
from controller.reconcile.turns import TurnFacts
from controller.repository.problems import RepositoryProblem
from controller.resources.names import task_branch
from providers.base import ProviderError

NOT_THERE = frozenset(
    {"RefNotFound", "BundleIncomplete", "BundleTooLarge", "PushRefused", "SwarmGone"}
)
"""Reasons why work that was pushed elsewhere does not come home, and will not by waiting."""


async def brought_home(
    ctx: Context, info: TaskInfo, attempt: Mapping[str, Any], turn: TurnFacts, outcome: Outcome
) -> Outcome:
    """An outcome with its work in the user's repository, as if its worker had pushed it there.

    The attempt's own ref comes home whatever the outcome is.  The branch moves only for a turn
    that was carried to its end, as a worker does where it reaches the repository.

    Raises: NotYet; RepositoryProblem, ProviderError (nothing is known now: look again).
    """
    if outcome.failure is FailureClass.INFRASTRUCTURE:
        doubt(ctx, info, attempt)
    git = outcome.git or read_git(turn.task_complete)
    if git is None or not git.pushed or "ref" not in attempt:
        return outcome
    finished = (turn.complete or {}).get("status") == "completed"
    try:
        refused = await bring_home(ctx, info, attempt, git.head_commit, branch=finished)
    except (RepositoryProblem, ProviderError) as problem:
        if problem.reason not in NOT_THERE:
            raise
        if outcome.verdict is not Verdict.SUCCESS:
            return replace(outcome, git=None)  # it has failed for a reason of its own
        return _failed(outcome, lost("NotDurable", str(problem)))
    if refused is None:
        return outcome
    if refused:
        return _failed(replace(outcome, git=git), lost("BranchConflict", refused))
    branch = task_branch(info.project, info.name) if finished else ""
    return replace(outcome, git=replace(git, branch=branch))


def _failed(outcome: Outcome, failure: Outcome) -> Outcome:
    """The failure; what git and the agent said stays."""
    return replace(
        outcome,
        verdict=failure.verdict,
        reason=failure.reason,
        message=failure.message,
        failure=failure.failure,
    )
