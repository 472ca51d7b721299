"""Where stores of a Project's git objects are besides here, so that none is left behind.

The place is in the Project's status before anything is sent there.  A store can only be removed
through a swarm whose workers are at that place.
"""

from __future__ import annotations

from controller.reconcile.carriages import NotYet
from controller.reconcile.context import Context
from controller.reconcile.ferry import Route
from controller.store.base import Conflict, Key, Resource
from providers.base import Provider, ProviderError, RemoteStores, SwarmHandle

MAX_PLACES = 64
_TRIES = 5


async def note(ctx: Context, route: Route) -> None:
    """Write down where a Project's store will be.

    Raises: NotYet, where others write the status all the time.
    """
    await _change(ctx, route.project, add=route.place)


async def _change(ctx: Context, project: Key, *, add: str = "", drop: str = "") -> None:
    for _ in range(_TRIES):
        obj = ctx.store.get(project)
        if obj is None:
            return
        status = dict(obj.get("status") or {})
        before = list(status.get("places") or ())
        places = [p for p in before if p != drop]
        if add and add not in places:
            places = [*places, add][-MAX_PLACES:]
        if places == before:
            return
        status["places"] = places
        if not places:
            del status["places"]
        try:
            await ctx.write_status(obj, status)
        except Conflict:
            continue
        return
    raise NotYet


async def discard_all(ctx: Context, obj: Resource) -> list[str]:
    """Remove a Project's stores wherever they are; the places to which no swarm leads any more.

    Raises: ProviderError (after all were tried).
    """
    left: list[str] = []
    failure: ProviderError | None = None
    name = f"{obj['metadata']['uid']}.git"
    for place in (obj.get("status") or {}).get("places") or ():
        try:
            found = _way(ctx, place)
            if found is None:
                left.append(place)
            else:
                await ctx.ferry.discard(*found, name)
        except ProviderError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return left


def _way(ctx: Context, place: str) -> tuple[RemoteStores, SwarmHandle] | None:
    """The stores at a place, and a swarm that leads there. Raises: ProviderUnreachable."""
    for key, info in ctx.world.swarms.items():
        provider = ctx.providers.get(info.provider)
        stores = provider.stores if provider is not None else None
        if stores is not None and _place(stores, info.handle) == place:
            return stores, ctx.handle_of(key)[0]
    return None


def _place(stores: RemoteStores, handle: SwarmHandle) -> str:
    """Where a swarm's stores are; empty for one whose manifest does not say."""
    try:
        return stores.place(handle)
    except ProviderError:
        return ""


async def leave(ctx: Context, swarm: Key, handle: SwarmHandle, provider: Provider) -> None:
    """Remove the stores at a place that the last swarm there leaves.

    Whoever comes there again is sent what is needed.  Stores on machines that the swarm had to
    itself have gone with them.

    Raises: ProviderError; NotYet.
    """
    stores = provider.stores
    if stores is None:
        return
    place = stores.place(handle)
    for key, info in ctx.world.swarms.items():
        other = key != swarm and ctx.providers.get(info.provider) is provider
        if other and _place(stores, info.handle) == place:
            return
    for key, project in list(ctx.world.projects.items()):
        obj = ctx.store.get(key)
        if obj is not None and place in ((obj.get("status") or {}).get("places") or ()):
            if not provider.rents:
                await ctx.ferry.discard(stores, handle, f"{project.uid}.git")
            await _change(ctx, key, drop=place)


def unsettled(ctx: Context, swarm: Key, provider: Provider) -> int:
    """How many of a swarm's tasks have work that must still be brought home by way of it.

    Each is asked to look.
    """
    if provider.stores is None:
        return 0
    name = (swarm.namespace, swarm.name)
    tasks = [
        task
        for task in ctx.world.tasks.values()
        if task.open_job and task.project and (task.key.namespace, task.open_swarm) == name
    ]
    for task in tasks:
        ctx.queue.add(task.key)
    return len(tasks)
