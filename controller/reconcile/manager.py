"""The manager: one work queue, the reconcilers behind it, and what wakes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from controller.reconcile.approval import ApprovalReconciler
from controller.reconcile.budget import Budgets
from controller.reconcile.clock import newest_stamp
from controller.reconcile.context import Context
from controller.reconcile.dispatch import Dispatcher
from controller.reconcile.infos import (
    FINISHED,
    SwarmInfo,
    TaskInfo,
    project_key,
    swarm_key,
    wanted_retry,
)
from controller.reconcile.mail import Mail
from controller.reconcile.pricing import newly_priced
from controller.reconcile.project import ProjectReconciler
from controller.reconcile.readiness import stale_success
from controller.reconcile.swarm import SwarmReconciler
from controller.reconcile.task import FIRST_LOOK_SECONDS, TaskReconciler
from controller.reconcile.task_end import USAGE_FINALIZER
from controller.store.base import (
    Change,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
    is_newer,
    key_of,
)
from providers.base import ProviderError

LOG = logging.getLogger(__name__)

RESYNC_SECONDS = 60.0
SAVE_SECONDS = 1.0
UNAVAILABLE_SECONDS = 2.0
AGAIN_SECONDS, LATER_SECONDS = 0.01, 5.0
"""Until a pass that had an old picture is made again, the first time and at last."""
REMEMBERED = 1000
SETTLED_SECONDS = 0.02
FREED_SECONDS = 1.0
"""After its worker's turn was settled a swarm's table is looked at: that may be idle now."""
SHARE = 20.0
"""A project whose tasks change all the time is looked at for at most a twentieth of the time."""


class Manager:
    """Turns changes and mail into passes, and passes into a converging world."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._dispatcher = Dispatcher(ctx)
        ctx.observed = self.observe
        ctx.refresh = self._dispatcher.refresh
        ctx.wake_dispatch = self._dispatcher.wake
        ctx.queue.waited = ctx.observer.waited
        self._mail = Mail(ctx)
        self._budgets = Budgets(ctx)
        self._tasks = TaskReconciler(ctx)
        self._approvals = ApprovalReconciler(ctx)
        self._handlers = {
            "Swarm": SwarmReconciler(ctx).reconcile,
            "Project": ProjectReconciler(ctx).reconcile,
            "Task": self._tasks.reconcile,
            "Approval": self._approvals.reconcile,
        }
        self._observers: dict[str, Callable[[Resource, bool], None]] = {
            "Task": self._observe_task,
            "Project": self._observe_project,
            "Swarm": self._observe_swarm,
            "Approval": lambda obj, _: self.ctx.world.observe_approval(obj),
            "SwarmClass": lambda obj, _: self._class_changed(key_of(obj)),
            "ConfigMap": lambda obj, _: self._references_changed(key_of(obj)),
            "Secret": lambda obj, _: self._references_changed(key_of(obj)),
        }
        self._running: list[asyncio.Task[None]] = []
        self._costs: dict[Key, float] = {}
        self._refused: dict[Key, int] = {}
        """How often in a row a pass had an old picture."""
        self._gone: dict[str, None] = {}
        """Uids of objects that were deleted lately, the oldest first."""

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over what is stored, then begin to converge it."""
        self.ctx.store.subscribe(self.on_changes)
        resting: set[Key] = set()
        for kind in ("Project", "Swarm", "Task", "Approval"):
            for obj in self.ctx.store.list(kind):
                self.ctx.clock.not_before(newest_stamp(obj))
                self.observe(obj, initial=True)
                if kind != "Task":
                    self.ctx.queue.add(key_of(obj))
                elif _at_rest(obj) and not self._prices(obj):
                    resting.add(key_of(obj))
        for info in self.ctx.world.tasks.values():
            self._dispatcher.refresh(info)
            stale = info.finished and stale_success(self.ctx.world, info)
            if stale or info.key not in resting:
                self._ask_for(info)
        for provider in self.ctx.providers.values():
            provider.start(self._mail.on_mail, self._mail.wake_swarm_of)
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(self.ctx.queue.run(self._pass), name="passes")]
        self._running.append(loop.create_task(self._resync(), name="resync"))
        self._running.append(loop.create_task(self._save(), name="save"))

    def _prices(self, obj: Resource) -> bool:
        """Whether something that a Task used had no price, and has one now."""
        info = self.ctx.world.info_of(obj)
        return newly_priced(self.ctx, info, obj.get("status") or {}) is not None

    async def stop(self) -> None:
        """Stop converging; workers run on."""
        await self._dispatcher.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.ctx.queue.close()
        await self.ctx.ferry.close()
        for provider in self.ctx.providers.values():
            await provider.close()
        self.ctx.transcripts.close_all()

    async def _save(self) -> None:
        """Note now and then how far mail is settled."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            self.ctx.transcripts.flush()

    async def _resync(self) -> None:
        """Look at everything unfinished now and then, whatever was missed."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            for key in [*self.ctx.world.swarms, *self.ctx.world.projects]:
                self.ctx.queue.add(key)
            for info in list(self.ctx.world.tasks.values()):
                if not self._rests(info):
                    self._ask_for(info)
            for key in list(self.ctx.world.approvals):
                self.ctx.queue.add(key)

    def _ask_for(self, info: TaskInfo) -> None:
        """A pass of a task; one that only waits for a worker has but its status to be written."""
        self.ctx.queue.add(info.key, leisurely=info.key in self._dispatcher)

    def _rests(self, info: TaskInfo) -> bool:
        """Whether a task is finished, and nothing asks for anything else."""
        stale = stale_success(self.ctx.world, info)
        return info.finished and not (info.deleting or info.retry or stale)

    async def _pass(self, key: Key) -> float | None:
        handler = self._handlers.get(key.kind)
        if handler is None:
            return None
        begin, started, result = time.process_time(), time.perf_counter(), "success"
        try:
            delay = await handler(key)
            self._refused.pop(key, None)
            return delay
        except Conflict:
            result = "conflict"
            obj = self.ctx.store.get(key)
            if obj is not None:
                self.observe(obj)
            return self._soon(key)
        except NotFound:
            result = "gone"
            return self._soon(key)
        except ProviderError as error:
            result = "provider"
            self.ctx.event_for(key, error.reason, str(error))
            return 2.0
        except StoreUnavailable as error:
            result = "unavailable"
            self.ctx.unavailable(key, error)
            return UNAVAILABLE_SECONDS
        except StoreError as error:
            result = "refused"  # by its rules or for want of rights: again, less and less often
            LOG.error("%s: %s", key, error)
            self.ctx.event_for(key, "NotStored", str(error))
            raise
        except Exception as error:
            result = "error"
            self.ctx.report(key, error)
            raise
        finally:
            self.ctx.observer.passed(key, result, time.perf_counter() - started)
            if key.kind == "Project":
                self._costs[key] = time.process_time() - begin

    def _soon(self, key: Key) -> float:
        """Again at once, with what is stored now; later, if that does not help."""
        times = self._refused[key] = self._refused.get(key, 0) + 1
        return float(min(LATER_SECONDS, AGAIN_SECONDS * 2 ** min(times - 1, 20)))

    # --- changes of objects --------------------------------------------------------------------

    def on_changes(self, changes: Iterable[Change]) -> None:
        """Objects that differ from before, by anybody's hand."""
        # After those who wait for their own writes have taken them over.
        asyncio.get_running_loop().call_soon(self._take, list(changes))

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            if change.version and change.version == self.ctx.world.version(change.key):
                continue  # our own write: its writer has taken it over, and wakes whom it concerns
            obj = None if change.deleted else self.ctx.store.get(change.key)
            if change.deleted:
                self._gone[change.uid] = None
            if obj is not None:
                self.observe(obj)
                new = "status" not in obj and change.key in self._dispatcher
                after = FIRST_LOOK_SECONDS if new else 0.0
                self.ctx.queue.add(change.key, after, leisurely=new)
            else:
                self._forget(change.key)

    def _forget(self, key: Key) -> None:
        if key.kind == "Task":
            info = self.ctx.world.forget_task(key)
            if info is not None:
                self.ctx.observer.task_gone(info)
                self._dispatcher.forget(info)
                self._task_changed(info, None)
                self._mail.orphaned(info)
                if info.shares:
                    asyncio.get_running_loop().create_task(self._tasks.gone(info))
        elif key.kind == "SwarmClass":
            self._class_changed(key)
        elif key.kind in ("ConfigMap", "Secret"):
            self._references_changed(key)
        else:
            self.ctx.world.approvals.pop(key, None)
            self.ctx.queue.add(key)

    def observe(self, obj: Resource, *, initial: bool = False) -> None:
        """Take a stored object into the world, and wake what depends on it.

        The answer to a write may come after the news that its object was deleted, or changed.
        """
        if obj["metadata"].get("uid") in self._gone:
            return
        known = self.ctx.world.version(key_of(obj))
        if known and is_newer(known, obj["metadata"]["resourceVersion"]):
            return
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        take = self._observers.get(obj["kind"])
        if take is not None:
            take(obj, initial)

    def _observe_task(self, obj: Resource, initial: bool) -> None:
        before, info = self.ctx.world.observe_task(obj)
        self.ctx.observer.task(before, info, obj, initial)
        if initial:
            return
        self._dispatcher.refresh(info)
        if before is None:
            waits = info.key in self._dispatcher
            after = FIRST_LOOK_SECONDS if waits else 0.0
            self.ctx.queue.add(info.key, after, leisurely=waits)
        elif _wants(before) != _wants(info):
            self.ctx.queue.add(info.key)
        if before is not None and before.open_job and not info.open_job:
            self._dispatcher.wake()
            swarm = Key("Swarm", info.key.namespace, before.open_swarm)
            self.ctx.queue.add(swarm, FREED_SECONDS, leisurely=True)
            turn = self.ctx.turns.turns.get(before.open_injection)
            if turn is not None:
                self._mail.wake_approvals_of(turn)
        if before is None or _differs(before, info):
            self._task_changed(before, info)
        if before is None or before.shares != info.shares:
            self._budgets.spent(info)

    def _observe_project(self, obj: Resource, initial: bool) -> None:
        before, info = self.ctx.world.observe_project(obj)
        if not initial and (before is None or _gates(before) != _gates(info)):
            self._wake_members(info.key)

    def _observe_swarm(self, obj: Resource, initial: bool) -> None:
        before, info = self.ctx.world.observe_swarm(obj)
        self.ctx.observer.swarm(info, obj, initial)
        if not initial and (before is None or _lets(before) != _lets(info)):
            self._dispatcher.wake()
            for task in self.ctx.world.targeting(info.key):
                if not task.finished:
                    self._ask_for(task)
            self._wake_ready(info.key)
        if not initial and before is not None and before.agent != info.agent:
            for task in list(self.ctx.world.tasks.values()):
                if any(s.spent.unpriced for s in task.shares if s.swarm == info.key.name):
                    self._ask_for(task)  # what had no price may have one now
        if not initial:
            self._budgets.look(info)
            self._approvals.look(obj)

    def _class_changed(self, key: Key) -> None:
        for swarm in self.ctx.world.swarms:
            if swarm.namespace == key.namespace:
                self.ctx.queue.add(swarm)

    def _references_changed(self, key: Key) -> None:
        self._class_changed(key)
        for project in self.ctx.world.projects:
            if project.namespace == key.namespace:
                self.ctx.queue.add(project)
        for info in self.ctx.world.tasks.values():
            if info.key.namespace == key.namespace and not info.accepted:
                self.ctx.queue.add(info.key)

    def _wake_ready(self, swarm: Key) -> None:
        """Tasks of projects that only wait for a worker of this swarm have another reason now."""
        for key, project in self.ctx.world.projects.items():
            if key.namespace == swarm.namespace and swarm.name in (
                *project.swarms,
                project.planner,
            ):
                for task in self.ctx.world.members(key).values():
                    if task.key in self._dispatcher:
                        self._ask_for(task)

    def _wake_members(self, project: Key) -> None:
        for task in self.ctx.world.members(project).values():
            if not task.finished:
                self._dispatcher.refresh(task)
                self._ask_for(task)

    def _task_changed(self, before: TaskInfo | None, info: TaskInfo | None) -> None:
        """Dependents, parents and owners of a task that is not what it was."""
        some = info or before
        if some is None:
            return
        if some.project:
            for dependent in self.ctx.world.dependents(some):
                self._dispatcher.refresh(dependent)
                self._ask_for(dependent)
            settled = info is None or before is None or info.finished != before.finished
            project = project_key(some)
            pause = max(SETTLED_SECONDS if settled else 0.5, self._costs.get(project, 0.0) * SHARE)
            self.ctx.queue.add(project, after=pause)
        if some.parent:
            self.ctx.queue.add(Key("Task", some.key.namespace, some.parent))
        if some.swarm and info is None:
            self.ctx.queue.add(swarm_key(some), after=1.0)


