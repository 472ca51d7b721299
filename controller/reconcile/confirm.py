"""What an attempt's worker says it pushed, looked at in the user's repository itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.domain.outcome import Outcome, Verdict, has_progressed, lost
from controller.domain.retry import FailureClass
from controller.reconcile.attempts import made_by
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo, project_key
from controller.reconcile.project_repository import credentials_of
from controller.resources.names import task_branch
from controller.store.base import Resource


async def confirmed(
    ctx: Context, obj: Resource, info: TaskInfo, attempt: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """An outcome after a look at the repository, where it says anything about that.

    Raises: RepositoryProblem.
    """
    if outcome.verdict is Verdict.SUCCESS and info.kind in ("work", "integration"):
        return await _confirm(ctx, info, attempt, outcome)
    if has_progressed(outcome):
        return await _keep(ctx, info, attempt, outcome)
    if outcome.reason == "BranchConflict":
        return await _judge_conflict(ctx, obj, info, attempt, outcome)
    return outcome


async def _confirm(
    ctx: Context, info: TaskInfo, attempt: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """See for ourselves that the remote has the head. Raises: RepositoryProblem."""
    project = ctx.world.projects.get(project_key(info))
    if project is None or outcome.git is None:
        return lost("ProjectGone", "the project went away while the turn ran")
    owner = ctx.store.get(project.key)
    if owner is None:
        return lost("ProjectGone", "the project went away while the turn ran")
    credentials = credentials_of(ctx, owner)
    value = await ctx.repositories.ref_value(project.url, attempt["ref"], credentials)
    if value != outcome.git.head_commit:
        found = f"is at {value[:12]}" if value else "is not there"
        return lost("NotDurable", f"{attempt['ref']} {found} at the remote")
    return outcome


async def _keep(
    ctx: Context, info: TaskInfo, attempt: Mapping[str, Any], outcome: Outcome
) -> Outcome:
    """An unfinished attempt counts as kept once the remote has its work.

    Raises: RepositoryProblem.
    """
    confirmed = await _confirm(ctx, info, attempt, outcome)
    return outcome if confirmed is outcome else replace(outcome, git=None)


async def _judge_conflict(
    ctx: Context,
    obj: Resource,
    info: TaskInfo,
    attempt: Mapping[str, Any],
    outcome: Outcome,
) -> Outcome:
    """Whose is the branch that a push was refused on? Ours: again. Not ours: a person decides.

    Raises: RepositoryProblem.
    """
    project = ctx.world.projects.get(project_key(info))
    owner = ctx.store.get(project.key) if project else None
    if project is None or owner is None:
        return outcome
    credentials, before = credentials_of(ctx, owner), dict(project.refs)
    state = await ctx.repositories.inspect(
        project.url, project.base_branch, info.project, credentials, fresh=True
    )
    ctx.seen_refs(project.key, before, state.refs)
    branch = task_branch(info.project, info.name)
    value = state.refs.get(f"refs/heads/{branch}", "")
    if not value or value in made_by(obj, state.refs):
        return outcome
    message = (
        f"branch {branch} is at {value[:12]}, which this task did not make; the work is at "
        f"{attempt['ref']}: rename or delete the branch, then `codeswarm retry {info.key.name}`"
    )
    return replace(
        outcome,
        verdict=Verdict.ATTENTION,
        reason="BranchNotOurs",
        message=message,
        failure=FailureClass.TASK,
    )
