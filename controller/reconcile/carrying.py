"""Which commits a task's worker elsewhere needs, and which of its own must come home.

Only for swarms whose provider has ``stores``: there a worker's repository is its project's store
at that place.  It gets no credentials and no branch; the branch is moved from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from controller.reconcile.context import Context
from controller.reconcile.ferry import Load, Parcel, Route
from controller.reconcile.infos import ProjectInfo, TaskInfo, project_key
from controller.reconcile.places import note
from controller.reconcile.project_repository import credentials_of
from controller.resources.names import task_branch
from controller.store.base import Key, Resource, key_of
from providers.base import ProviderError


def route_of(ctx: Context, project: ProjectInfo | None, swarm: Key) -> Route | None:
    """Between here and where a swarm's workers have a project's store; None: they need none.

    Raises: ProviderError (``SwarmGone``); RepositoryProblem (its credentials).
    """
    if project is None:
        return None
    handle, provider = ctx.handle_of(swarm)
    owner = ctx.store.get(project.key)
    if provider.stores is None or owner is None:
        return None
    name = f"{project.uid}.git"
    return Route(
        project.key,
        provider.stores,
        handle,
        name,
        ctx.stores / name,
        project.url,
        credentials_of(ctx, owner),
    )


async def carry_out(ctx: Context, obj: Resource, record: Mapping[str, Any]) -> dict[str, Any]:
    """An inbox record as a worker elsewhere can carry it out, what it needs being there.

    Raises: NotYet; RepositoryProblem; ProviderError (nothing is known now, or the swarm is gone).
    """
    info = ctx.world.info_of(obj)
    attempt, repository = obj["status"]["attempts"][-1], record["repository"]
    swarm = Key("Swarm", info.key.namespace, attempt["swarm"])
    route = route_of(ctx, ctx.world.projects.get(project_key(info)), swarm)
    if route is None:
        return dict(record)
    base = repository["base_commit"]
    heads = [*repository["dependencies"], *(record.get("integration") or {}).get("merges", ())]
    refs = {head["commit"]: head["ref"] for head in heads}
    refs.setdefault(base, f"refs/heads/{repository['base_branch']}")
    previous = repository.get("previous")
    offered = {previous["commit"]: previous["ref"]} if previous else {}
    await note(ctx, route)
    path = await ctx.ferry.send(
        route, Load(repository["base_branch"], base, refs, offered), key_of(obj)
    )
    return located(record, path)


def located(record: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A record whose repository is a store at this path, to which only its ref is pushed."""
    kept = {k: v for k, v in record["repository"].items() if k not in ("branch", "expected")}
    return {**record, "repository": {**kept, "url": path, "store": path}}


async def bring_home(
    ctx: Context,
    info: TaskInfo,
    attempt: Mapping[str, Any],
    head: str,
    *,
    branch: bool,
) -> str | None:
    """Have what an attempt's worker pushed elsewhere in the user's repository.

    Args:
        head: what it says it pushed.
        branch: the task's branch moves too, under the lease that the worker would have used.

    Returns: why the branch was left alone; empty if it was not; None if the worker itself has
        pushed to the user's repository.

    Raises: NotYet; RepositoryProblem; ProviderError.
    """
    swarm = Key("Swarm", info.key.namespace, attempt["swarm"])
    route = route_of(ctx, ctx.world.projects.get(project_key(info)), swarm)
    if route is None:
        return None
    known = {d["commit"]: d["ref"] for d in attempt.get("dependencies") or ()}
    project = ctx.world.projects[project_key(info)]
    known.setdefault(attempt["baseCommit"], f"refs/heads/{project.base_branch}")
    parcel = Parcel(attempt["ref"], head, attempt["baseCommit"], known)
    if branch:
        name = f"refs/heads/{task_branch(info.project, info.name)}"
        parcel = replace(parcel, branch=name, expected=attempt.get("expected", ""))
    return await ctx.ferry.bring(route, parcel, info.key)


def doubt(ctx: Context, info: TaskInfo, attempt: Mapping[str, Any]) -> None:
    """Look again at what is where an attempt ran: its worker may have missed something there."""
    swarm = ctx.world.swarms.get(Key("Swarm", info.key.namespace, attempt["swarm"]))
    provider = ctx.providers.get(swarm.provider) if swarm is not None else None
    project = ctx.world.projects.get(project_key(info)) if info.project else None
    if swarm is None or provider is None or provider.stores is None or project is None:
        return
    with suppress(ProviderError):
        ctx.ferry.doubt(provider.stores.place(swarm.handle), f"{project.uid}.git")
