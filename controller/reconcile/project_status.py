"""A Project's status: counts, phase and conditions, collected during one pass."""

from __future__ import annotations

from typing import Any

from controller.reconcile.budget import budget_condition
from controller.reconcile.context import ConditionWriter, Context
from controller.reconcile.infos import FINISHED, TaskInfo, folded_spent
from controller.reconcile.pricing import price_folded
from controller.reconcile.project_graph import work_tasks
from controller.reconcile.spending import put_folded, put_spent
from controller.reconcile.sums import present
from controller.resources.conditions import OWNED
from controller.store.base import Key, Resource, key_of

COUNTS = ("usage", "costUsd", "pricingModel", "tasks", "progress", "integration", "foldedUids")
NEEDS_A_PERSON = frozenset({"Blocked", "NeedsFollowups", "Refused", "BranchNotOurs"})
MAX_ATTENTION = 50


class ProjectStatus:
    """The status in the making."""

    def __init__(self, ctx: Context, obj: Resource) -> None:
        self._ctx, self._obj = ctx, obj
        self.key: Key = key_of(obj)
        self.status: dict[str, Any] = dict(obj.get("status") or {})
        self.writer = ConditionWriter(obj, ctx.now())
        self.refused: tuple[str, str] | None = None
        self.planning = False
        self.plan_failed = ""
        self.integration_failed = ""
        self.integrated = False
        self.integrating = False
        self.undecided: tuple[str, str] | None = None
        """What a person has to decide besides tasks: a reason and a message."""
        self._kept = False

    # --- what the steps tell ---------------------------------------------------------------

    def repository(self, url: str, branch: str, commit: str) -> None:
        """The remote's address and base as just seen; the first base is pinned."""
        pinned = self.status.get("repository") or {}
        follow = (self._obj["spec"].get("integration") or {}).get("followBase")
        same = pinned.get("url") == url and pinned.get("baseBranch") == branch
        base = pinned.get("baseCommit") if same and not follow else commit
        base = base or commit
        self.status["repository"] = {"url": url, "baseBranch": branch, "baseCommit": base}
        if base == commit:
            self.writer.set("UpToDate", True, "BaseUnchanged", f"{branch} is at {commit[:12]}")
        else:
            text = f"{branch} moved from {base[:12]} to {commit[:12]}"
            self.writer.set("UpToDate", False, "BaseMoved", text)
        info = self._ctx.world.projects.get(self.key)
        if info is not None:
            info.url, info.base_branch, info.base_commit = url, branch, base

    def accept(self) -> None:
        """The repository can be used."""
        self.writer.set("Accepted", True, "Accepted")

    def refuse(self, reason: str, message: str) -> None:
        """Nothing new may start before this is put right."""
        self.refused = (str(reason), message)
        self.writer.set("Accepted", False, str(reason), message)

    def no_repository(self, reason: str, message: str, *, unknown: bool) -> None:
        """Nothing new may start; what has been reached stays as it is.

        With ``unknown`` nothing is known to be wrong either.
        """
        self.refused = (str(reason), message)
        self.writer.set("Accepted", None if unknown else False, str(reason), message)
        if not self.writer.missing("UpToDate"):
            self.writer.set("UpToDate", None, str(reason), message)
        self._kept = self.status.get("phase", "Pending") != "Pending"

    def _accepted(self, value: bool) -> None:
        info = self._ctx.world.projects.get(self.key)
        if info is not None and info.accepted != value:
            info.accepted = value
            self._wake_tasks()

    def _wake_tasks(self) -> None:
        for task in self._ctx.world.members(self.key).values():
            if not task.finished:
                self._ctx.refresh(task)
                self._ctx.queue.add(task.key)

    def remote_unreadable(self, message: str) -> None:
        """The remote answered before, and does not now: nothing is concluded from that."""
        self.writer.set("UpToDate", None, "RepositoryUnreadable", message)

    # --- the end of a pass -------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Counts, phase and conditions from what is known now."""
        tasks = work_tasks(self._ctx, self.key)
        counts = _count(tasks)
        self.status["tasks"] = counts
        self.status["progress"] = f"{counts['succeeded']}/{counts['total']}"
        self.status["observedGeneration"] = self._obj["metadata"]["generation"]
        if self.refused is not None:
            self._accepted(False)
        self._usage()
        attention = [t.name for t in tasks.values() if t.settled_phase in ("Failed", "Cancelled")]
        self.status["attention"] = attention[:MAX_ATTENTION]
        if not attention:
            self.status.pop("attention")
        if not self._kept:
            self.status["phase"], reason = self._phase(tasks, counts)
            self.status["reason"] = reason
            if not reason:
                self.status.pop("reason")
        if counts["total"]:
            self.status.setdefault("startedAt", self._ctx.now())
        if self.status["phase"] == "Completed":
            self.status.setdefault("finishedAt", self._ctx.now())
        else:
            self.status.pop("finishedAt", None)
        self._fill()
        self.status["conditions"] = self.writer.conditions
        return self.status

    def _usage(self) -> None:
        if self.status.get("foldedByModel"):
            self.status["foldedByModel"] = price_folded(self._ctx, self.status["foldedByModel"])
        folded, uids = folded_spent(self.status), self.status.get("foldedUids") or ()
        put_folded(self.status, folded)
        spent = folded + present(self._ctx.world, self.key, uids)
        put_spent(self.status, spent)
        if budget_condition(self.writer, self._obj["spec"].get("budget"), spent):
            self._wake_tasks()

    def _phase(self, tasks: dict[str, TaskInfo], counts: dict[str, int]) -> tuple[str, str]:
        """The phase and its reason; the conditions that go with them are set."""
        failed = [t for t in tasks.values() if t.settled_phase == "Failed"]
        blocked = [t for t in failed if t.reason in NEEDS_A_PERSON]
        ended = failed + [t for t in tasks.values() if t.settled_phase == "Cancelled"]
        stuck = bool(ended) and not _can_progress(tasks)
        why = self._attention(failed, blocked, ended)
        terminal = self._terminal(stuck and len(failed) > len(blocked))
        self.writer.set("Failed", bool(terminal), terminal or "NotFailed", self.plan_failed)
        self.writer.set("Stalled", bool(terminal), terminal or "NotStalled")
        done = self.integrated and counts["succeeded"] == counts["total"] > 0
        unheard = "" if done else self._unheard()
        if unheard:
            self.writer.set("Complete", None, "ProviderUnreachable", unheard)
        else:
            self.writer.set("Complete", done, "Completed" if done else "InProgress")
        suspended = bool(self._obj["spec"].get("suspend"))
        away = "ProviderUnreachable" if unheard else ""
        by_precedence = (
            (self.refused is not None, "Pending", self.refused[0] if self.refused else ""),
            (done, "Completed", ""),
            (suspended, "Suspended", "Suspended"),
            (bool(terminal), "Failed", terminal),
            (self.planning, "Planning", away),
            (stuck or self.undecided is not None, "Attention", why),
            (self.integrating, "Integrating", away),
            (counts["total"] > 0, "Running", away),
        )
        for holds, phase, reason in by_precedence:
            if holds:
                return phase, reason
        return "Pending", "NoTasks"

    def _unheard(self) -> str:
        """Which turns may be over without our knowing, and why that is not known; or nothing."""
        world, now, names = self._ctx.world, self._ctx.clock.now(), []
        why = ""
        for task in world.members(self.key).values():
            silence = world.silence_of(self.key.namespace, task.open_swarm)
            if task.open_job and silence is not None and silence.is_long(now):
                names.append(task.name)
                why = f"swarm {task.open_swarm}: {silence.reason}: {silence.message}"
        shown = ", ".join(names[:10])
        return f"not known of {shown}, whose workers are out of reach ({why})"[:1024] if why else ""

    def _attention(
        self, failed: list[TaskInfo], blocked: list[TaskInfo], ended: list[TaskInfo]
    ) -> str:
        """Set ``NeedsAttention``; its reason."""
        shown = ", ".join(f"{t.name} ({t.reason})" for t in (blocked or failed or ended)[:10])
        if blocked:
            reason, message = blocked[0].reason, f"a person decides: {shown}"
        elif self.undecided is not None:
            reason, message = self.undecided
        elif self.integration_failed:
            reason, message = "IntegrationFailed", self.integration_failed
        elif ended:
            reason, message = "TasksFailed" if failed else "TasksCancelled", shown
        else:
            self.writer.set("NeedsAttention", False, "NothingToDecide")
            return "NothingToDecide"
        self.writer.set("NeedsAttention", True, reason, message)
        return reason

    def _terminal(self, tasks_failed: bool) -> str:
        """Why nothing more can come of it by itself, or an empty string."""
        if self.plan_failed:
            return "PlanFailed"
        if self.integration_failed:
            return "IntegrationFailed"
        return "TasksFailed" if tasks_failed else ""

    def _fill(self) -> None:
        """Every owned condition is there from the first visit."""
        for type in OWNED["Project"]:
            if self.writer.missing(type):
                self.writer.set(type, None, self.refused[0] if self.refused else "NotSeen")

    def written(self) -> None:
        """What is stored is what holds: with its repository known, tasks may start."""
        if self.refused is None:
            self._accepted(True)

    def only_counts_differ(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether the difference can wait for a second."""
        if old == new:
            return False
        keys = (set(old) | set(new)) - set(COUNTS)
        return all(old.get(k) == new.get(k) for k in keys)

    def tell(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """An event where the phase changed."""
        if old.get("phase") != new["phase"]:
            warning = new["phase"] in ("Failed", "Attention")
            text = new.get("reason") or f"{old.get('phase') or 'New'} -> {new['phase']}"
            self._ctx.event(self._obj, new["phase"], text, warning=warning)

    def next_look(self, seconds: float) -> float | None:
        """A finished project is looked at as well: its base may move."""
        return seconds if self.status.get("phase") != "Completed" else seconds * 10


def _count(tasks: dict[str, TaskInfo]) -> dict[str, int]:
    counts = dict.fromkeys(
        ("total", "pending", "waiting", "running", "succeeded", "failed", "cancelled"), 0
    )
    counts["total"] = len(tasks)
    for task in tasks.values():
        counts[task.settled_phase.lower()] += 1
    return counts


def _can_progress(tasks: dict[str, TaskInfo]) -> bool:
    """Whether some unfinished task does not wait, directly or not, for one that failed."""
    doomed = {t.name for t in tasks.values() if t.settled_phase in ("Failed", "Cancelled")}
    dependents: dict[str, list[str]] = {}
    for task in tasks.values():
        for name in task.depends_on:
            dependents.setdefault(name, []).append(task.name)
    heap = list(doomed)
    while heap:
        for name in dependents.get(heap.pop(), ()):
            if name not in doomed:
                doomed.add(name)
                heap.append(name)
    return any(t.settled_phase not in FINISHED and t.name not in doomed for t in tasks.values())
