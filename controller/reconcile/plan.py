"""An accepted plan, stored whole and immutable before its first Task is made."""

from __future__ import annotations

from controller.domain.planning import Plan, PlanProblem, plan_from_json
from controller.reconcile.context import Context, owned_by, owner_reference
from controller.reconcile.infos import TaskInfo, project_key
from controller.store.base import AlreadyExists, Key, Resource, key_of

KEY = "plan.json"
MADE_BY = "codeswarm.dev/plan-task"
"""Annotation: uid of the Task whose answer the plan is."""


def config_map_name(project: str, revision: int) -> str:
    """The ConfigMap that holds what the planner answered to one revision of the plan's task."""
    return f"{project}.plan-{revision}"


class PlanStore:
    """Accepted plans as ConfigMaps owned by their Project."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def store(self, info: TaskInfo, plan: Plan) -> None:
        """Keep a plan; the first one that is stored for a revision is the accepted one."""
        project = self._ctx.store.get(project_key(info))
        if project is None:
            return
        name = config_map_name(info.project, info.revision)
        if await self.put(project, info.uid, info.revision, plan):
            return
        found = self._ctx.store.get(Key("ConfigMap", info.key.namespace, name))
        if found is None or _made_by(found) == info.uid:
            kept = ((found or {}).get("data") or {}).get(KEY)
            if kept != plan.canonical():  # else it was stored before, and we did not learn of it
                self._ctx.event(project, "PlanKept", f"ConfigMap {name} holds an earlier answer")
            return
        if owned_by(found, project["metadata"]["uid"]):  # of a plan's task that is gone
            await self._ctx.store.delete(key_of(found), uid=found["metadata"]["uid"])
            await self.put(project, info.uid, info.revision, plan)

    async def put(self, project: Resource, task: str, revision: int, plan: Plan) -> bool:
        """Store a plan that the Task of this uid has made; False if its name is taken."""
        meta = project["metadata"]
        obj = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": config_map_name(meta["name"], revision),
                "namespace": meta["namespace"],
                "labels": {"codeswarm.dev/project": meta["name"]},
                "annotations": {MADE_BY: task},
                "ownerReferences": [owner_reference(project)],
            },
            "immutable": True,
            "data": {KEY: plan.canonical()},
        }
        try:
            await self._ctx.create(obj)
        except AlreadyExists:
            return False
        return True

    def load(self, project: Key, uid: str, task: str, revision: int) -> Plan | PlanProblem | None:
        """The accepted plan of a revision of the Task of uid ``task``.

        None if there is none that it made and the Project (``uid``) owns.
        """
        name = config_map_name(project.name, revision)
        found = self._ctx.store.get(Key("ConfigMap", project.namespace, name))
        if found is None or not owned_by(found, uid) or _made_by(found) != task:
            return None
        return plan_from_json((found.get("data") or {}).get(KEY, ""))


def _made_by(config_map: Resource) -> str:
    return str((config_map["metadata"].get("annotations") or {}).get(MADE_BY, ""))
