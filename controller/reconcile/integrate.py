"""Integration: a Task of the Project's own that merges every finished branch, and verifies."""

from __future__ import annotations

from typing import Any

from controller.domain.prompts import Merge, integration_prompt
from controller.reconcile.context import Context, sibling
from controller.reconcile.infos import ProjectInfo, TaskInfo
from controller.reconcile.own_tasks import OwnTasks, content_hash
from controller.reconcile.project_graph import merge_order, work_tasks
from controller.reconcile.project_repository import credentials_of
from controller.reconcile.project_status import ProjectStatus
from controller.repository.problems import RepositoryProblem
from controller.resources.names import integration_branch, task_branch, task_object_name
from controller.store.base import Resource

INTEGRATION = "integration"
MAX_MERGES = 100


class Integrator:
    """Keeps the integration's Task pinned to the heads of the finished tasks."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._own = OwnTasks(ctx)

    async def step(self, obj: Resource, status: ProjectStatus) -> None:
        """Begin, follow or conclude the integration. Raises: RepositoryProblem."""
        tasks = work_tasks(self._ctx, status.key)
        done = bool(tasks) and all(t.settled_phase == "Succeeded" for t in tasks.values())
        if not done or status.refused or status.planning:
            self._wait(status)
            return
        if obj["spec"].get("suspend") and not self._exists(obj):
            self._wait(status)
            return
        spec = self._spec(obj, status, merge_order(tasks))
        task = await self._own.ensure(obj, INTEGRATION, spec)
        if task is None:
            name = task_object_name(status.key.name, INTEGRATION)
            status.refuse("NameTaken", f"a Task {name} exists that is not this project's")
            return
        await self._read(obj, status, task, spec)

    def _exists(self, obj: Resource) -> bool:
        name = task_object_name(obj["metadata"]["name"], INTEGRATION)
        return self._ctx.store.get(sibling(obj, "Task", name)) is not None

    def _wait(self, status: ProjectStatus) -> None:
        status.writer.set("Integrated", False, "WaitingForTasks")
        before = status.status.get("integration")
        if before and before.get("state") != "Waiting":
            status.status["integration"] = {**before, "state": "Waiting"}

    def _spec(self, obj: Resource, status: ProjectStatus, order: list[TaskInfo]) -> dict[str, Any]:
        config = obj["spec"].get("integration") or {}
        name = obj["metadata"]["name"]
        verify = config.get("verify")
        heads = [{"task": t.name, "commit": t.head, "ref": t.head_ref} for t in order]
        work: dict[str, Any] = {
            "baseCommit": status.status["repository"]["baseCommit"],
            "heads": heads,
        }
        if verify is not None:
            work["verify"] = verify
        spec: dict[str, Any] = {
            "type": "integration",
            "taskId": INTEGRATION,
            "title": "Integration",
            "prompt": integration_prompt(
                obj["spec"].get("title") or name,
                integration_branch(name),
                [Merge(h["task"], h["commit"]) for h in heads],
                verify,
            ),
            "integration": work,
        }
        if "timeoutSeconds" in config:
            spec["timeoutSeconds"] = config["timeoutSeconds"]
        return spec

    async def _read(
        self, obj: Resource, status: ProjectStatus, task: Resource, spec: dict[str, Any]
    ) -> None:
        task_status = task.get("status") or {}
        phase = task_status.get("phase") or "Pending"
        attempts = task_status.get("attempts") or []
        current = not attempts or attempts[-1].get("revision") == task["spec"].get("revision")
        state = {"Succeeded": "Succeeded", "Failed": "Failed", "Cancelled": "Failed"}.get(
            phase, "Running"
        )
        if not current:
            state = "Running"
        work = spec["integration"]
        merges = self._merges(task, work["heads"], state)
        result: dict[str, Any] = {
            "task": task["metadata"]["name"],
            "state": state,
            "digest": content_hash(work),
            "baseCommit": work["baseCommit"],
            "merged": sum(m["state"] not in ("", "conflict") for m in merges),
            "total": len(merges),
            "merges": merges[:MAX_MERGES],
        }
        status.integrating = state == "Running"
        if state == "Succeeded":
            result["headCommit"] = task_status["headCommit"]
            status.integrated = await self._publish(obj, status, task_status)
        elif state == "Failed":
            message = (attempts[-1] if attempts else {}).get("message", "")
            reason = task_status.get("reason") or "IntegrationFailed"
            status.integration_failed = f"{reason}: {message}"
            status.writer.set("Integrated", False, reason, message)
        else:
            done = f"{result['merged']} of {result['total']} branches are merged"
            status.writer.set("Integrated", False, "Integrating", done)
        status.status["branch"] = integration_branch(status.key.name)
        status.status["integration"] = result

    def _merges(
        self, task: Resource, heads: list[dict[str, str]], state: str
    ) -> list[dict[str, str]]:
        """What became of each head: from the turn while it runs, from its success afterwards."""
        attempts = (task.get("status") or {}).get("attempts") or [{}]
        turn = self._ctx.turns.turns.get(attempts[-1].get("injectionId", ""))
        if turn is not None:
            seen = turn.merges
        else:
            seen = self._ctx.turns.merges.get(task["metadata"]["uid"], {})
        default = "merged" if state == "Succeeded" else ""
        return [
            {
                "task": head["task"],
                "commit": head["commit"],
                "state": str(seen.get(head["task"], {}).get("state") or default),
            }
            for head in heads
        ]

    async def _publish(
        self, obj: Resource, status: ProjectStatus, task_status: dict[str, Any]
    ) -> bool:
        """The result is at the remote; where that has an origin of its own, it goes there too."""
        head = task_status["headCommit"]
        message = f"{integration_branch(status.key.name)} is at {head[:12]}"
        push = obj["spec"]["repository"].get("push", "auto")
        info = self._ctx.world.projects.get(status.key)
        condition = status.writer.status_of("Integrated")
        if push != "none" and info is not None and condition != ("True", message):
            problem = await self._to_origin(obj, info, required=push == "origin")
            if problem:
                status.writer.set("Integrated", False, "OriginPushFailed", problem)
                return False
        status.writer.set("Integrated", True, "Integrated", message)
        return True

    async def _to_origin(self, obj: Resource, info: ProjectInfo, *, required: bool) -> str:
        """Send the finished branches on; why that failed, or an empty string."""
        mine = f"refs/heads/{task_branch(info.key.name, '')}"
        refs = {ref: commit for ref, commit in info.refs.items() if ref.startswith(mine)}
        credentials = credentials_of(self._ctx, obj)
        known = {t.head for t in info.tasks.values() if t.head} | set(info.refs.values())
        try:
            results = await self._ctx.repositories.push_to_origin(
                info.url, refs, known, credentials
            )
        except RepositoryProblem as problem:
            return problem.message
        if results is None:
            return "the repository has no origin" if required else ""
        refused = [f"{r.ref}: {r.message}" for r in results.values() if not r.accepted]
        return "; ".join(refused[:5])
