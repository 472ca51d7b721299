"""An accepted plan, stored whole and immutable before its first Task is made."""

from __future__ import annotations

from controller.domain.planning import Plan, PlanProblem, plan_from_json
from controller.reconcile.context import Context, owned_by, owner_reference
from controller.reconcile.infos import TaskInfo, project_key
from controller.store.base import AlreadyExists, Key

KEY = "plan.json"


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
        try:
            await self._ctx.create(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {
                        "name": name,
                        "namespace": info.key.namespace,
                        "labels": {"codeswarm.dev/project": info.project},
                        "ownerReferences": [owner_reference(project)],
                    },
                    "immutable": True,
                    "data": {KEY: plan.canonical()},
                }
            )
        except AlreadyExists:
            self._ctx.event(project, "PlanKept", f"ConfigMap {name} holds an earlier answer")

    def load(self, project: Key, uid: str, revision: int) -> Plan | PlanProblem | None:
        """The accepted plan of a revision; None if there is none that the Project owns."""
        name = config_map_name(project.name, revision)
        found = self._ctx.store.get(Key("ConfigMap", project.namespace, name))
        if found is None or not owned_by(found, uid):
            return None
        return plan_from_json((found.get("data") or {}).get(KEY, ""))
