"""The tasks of a Project as Task objects: made, edited, and cancelled when they are removed."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.domain.planning import Plan
from controller.reconcile.context import Context, owned_by
from controller.reconcile.own_tasks import HASH, REMOVED, OwnTasks, content_hash
from controller.reconcile.project_status import ProjectStatus
from controller.resources.names import task_object_name
from controller.store.base import Key, Resource

FROM_MANIFEST = (
    "title", "prompt", "promptFrom", "acceptanceCriteria", "dependsOn", "ownedPaths", "priority",
    "timeoutSeconds", "stallTimeoutSeconds", "retry",
)  # fmt: skip


class Materialiser:
    """Makes what is listed or planned into Tasks."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._own = OwnTasks(ctx)

    async def step(self, obj: Resource, status: ProjectStatus, plan: Plan | None) -> None:
        """Bring the Task objects in line with the list or the plan."""
        wanted = _from_plan(plan) if plan else _from_list(obj["spec"].get("tasks") or ())
        key = status.key
        info = self._ctx.world.projects.get(key)
        if info is not None:
            order = {name: index for index, name in enumerate(wanted)}
            if info.order != order:
                info.order = order
                self._ctx.world.reordered(key)
        members = self._ctx.world.members(key)
        stale = [
            name
            for name, spec in wanted.items()
            if name not in members
            or members[name].hash != content_hash(spec)
            or members[name].priority != spec.get("priority", 0)
        ]
        results = await asyncio.gather(
            *(self._own.ensure(obj, name, wanted[name]) for name in stale)
        )
        taken = [name for name, made in zip(stale, results, strict=True) if made is None]
        if taken:
            names = ", ".join(task_object_name(key.name, n) for n in taken[:5])
            status.refuse("NameTaken", f"Task objects exist that are not this project's: {names}")
        await self._cancel_removed(key, set(wanted), obj["metadata"]["uid"])

    async def _cancel_removed(self, key: Key, wanted: set[str], uid: str) -> None:
        for name, info in list(self._ctx.world.members(key).items()):
            if name in wanted or info.kind != "work" or info.cancel or not info.hash:
                continue
            found = self._ctx.store.get(info.key)
            if found is None or not owned_by(found, uid):
                continue
            found["spec"]["cancel"] = True
            found["metadata"]["annotations"][HASH] = REMOVED
            self._ctx.event(found, "Removed", "no longer listed in its project; its branch stays")
            await self._ctx.write(found)


def _from_list(tasks: Any) -> dict[str, dict[str, Any]]:
    return {
        task["name"]: {"type": "work", "taskId": task["name"]}
        | {field: task[field] for field in FROM_MANIFEST if field in task}
        for task in tasks
    }


def _from_plan(plan: Plan) -> dict[str, dict[str, Any]]:
    wanted: dict[str, dict[str, Any]] = {}
    for task in plan.tasks:
        spec: dict[str, Any] = {
            "type": "work",
            "taskId": task.task_id,
            "title": task.title,
            "prompt": task.prompt,
        }
        for field, value in (
            ("acceptanceCriteria", task.acceptance_criteria),
            ("dependsOn", task.depends_on),
            ("ownedPaths", task.owned_paths),
        ):
            if value:
                spec[field] = list(value)
        wanted[task.name] = spec
    return wanted