def _at_rest(obj: Resource) -> bool:
    """Whether a Task is finished and nobody has asked anything of it since."""
    meta, status = obj["metadata"], obj.get("status") or {}
    return (
        status.get("phase") in FINISHED
        and status.get("observedGeneration") == meta["generation"]
        and not wanted_retry(obj)
        and "deletionTimestamp" not in meta
        and "ttlSecondsAfterFinished" not in obj["spec"]
        and ("usage" not in status or USAGE_FINALIZER in (meta.get("finalizers") or ()))
    )


def _differs(before: TaskInfo, after: TaskInfo) -> bool:
    """Whether others could care for the difference."""
    return (before.phase, before.head, before.revision, before.open_job) != (
        after.phase,
        after.head,
        after.revision,
        after.open_job,
    )


def _wants(info: TaskInfo) -> tuple[object, ...]:
    """What a task's own pass acts on, besides its attempts."""
    return (
        info.uid, info.revision, info.cancel, info.suspend, info.deleting, info.priority, info.retry
    )  # fmt: skip


def _lets(info: SwarmInfo) -> tuple[object, ...]:
    """Whether a swarm's workers may be given turns."""
    return (info.accepted, info.budget, info.halted, info.unusable)


def _gates(info: object) -> tuple[object, ...]:
    names = (
        "uid", "accepted", "suspended", "deleting", "budget", "swarms", "planner", "max_parallel",
        "retry", "timeout", "stall",
    )  # fmt: skip
    return tuple(getattr(info, name) for name in names)
