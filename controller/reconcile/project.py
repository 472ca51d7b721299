"""Project: its repository, its graph of tasks, and what becomes of them together."""

from __future__ import annotations

from typing import Any

from controller.reconcile.context import Context
from controller.reconcile.durability import Durability
from controller.reconcile.integrate import Integrator
from controller.reconcile.materialise import Materialiser
from controller.reconcile.planner import Planner
from controller.reconcile.project_end import ProjectEnd
from controller.reconcile.project_graph import graph_problem
from controller.reconcile.project_repository import ProjectRepository
from controller.reconcile.project_status import ProjectStatus
from controller.repository.problems import RepositoryProblem
from controller.store.base import Key, Resource

LOOK_SECONDS = 30.0
"""Between two looks at a remote while nothing else asks for one."""
RETRY_SECONDS = 5.0
STATUS_SECONDS = 1.0
"""Counts and usage are written at most this often; phases at once."""


class ProjectReconciler:
    """One pass: repository, plan, tasks, durability, integration, status."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._repository = ProjectRepository(ctx)
        self._planner = Planner(ctx)
        self._materialiser = Materialiser(ctx)
        self._durability = Durability(ctx)
        self._integrator = Integrator(ctx)
        self._end = ProjectEnd(ctx)
        self._written: dict[Key, float] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Converge one Project; seconds until the next look, or None."""
        obj = self._ctx.store.get(key)
        if obj is None:
            self._gone(key)
            return None
        if "deletionTimestamp" in obj["metadata"]:
            return await self._end.step(obj)
        status = ProjectStatus(self._ctx, obj)
        try:
            await self._repository.look(obj, status)
        except RepositoryProblem as problem:
            status.no_repository(problem.reason, problem.message, unknown=problem.transient)
            if "planner" not in obj["spec"]:
                await self._materialiser.step(obj, status, None)
            await self._write(key, obj, status)
            return RETRY_SECONDS
        return await self._converge(key, obj, status)

    def _gone(self, key: Key) -> None:
        self._written.pop(key, None)
        self._repository.forget(key)
        self._ctx.world.forget_project(key)
        for task in list(self._ctx.world.members(key).values()):
            self._ctx.queue.add(task.key)

    async def _converge(self, key: Key, obj: Resource, status: ProjectStatus) -> float | None:
        status.accept()
        obj = await self._end.guard(obj)
        plan = await self._planner.step(obj, status)
        if plan is not None or "planner" not in obj["spec"]:
            await self._materialiser.step(obj, status, plan)
        problem = graph_problem(self._ctx, key)
        if problem is not None:
            status.refuse(problem.reason, problem.message)
        try:
            await self._durability.step(obj, status)
            await self._integrator.step(obj, status)
        except RepositoryProblem as unreadable:
            status.remote_unreadable(unreadable.message)
        return await self._write(key, obj, status)

    async def _write(self, key: Key, obj: Resource, status: ProjectStatus) -> float | None:
        """Store the status; what only counts may wait until a second has passed."""
        new = status.finish()
        old: dict[str, Any] = obj.get("status") or {}
        now = self._ctx.clock.now()
        only_counts = status.only_counts_differ(old, new)
        left = self._written.get(key, 0.0) + STATUS_SECONDS - now
        if only_counts and left > 0:
            status.written()
            return left
        if new != old:
            self._written[key] = now
        obj = {**obj, "metadata": {**obj["metadata"]}}
        await self._ctx.write_status(obj, new)
        status.written()
        status.tell(old, new)
        return status.next_look(LOOK_SECONDS)
