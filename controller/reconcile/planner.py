"""The planner: a Task of its own that turns a specification into the project's task graph."""

from __future__ import annotations

from typing import Any

from controller.domain.planning import Plan, PlanProblem
from controller.domain.prompts import plan_prompt
from controller.reconcile.context import Context
from controller.reconcile.own_tasks import OwnTasks
from controller.reconcile.plan import PlanStore, config_map_name
from controller.reconcile.project_status import ProjectStatus
from controller.resources.names import task_object_name
from controller.resources.texts import Unresolved
from controller.store.base import Key, Resource

PLAN = "plan"


class Planner:
    """Keeps the plan's Task, and reads the accepted plan."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._own = OwnTasks(ctx)
        self._plans = PlanStore(ctx)
        self._known: dict[str, tuple[int, Plan]] = {}
        """By plan task's uid: the revision and its plan, as it was last read."""

    async def step(self, obj: Resource, status: ProjectStatus) -> Plan | None:
        """The accepted plan, if there is one; conditions say what is missing."""
        planner = obj["spec"].get("planner")
        if planner is None:
            status.writer.set("Planned", True, "NoPlanner", "the tasks are given")
            return None
        text = self._ctx.text(obj, planner, "specification")
        if text is None or isinstance(text, Unresolved):
            why = text or Unresolved("SpecificationMissing", "the planner has no specification")
            status.planning = True
            status.writer.set("Planned", False, why.reason, why.message)
            return None
        spec = self._spec(obj, planner, text)
        identity = {**spec, "title": "", "prompt": text}
        task = await self._own.ensure(obj, PLAN, spec, identity)
        if task is None:
            status.refuse(
                "NameTaken", f"a Task {self._name(obj)} exists that is not this project's"
            )
            return None
        return await self._read(obj, status, task)

    def _name(self, obj: Resource) -> str:
        return task_object_name(obj["metadata"]["name"], PLAN)

    def _spec(self, obj: Resource, planner: dict[str, Any], text: str) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "type": "plan",
            "title": "Plan",
            "prompt": plan_prompt(obj["spec"].get("title") or obj["metadata"]["name"], text),
        }
        for name in ("timeoutSeconds", "stallTimeoutSeconds", "retry"):
            if name in planner:
                spec[name] = planner[name]
        return spec

    async def _read(self, obj: Resource, status: ProjectStatus, task: Resource) -> Plan | None:
        name = task["metadata"]["name"]
        task_status = task.get("status") or {}
        attempt = (task_status.get("attempts") or [{}])[-1]
        revision = task["spec"].get("revision", 1)
        phase = task_status.get("phase") if attempt.get("revision") == revision else "Pending"
        if phase != "Succeeded":
            status.planning = True
            if phase in ("Failed", "Cancelled"):
                reason = task_status.get("reason") or "PlanFailed"
                status.plan_failed = f"{reason}: {attempt.get('message', '')}"
                status.writer.set("Planned", False, reason, status.plan_failed)
            else:
                status.writer.set("Planned", False, "Planning", f"task {name} is at work")
            return None
        meta = obj["metadata"]
        plan = await self._load(obj, task["metadata"]["uid"], revision)
        if plan is None or isinstance(plan, PlanProblem):
            why = plan.message if isinstance(plan, PlanProblem) else "its ConfigMap is gone"
            message = f"{why}; delete task {name} to have it planned again"
            status.undecided = ("PlanMissing", message)
            status.writer.set("Planned", False, "PlanMissing", message)
            return None
        status.status["plan"] = {
            "configMap": config_map_name(meta["name"], revision),
            "digest": plan.digest(),
            "tasks": len(plan.tasks),
            "task": name,
        }
        status.writer.set("Planned", True, "PlanAccepted", f"{len(plan.tasks)} tasks")
        return plan

    async def _load(self, obj: Resource, task: str, revision: int) -> Plan | PlanProblem | None:
        """The accepted plan; one that was deleted is put back as long as it is remembered."""
        meta = obj["metadata"]
        key = Key("Project", meta["namespace"], meta["name"])
        plan = self._plans.load(key, meta["uid"], task, revision)
        known = self._known.get(task)
        if plan is None and known is not None and known[0] == revision:
            plan = known[1] if await self._plans.put(obj, task, revision, known[1]) else None
        if isinstance(plan, Plan):
            self._known[task] = (revision, plan)
        return plan
