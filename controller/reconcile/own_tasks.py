"""Tasks that a Project makes: created once, edited by raising their revision, never adopted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from controller.reconcile.context import Context, owned_by, owner_reference, sibling
from controller.reconcile.task_end import USAGE_FINALIZER
from controller.resources.names import task_object_name
from controller.store.base import AlreadyExists, Resource

HASH = "codeswarm.dev/task-hash"
REMOVED = "removed"
"""Instead of a hash: cancelled because its project lists it no more, not by a person."""
FREE = ("suspend", "cancel", "priority")
"""Fields whose change does not begin a task anew."""


def content_hash(spec: Mapping[str, Any]) -> str:
    """A digest of what a task is, whatever its priority."""
    content = {k: v for k, v in spec.items() if k not in FREE}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class OwnTasks:
    """Creates and edits the Task objects of one Project at a time."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def ensure(
        self,
        project: Resource,
        name: str,
        spec: dict[str, Any],
        identity: Mapping[str, Any] | None = None,
    ) -> Resource | None:
        """The Task of this name with this spec; None if the name is somebody else's.

        An ``identity`` (default: the spec) that differs raises ``revision``, which begins the
        task anew; what only words a prompt is no part of it.
        """
        wanted = content_hash(spec if identity is None else identity)
        key = sibling(project, "Task", task_object_name(project["metadata"]["name"], name))
        found = self._ctx.store.get(key)
        if found is None:
            return await self._create(project, key.name, spec, wanted)
        if not owned_by(found, project["metadata"]["uid"]):
            return None
        if "deletionTimestamp" in found["metadata"]:
            return found
        annotations = found["metadata"].get("annotations") or {}
        before = found["spec"]
        if annotations.get(HASH) == wanted:
            if before.get("priority", 0) == spec.get("priority", 0):
                return found
            found["spec"] = {**before, "priority": spec.get("priority", 0)}
            return await self._ctx.write(found)
        found["metadata"]["annotations"] = {**annotations, HASH: wanted}
        found["spec"] = self._complete(project, spec, revision=before.get("revision", 1) + 1)
        self._ctx.event(found, "Edited", f"revision {found['spec']['revision']} begins it anew")
        return await self._ctx.write(found)

    async def _create(
        self, project: Resource, name: str, spec: dict[str, Any], digest: str
    ) -> Resource | None:
        meta = project["metadata"]
        annotations = {HASH: digest}
        base = (meta.get("annotations") or {}).get("codeswarm.dev/base-dir")
        if base:
            annotations["codeswarm.dev/base-dir"] = base
        obj = {
            "apiVersion": project["apiVersion"],
            "kind": "Task",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": {"codeswarm.dev/project": meta["name"]},
                "annotations": annotations,
                "finalizers": [USAGE_FINALIZER],
                "ownerReferences": [owner_reference(project)],
            },
            "spec": self._complete(project, spec, revision=1),
        }
        try:
            return await self._ctx.create(obj)
        except AlreadyExists:
            # The answer to an earlier creation may have got lost.
            found = self._ctx.store.get(sibling(project, "Task", name))
            return found if found and owned_by(found, meta["uid"]) else None

    @staticmethod
    def _complete(project: Resource, spec: dict[str, Any], *, revision: int) -> dict[str, Any]:
        return {
            "project": project["metadata"]["name"],
            "priority": 0,
            "suspend": False,
            "cancel": False,
            "whenBusy": "queue",
            **spec,
            "revision": revision,
        }
