"""A prompt to several workers: expanded once into child Tasks, which the parent adds up."""

from __future__ import annotations

from typing import Any

from controller.domain.cost import total
from controller.domain.targets import expand
from controller.reconcile.context import (
    ConditionWriter,
    Context,
    owned_by,
    owner_reference,
    sibling,
)
from controller.reconcile.infos import FINISHED, RETRY_ANNOTATION, TaskInfo
from controller.reconcile.spending import put_spent
from controller.reconcile.task_end import USAGE_FINALIZER
from controller.reconcile.task_status import task_conditions
from controller.resources.names import child_task_name
from controller.store.base import AlreadyExists, Resource

SOON_SECONDS = 0.001
WAITING_SECONDS = 10.0
TAKEN_SECONDS = 30.0


class PromptGroup:
    """The parent of an expanded prompt."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def reconcile(self, obj: Resource, info: TaskInfo) -> float | None:
        """Expand at first sight, then follow the children; seconds until the next look, or None."""
        status = dict(obj.get("status") or {})
        status["observedGeneration"] = obj["metadata"]["generation"]
        if "targets" not in status:
            return await self._begin(obj, info, status)
        children = self._children(info)
        if info.retry:
            await self._retry(children, info.retry)
            status["observedRetry"] = info.retry
        taken = []
        if not info.finished:
            taken = await self._ensure(obj, info, status["targets"])
            await self._pass_on(obj, children)
        await self._add_up(obj, status, self._children(info), taken)
        return TAKEN_SECONDS if taken else None

    def _children(self, info: TaskInfo) -> list[TaskInfo]:
        return [c for c in self._ctx.world.children(info.key) if c.parent_uid == info.uid]

    # --- at first sight ------------------------------------------------------------------------

    async def _begin(self, obj: Resource, info: TaskInfo, status: dict[str, Any]) -> float | None:
        if info.finished:
            return None
        if info.cancel:
            return await self._end(obj, status, "Cancelled", "Cancelled", "")
        target = obj["spec"]["target"]
        swarm = self._ctx.world.swarms.get(sibling(obj, "Swarm", target["swarm"]))
        if swarm is None or not swarm.workers:
            reason = "SwarmNotFound" if swarm is None else "SwarmNotReady"
            what = "does not exist" if swarm is None else "has no workers yet"
            message = f"swarm {target['swarm']} {what}"
            on = {"kind": "Swarm", "name": target["swarm"]}
            status["blocker"] = {"reason": reason, "message": message, "on": on}
            status.update(phase="Waiting", reason=reason)
            task_conditions(self._ctx, obj, status)
            await self._ctx.write_status(obj, status)
            return WAITING_SECONDS
        leaving = self._leaving(obj, target["swarm"])
        existing = {w.index for w in swarm.workers.values()} - leaving
        chosen = expand(target["workers"], existing)
        if chosen is None or chosen.missing:
            missing = ", ".join(map(str, chosen.missing)) if chosen else ""
            message = f"swarm {target['swarm']} has no worker {missing}"
            return await self._end(obj, status, "Failed", "WorkerNotFound", message)
        status["targets"] = list(chosen.indices)
        status.update(phase="Running", reason="Expanded", progress=f"0/{len(chosen.indices)}")
        status.pop("blocker", None)
        task_conditions(self._ctx, obj, status)
        await self._ctx.write_status(obj, status)
        return SOON_SECONDS

    def _leaving(self, obj: Resource, swarm: str) -> set[int]:
        """Indices whose workers go and are not replaced."""
        found = self._ctx.store.get(sibling(obj, "Swarm", swarm)) or {}
        rows = (found.get("status") or {}).get("workers") or ()
        return {row["index"] for row in rows if row.get("reason") == "ScaledDown"}

    async def _end(
        self, obj: Resource, status: dict[str, Any], phase: str, reason: str, message: str
    ) -> float:
        status.update(phase=phase, reason=reason, finishedAt=self._ctx.now(), message=message)
        status.pop("blocker", None)
        task_conditions(self._ctx, obj, status)
        status.pop("message")
        await self._ctx.write_status(obj, status)
        return SOON_SECONDS

    # --- the children ------------------------------------------------------------------------

    async def _ensure(self, obj: Resource, info: TaskInfo, targets: list[int]) -> list[str]:
        """Make the children that are missing; the names that somebody else has."""
        taken = []
        for index in targets:
            name = child_task_name(obj["metadata"]["name"], index)
            found = self._ctx.store.get(sibling(obj, "Task", name))
            if found is None and await self._create(obj, index):
                continue
            if found is None or not owned_by(found, info.uid):
                taken.append(name)
        return taken

    async def _retry(self, children: list[TaskInfo], token: str) -> None:
        """A retry of the group is one of each child that failed."""
        for info in children:
            child = self._ctx.store.get(info.key) if info.phase in ("Failed", "Cancelled") else None
            if child is not None:
                child["metadata"].setdefault("annotations", {})[RETRY_ANNOTATION] = token
                await self._ctx.write(child)

    async def _create(self, obj: Resource, index: int) -> bool:
        meta = obj["metadata"]
        spec = {
            k: v for k, v in obj["spec"].items() if k not in ("target", "ttlSecondsAfterFinished")
        }
        spec["target"] = {"swarm": obj["spec"]["target"]["swarm"], "workers": index}
        annotations = {
            k: v
            for k, v in (meta.get("annotations") or {}).items()
            if k == "codeswarm.dev/base-dir"
        }
        try:
            await self._ctx.create(
                {
                    "apiVersion": obj["apiVersion"],
                    "kind": "Task",
                    "metadata": {
                        "name": child_task_name(meta["name"], index),
                        "namespace": meta["namespace"],
                        "labels": {"codeswarm.dev/parent": meta["name"]},
                        "annotations": annotations,
                        "finalizers": [USAGE_FINALIZER],
                        "ownerReferences": [owner_reference(obj)],
                    },
                    "spec": spec,
                }
            )
        except AlreadyExists:
            # The answer to an earlier creation may have got lost.
            found = self._ctx.store.get(sibling(obj, "Task", child_task_name(meta["name"], index)))
            return found is not None and owned_by(found, meta["uid"])
        return True

    async def _pass_on(self, obj: Resource, children: list[TaskInfo]) -> None:
        """Cancelling or suspending the parent means all that are still to come."""
        suspend, cancel = bool(obj["spec"].get("suspend")), bool(obj["spec"].get("cancel"))
        for info in children:
            changed = info.suspend != suspend or (cancel and not info.cancel)
            child = self._ctx.store.get(info.key) if changed and not info.finished else None
            if child is not None:
                child["spec"].update(suspend=suspend, cancel=cancel or info.cancel)
                await self._ctx.write(child)

    async def _add_up(
        self, obj: Resource, status: dict[str, Any], children: list[TaskInfo], taken: list[str]
    ) -> None:
        wanted = len(status["targets"])
        done = [c for c in children if c.finished]
        if len(done) >= wanted:
            status["progress"] = f"{sum(c.phase == 'Succeeded' for c in done)}/{wanted}"
            bad = [c for c in done if c.phase != "Succeeded"]
            status["phase"] = "Succeeded" if not bad else bad[0].phase
            status["reason"] = bad[0].reason if bad else "AllAnswered"
            status.setdefault("finishedAt", self._ctx.now())
        elif status.get("phase") not in FINISHED or len(children) >= wanted:
            status["progress"] = f"{sum(c.phase == 'Succeeded' for c in done)}/{wanted}"
            status.update(phase="Running", reason="Expanded")
            status.pop("finishedAt", None)
        writer = ConditionWriter(obj, self._ctx.now())
        if taken:
            text = f"Tasks exist that are not this prompt's: {', '.join(taken[:5])}"
            writer.set("Accepted", False, "NameTaken", text)
        else:
            writer.set("Accepted", True, "Accepted")
        status["conditions"] = writer.conditions
        task_conditions(self._ctx, obj, status)
        put_spent(status, total(share.spent for child in children for share in child.shares))
        await self._ctx.write_status(obj, status)
