"""Durability: the work of finished tasks can be reached at the remote, or is done again."""

from __future__ import annotations

from controller.reconcile.context import Context
from controller.reconcile.infos import ProjectInfo, TaskInfo
from controller.reconcile.project_graph import work_tasks
from controller.reconcile.project_repository import credentials_of
from controller.reconcile.project_status import ProjectStatus
from controller.resources.names import integration_branch, task_branch
from controller.store.base import Resource


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
        missing = [t for t in done if _branch(info, t) not in info.refs]
        if not missing:
            info.lost = frozenset()
            return
        here = [t for t in missing if info.refs.get(t.head_ref) == t.head]
        unsure = [t for t in missing if info.refs.get(t.head_ref) != t.head]
        reachable = await self._reachable(obj, info, unsure) if unsure else set()
        await self._put_back(obj, info, here + [t for t in unsure if t.head in reachable])
        lost = frozenset(t.name for t in unsure if t.head not in reachable)
        if lost != info.lost:
            info.lost = lost
            for task in unsure:
                self._ctx.queue.add(task.key)

    async def _reachable(self, obj: Resource, info: ProjectInfo, tasks: list[TaskInfo]) -> set[str]:
        """Heads that a branch still contains: the task's own, integration's or the base."""
        refs = [f"refs/heads/{info.base_branch}"]
        integration = f"refs/heads/{integration_branch(info.key.name)}"
        refs += [ref for ref in (integration,) if ref in info.refs]
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


def _branch(info: ProjectInfo, task: TaskInfo) -> str:
    return f"refs/heads/{task_branch(info.key.name, task.name)}"
