"""Integration: a Task of the Project's own that merges every finished branch, and verifies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.domain.facts import UNDER_WAY
from controller.domain.prompts import Merge, integration_prompt
from controller.reconcile.context import Context, owned_by, sibling
from controller.reconcile.infos import ProjectInfo, TaskInfo
from controller.reconcile.own_tasks import OwnTasks, content_hash
from controller.reconcile.project_graph import merge_order, work_tasks
from controller.reconcile.project_repository import credentials_of
from controller.reconcile.project_status import NEEDS_A_PERSON, ProjectStatus
from controller.repository.problems import RepositoryProblem
from controller.resources.names import integration_branch, task_branch, task_object_name
from controller.store.base import Resource

INTEGRATION = "integration"
MAX_MERGES = 100
MAX_HEADS = 1000
"""Heads of one turn, as the CRD has it: more of them are merged in several turns."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which of all the heads one revision of the integration's Task merges."""

    digest: str
    """Of all that is pinned."""
    pinned: str
    """The pinned base commit."""
    total: int
    begin: int = 0
    base: str = ""
    """Where it begins: the pinned base, or what the part before has made."""


def _current(task: Resource) -> bool:
    """Whether what the status says is about the revision that the spec asks for."""
    attempts = (task.get("status") or {}).get("attempts") or ()
    return not attempts or attempts[-1].get("revision") == task["spec"].get("revision")


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
        spec, part = self._spec(obj, status, merge_order(tasks))
        identity = {k: v for k, v in spec.items() if k not in ("title", "prompt")}
        task = await self._own.ensure(obj, INTEGRATION, spec, identity)
        if task is None:
            name = task_object_name(status.key.name, INTEGRATION)
            status.refuse("NameTaken", f"a Task {name} exists that is not this project's")
            return
        await self._read(obj, status, task, part)

    def _exists(self, obj: Resource) -> bool:
        return self._task(obj) is not None

    def _task(self, obj: Resource) -> Resource | None:
        name = task_object_name(obj["metadata"]["name"], INTEGRATION)
        found = self._ctx.store.get(sibling(obj, "Task", name))
        return found if found and owned_by(found, obj["metadata"]["uid"]) else None

    def _wait(self, status: ProjectStatus) -> None:
        status.writer.set("Integrated", False, "WaitingForTasks")
        before = status.status.get("integration")
        if before and before.get("state") != "Waiting":
            status.status["integration"] = {**before, "state": "Waiting"}

    def _spec(
        self, obj: Resource, status: ProjectStatus, order: list[TaskInfo]
    ) -> tuple[dict[str, Any], Part]:
        config = obj["spec"].get("integration") or {}
        name = obj["metadata"]["name"]
        heads = [{"task": t.name, "commit": t.head, "ref": t.head_ref} for t in order]
        base, verify = status.status["repository"]["baseCommit"], config.get("verify")
        part = self._part(obj, status, heads, {"base": base, "heads": heads, "verify": verify})
        heads = heads[part.begin : part.begin + MAX_HEADS]
        if part.begin + len(heads) < part.total:
            verify = []  # all is verified at the end
        work: dict[str, Any] = {"baseCommit": part.base or base, "heads": heads}
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
        return spec, part

    def _part(
        self,
        obj: Resource,
        status: ProjectStatus,
        heads: list[dict[str, str]],
        pinned: dict[str, Any],
    ) -> Part:
        """Which heads are to be merged now, where one turn cannot merge all of them.

        The next part begins on what the former one made, as long as nothing that is pinned has
        changed.
        """
        digest = content_hash(pinned)
        first = Part(digest, pinned["base"], total=len(heads))
        task = self._task(obj) if len(heads) > MAX_HEADS else None
        if task is None or (status.status.get("integration") or {}).get("digest") != digest:
            return first
        work, after = task["spec"]["integration"], task.get("status") or {}
        begin = next((n for n, h in enumerate(heads) if h == work["heads"][0]), 0)
        if begin % MAX_HEADS or work["heads"] != heads[begin : begin + MAX_HEADS]:
            return first
        end = begin + len(work["heads"])
        if end < len(heads) and _current(task) and after.get("phase") == "Succeeded":
            return replace(first, begin=end, base=after["headCommit"])
        return replace(first, begin=begin, base=work["baseCommit"])

    async def _read(self, obj: Resource, status: ProjectStatus, task: Resource, part: Part) -> None:
        task_status = task.get("status") or {}
        attempts = task_status.get("attempts") or []
        phase = (task_status.get("phase") or "Pending") if _current(task) else "Pending"
        work = task["spec"]["integration"]
        state = {"Succeeded": "Succeeded", "Failed": "Failed", "Cancelled": "Failed"}.get(
            phase, "Running"
        )
        if state == "Succeeded" and part.begin + len(work["heads"]) < part.total:
            state = "Running"
        before = (status.status.get("integration") or {}).get("merges") or ()
        merges = self._merges(task, work["heads"], phase == "Succeeded", before)
        result: dict[str, Any] = {
            "task": task["metadata"]["name"],
            "state": state,
            "digest": part.digest,
            "baseCommit": part.pinned,
            "merged": part.begin + sum(m["state"] not in ("", "conflict") for m in merges),
            "total": part.total,
            "merges": merges[:MAX_MERGES],
        }
        status.integrating = state == "Running"
        if state == "Succeeded":
            result["headCommit"] = task_status["headCommit"]
            status.integrated = await self._publish(obj, status, task_status)
        elif state == "Failed":
            message = (attempts[-1] if attempts else {}).get("message", "")
            reason = task_status.get("reason") or "IntegrationFailed"
            if reason in NEEDS_A_PERSON:
                status.undecided = (reason, f"the integration: {message}")
            else:
                status.integration_failed = f"{reason}: {message}"
            status.writer.set("Integrated", False, reason, message)
        else:
            done = f"{result['merged']} of {result['total']} branches are merged"
            status.writer.set("Integrated", False, "Integrating", done)
        status.status["branch"] = integration_branch(status.key.name)
        status.status["integration"] = result

    def _merges(
        self,
        task: Resource,
        heads: list[dict[str, str]],
        done: bool,
        before: Iterable[Mapping[str, str]],
    ) -> list[dict[str, str]]:
        """What became of each head: as its turn told, or as it was told before a restart."""
        attempts = (task.get("status") or {}).get("attempts") or [{}]
        turn = self._ctx.turns.turns.get(attempts[-1].get("injectionId", ""))
        seen: Mapping[str, Mapping[str, Any]] = {}
        if turn is not None and _current(task):
            seen = turn.merges
        elif _current(task) and attempts[-1].get("state") not in UNDER_WAY:
            seen = self._ctx.turns.merges.get(task["metadata"]["uid"], {})
        told = {(m["task"], m["commit"]): m["state"] for m in before}
        result = []
        for head in heads:
            state = str(seen.get(head["task"], {}).get("state") or "")
            if done and not state:
                state = told.get((head["task"], head["commit"])) or "merged"
            result.append({"task": head["task"], "commit": head["commit"], "state": state})
        return result

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
                status.integrating = True
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
