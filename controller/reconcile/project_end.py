"""The end of a Project: its refs at the remote go once a branch holds their work."""

from __future__ import annotations

from controller.reconcile.context import Context
from controller.reconcile.places import discard_all
from controller.reconcile.project_repository import credentials_of
from controller.repository.problems import RepositoryProblem
from controller.resources.names import task_branch
from controller.store.base import Key, Resource, key_of
from providers.base import ProviderError

FINALIZER = "codeswarm.dev/refs"
PATIENCE_SECONDS = 60.0
"""How long a deletion waits for a remote or a provider that does not answer; what is there then
stays."""


class ProjectEnd:
    """Guards a Project with a finalizer, and lets it go."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._since: dict[Key, float] = {}
        self._uids: dict[Key, set[str]] = {}
        """The tasks of a Project that goes: some may go before it (``--cascade=foreground``)."""

    async def guard(self, obj: Resource) -> Resource:
        """Have the finalizer in place before anything is pushed."""
        if FINALIZER in (obj["metadata"].get("finalizers") or ()):
            return obj
        finalizers = [*(obj["metadata"].get("finalizers") or ()), FINALIZER]
        guarded = {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}
        return await self._ctx.write(guarded)

    async def step(self, obj: Resource) -> float | None:
        """One pass over a Project that is being deleted; seconds until the next."""
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            return None
        key = key_of(obj)
        uids = self._uids.setdefault(key, set())
        uids.update(t.uid for t in self._ctx.world.members(key).values())
        running = [t for t in self._ctx.world.members(key).values() if t.open_job]
        if running:
            for task in running:
                self._ctx.queue.add(task.key)  # whose pass interrupts the turn
            return 0.5
        since = self._since.setdefault(key, self._ctx.clock.now())
        try:
            await self._collect(obj, key)
        except RepositoryProblem as problem:
            if problem.transient and self._ctx.clock.now() - since < PATIENCE_SECONDS:
                return 5.0
            self._ctx.event(obj, "RefsKept", f"attempt refs stay: {problem.message}", warning=True)
        try:
            await self._discard_stores(obj)
        except ProviderError as error:
            if self._ctx.clock.now() - since < PATIENCE_SECONDS:
                return 5.0
            self._ctx.event(obj, "StoreKept", f"its git objects stay: {error}", warning=True)
        self._since.pop(key, None)
        self._uids.pop(key, None)
        finalizers = [f for f in obj["metadata"]["finalizers"] if f != FINALIZER]
        await self._ctx.store.update(
            {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}
        )
        return None

    async def _discard_stores(self, obj: Resource) -> None:
        """Remove the shared git stores, ours and those where workers live.

        Raises: ProviderError.
        """
        name = f"{obj['metadata']['uid']}.git"
        await self._ctx.ferry.leave_off(name)  # it would make what is removed here again
        await self._ctx.repositories.discard(self._ctx.stores / name)
        for provider in self._ctx.providers.values():
            if provider.stores is None:
                await provider.discard_store(name)
        for place in await discard_all(self._ctx, obj):
            text = (
                f"its git objects stay in stores/{name} at {place}: no swarm leads there any more"
            )
            self._ctx.event(obj, "StoreKept", text, warning=True)

    async def _collect(self, obj: Resource, key: Key) -> None:
        """Delete attempt refs whose commits a branch of the project holds."""
        repository = (obj.get("status") or {}).get("repository") or {}
        url, base = repository.get("url"), repository.get("baseBranch")
        uids = self._uids[key]
        if not url or not uids:
            return
        credentials = credentials_of(self._ctx, obj)
        state = await self._ctx.repositories.inspect(url, base, key.name, credentials, fresh=True)
        ours = {
            ref: sha
            for ref, sha in state.refs.items()
            if ref.startswith("refs/codeswarm/") and ref.split("/")[2] in uids
        }
        if not ours:
            return
        prefix = f"refs/heads/{task_branch(key.name, '')}"
        branches = [r for r in state.refs if r.startswith(prefix) or r == f"refs/heads/{base}"]
        path = self._ctx.stores / f"{obj['metadata']['uid']}.git"
        store = self._ctx.repositories.store(path)
        await store.fetch(url, [*branches, *ours], credentials)
        held = await store.reachable(list(ours.values()), [state.refs[r] for r in branches])
        gone = {ref: sha for ref, sha in ours.items() if sha in held}
        if gone:
            await self._ctx.repositories.delete(path, url, gone, credentials)
