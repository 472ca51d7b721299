"""Durability: the work of finished tasks can be reached at the remote, or is done again."""

from __future__ import annotations

from controller.reconcile.context import Context
from controller.reconcile.infos import ProjectInfo, TaskInfo
from controller.reconcile.project_graph import work_tasks
from controller.reconcile.project_repository import credentials_of
from controller.reconcile.project_status import ProjectStatus
from controller.resources.names import integration_branch, task_branch
from controller.store.base import Key, Resource


class Durability:
    """Puts missing branches back; finds work that is gone."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def step(self, obj: Resource, status: ProjectStatus) -> None:
        """Compare finished tasks with the remote's refs as last seen.

        Raises: RepositoryProblem.
        """
        info = self._ctx.world.projects.get(status.key)
        if info is None or info.integrated:
            return
        done = [t for t in work_tasks(self._ctx, status.key).values() if t.phase == "Succeeded"]
        unsure = [t for t in done if not _held(info, t)]
        if unsure:  # pushed since the last look, moved by somebody, or gone
            await self._look_again(obj, info)
            unsure = [t for t in unsure if not _held(info, t)]
        reachable = await self._reachable(obj, info, unsure) if unsure else set()
        lost = frozenset(t.head for t in unsure) - reachable
        absent = [t for t in done if _branch(info, t) not in info.refs and t.head not in lost]
        await self._put_back(obj, info, absent)
        self._conclude(status.key, lost, unsure)

    def _conclude(self, key: Key, lost: frozenset[str], tasks: list[TaskInfo]) -> None:
        info = self._ctx.world.projects.get(key)
        if info is not None and info.lost != lost:
            info.lost = lost
            for task in tasks:
                self._ctx.queue.add(task.key)

    async def _look_again(self, obj: Resource, info: ProjectInfo) -> None:
        before = dict(info.refs)
        state = await self._ctx.repositories.inspect(
            info.url,
            info.base_branch,
            info.key.name,
            credentials_of(self._ctx, obj),
            fresh=True,
        )
        self._ctx.seen_refs(info.key, before, state.refs)

    async def _reachable(self, obj: Resource, info: ProjectInfo, tasks: list[TaskInfo]) -> set[str]:
        """Heads that a branch still contains: the task's own, integration's or the base."""
        base = f"refs/heads/{info.base_branch}"
        integration = f"refs/heads/{integration_branch(info.key.name)}"
        own = (_branch(info, task) for task in tasks)
        refs = [base, *(ref for ref in (integration, *own) if ref in info.refs)]
        tips = [info.refs[ref] for ref in refs if ref in info.refs]
        store = self._ctx.repositories.store(self._ctx.stores / f"{info.uid}.git")
        await store.fetch(info.url, refs, credentials_of(self._ctx, obj))
        return await store.reachable([t.head for t in tasks], tips)

    async def _put_back(self, obj: Resource, info: ProjectInfo, tasks: list[TaskInfo]) -> None:
        if not tasks:
            return
        credentials = credentials_of(self._ctx, obj)
        store = self._ctx.repositories.store(self._ctx.stores / f"{info.uid}.git")
        kept = [t.head_ref for t in tasks if info.refs.get(t.head_ref) == t.head]
        await store.fetch(info.url, kept, credentials)
        wanted = {_branch(info, t): t.head for t in tasks}
        results = await store.put(info.url, wanted, dict.fromkeys(wanted, ""), credentials)
        for task in tasks:
            result = results.get(_branch(info, task))
            if result is not None and result.accepted:
                info.refs[_branch(info, task)] = task.head
                found = self._ctx.store.get(task.key)
                if found is not None:
                    text = f"{task_branch(info.key.name, task.name)} was missing"
                    self._ctx.event(found, "BranchRestored", text, warning=True)


def _held(info: ProjectInfo, task: TaskInfo) -> bool:
    """Whether a ref of the task's own is at its head."""
    return task.head in (info.refs.get(task.head_ref), info.refs.get(_branch(info, task)))


def _branch(info: ProjectInfo, task: TaskInfo) -> str:
    return f"refs/heads/{task_branch(info.key.name, task.name)}"
