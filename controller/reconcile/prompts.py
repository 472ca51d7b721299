"""A prompt to several workers: expanded once into child Tasks, which the parent adds up."""

from __future__ import annotations

from typing import Any

from controller.domain.targets import expand
from controller.reconcile.context import Context, owner_reference, sibling
from controller.reconcile.infos import TaskInfo
from controller.reconcile.task_end import USAGE_FINALIZER
from controller.reconcile.task_status import task_conditions
from controller.resources.names import child_task_name
from controller.store.base import AlreadyExists, Resource

ENDINGS = ("Failed", "Cancelled", "Succeeded")


class PromptGroup:
    """The parent of an expanded prompt."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def reconcile(self, obj: Resource) -> float | None:
        """Expand at first sight, then follow the children."""
        status = dict(obj.get("status") or {})
        if "targets" not in status:
            return await self._expand(obj, status)
        have = {c.name for c in self._ctx.world.children(_key(obj))}
        if status.get("phase") not in ENDINGS:
            for index in status["targets"]:
                if child_task_name(obj["metadata"]["name"], index) not in have:
                    await self._create(obj, index)
        await self._add_up(obj, status)
        return None

    async def _expand(self, obj: Resource, status: dict[str, Any]) -> float | None:
        target = obj["spec"]["target"]
        swarm = self._ctx.world.swarms.get(sibling(obj, "Swarm", target["swarm"]))
        status["observedGeneration"] = obj["metadata"]["generation"]
        if swarm is None or not swarm.workers:
            reason = "SwarmNotFound" if swarm is None else "SwarmNotReady"
            what = "does not exist" if swarm is None else "has no workers yet"
            message = f"swarm {target['swarm']} {what}"
            on = {"kind": "Swarm", "name": target["swarm"]}
            status["blocker"] = {"reason": reason, "message": message, "on": on}
            status.update(phase="Waiting", reason=reason)
            task_conditions(self._ctx, obj, status)
            await self._ctx.write_status(obj, status)
            return 0.5
        existing = sorted({w.index for w in swarm.workers.values()})
        chosen = expand(target["workers"], existing)
        if chosen is None or chosen.missing:
            missing = ", ".join(map(str, chosen.missing)) if chosen else ""
            status.update(phase="Failed", reason="WorkerNotFound", finishedAt=self._ctx.now())
            status["message"] = f"swarm {target['swarm']} has no worker {missing}"
            task_conditions(self._ctx, obj, status)
            status.pop("message")
            await self._ctx.write_status(obj, status)
            return None
        status["targets"] = list(chosen.indices)
        status.update(phase="Running", reason="Expanded", progress=f"0/{len(chosen.indices)}")
        status.pop("blocker", None)
        task_conditions(self._ctx, obj, status)
        await self._ctx.write_status(obj, status)
        return 0.001

    async def _create(self, obj: Resource, index: int) -> None:
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
            text = f"a Task {child_task_name(meta['name'], index)} exists that is not this prompt's"
            self._ctx.event(obj, "NameTaken", text, warning=True)

    async def _add_up(self, obj: Resource, status: dict[str, Any]) -> None:
        children = self._ctx.world.children(_key(obj))
        total = len(status["targets"])
        done = [c for c in children if c.finished]
        status["progress"] = f"{sum(c.phase == 'Succeeded' for c in children)}/{total}"
        await self._pass_on(obj, children)
        if len(done) >= total and status.get("phase") not in ENDINGS:
            bad = [c for c in done if c.phase != "Succeeded"]
            status["phase"] = "Succeeded" if not bad else bad[0].phase
            status["reason"] = bad[0].reason if bad else "AllAnswered"
            status["finishedAt"] = self._ctx.now()
        status["observedGeneration"] = obj["metadata"]["generation"]
        task_conditions(self._ctx, obj, status)
        await self._ctx.write_status(obj, status)

    async def _pass_on(self, obj: Resource, children: list[TaskInfo]) -> None:
        """Cancelling or suspending the parent means all that are still to come."""
        for field in ("cancel", "suspend"):
            wanted = bool(obj["spec"].get(field))
            for info in children:
                if getattr(info, field) != wanted and not info.finished:
                    child = self._ctx.store.get(info.key)
                    if child is not None:
                        child["spec"][field] = wanted
                        await self._ctx.write(child)


def _key(obj: Resource) -> Any:
    return sibling(obj, "Task", obj["metadata"]["name"])
