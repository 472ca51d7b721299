"""The manager: one work queue, the reconcilers behind it, and what wakes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from controller.reconcile.approval import ApprovalReconciler, approval_name
from controller.reconcile.context import Context
from controller.reconcile.dispatch import Dispatcher
from controller.reconcile.project import ProjectReconciler
from controller.reconcile.swarm import SwarmReconciler
from controller.reconcile.task import FIRST_LOOK_SECONDS, TaskReconciler
from controller.reconcile.turns import TurnFacts, parse
from controller.reconcile.world import TaskInfo, project_key, swarm_key
from controller.store.base import Change, Conflict, Key, NotFound, Resource, key_of
from providers.base import ProviderError, RecordBatch
from worker import records as rec

RESYNC_SECONDS = 60.0
SAVE_SECONDS = 1.0
PASSES = 16
SETTLED_SECONDS = 0.02
SHARE = 20.0
"""A project whose tasks change all the time is looked at for at most a twentieth of the time."""
FOLLOW_SECONDS = 0.05
"""A turn that ends within this time is settled without having been written as running."""
USAGE_SECONDS = 1.0
MERGED_SECONDS = 0.25


class Manager:
    """Turns changes and mail into passes, and passes into a converging world."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._dispatcher = Dispatcher(ctx)
        ctx.observed = self.observe
        ctx.refresh = self._dispatcher.refresh
        ctx.wake_dispatch = self._dispatcher.wake
        self._tasks = TaskReconciler(ctx)
        self._handlers = {
            "Swarm": SwarmReconciler(ctx).reconcile,
            "Project": ProjectReconciler(ctx).reconcile,
            "Task": self._tasks.reconcile,
            "Approval": ApprovalReconciler(ctx).reconcile,
        }
        self._running: list[asyncio.Task[None]] = []
        self._costs: dict[Key, float] = {}

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over what is stored, then begin to converge it."""
        self.ctx.store.subscribe(self.on_changes)
        for kind in ("Project", "Swarm", "Task", "Approval"):
            for obj in self.ctx.store.list(kind):
                self.observe(obj, initial=True)
                self.ctx.queue.add(key_of(obj))
        for info in self.ctx.world.tasks.values():
            self._dispatcher.refresh(info)
        for provider in self.ctx.providers.values():
            provider.start(self.on_mail, self._wake_swarm_of)
        loop = asyncio.get_running_loop()
        self._running = [
            loop.create_task(self.ctx.queue.run(self._pass), name=f"passes-{n}")
            for n in range(PASSES)
        ]
        self._running.append(loop.create_task(self._resync(), name="resync"))
        self._running.append(loop.create_task(self._save(), name="save"))

    async def stop(self) -> None:
        """Stop converging; workers run on."""
        await self._dispatcher.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.ctx.queue.close()
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
                if not info.finished:
                    self.ctx.queue.add(info.key)

    async def _pass(self, key: Key) -> float | None:
        handler = self._handlers.get(key.kind)
        if handler is None:
            return None
        begin = time.process_time()
        try:
            return await handler(key)
        except Conflict:
            obj = self.ctx.store.get(key)
            if obj is not None:
                self.observe(obj)
            return 0.01
        except NotFound:
            return 0.01
        except ProviderError as error:
            self.ctx.event_for(key, error.reason, str(error))
            return 2.0
        except Exception as error:
            self.ctx.report(key, error)
            raise
        finally:
            if key.kind == "Project":
                self._costs[key] = time.process_time() - begin

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
            if obj is not None:
                self.observe(obj)
                new = "status" not in obj and change.key in self._dispatcher
                self.ctx.queue.add(change.key, after=FIRST_LOOK_SECONDS if new else 0.0)
            else:
                self._forget(change.key)

    def _forget(self, key: Key) -> None:
        if key.kind == "Task":
            info = self.ctx.world.forget_task(key)
            if info is not None:
                self._dispatcher.forget(info)
                self._task_changed(info, None)
                self._orphaned(info)
        elif key.kind == "SwarmClass":
            self._class_changed(key)
        elif key.kind in ("ConfigMap", "Secret"):
            self._references_changed(key)
        else:
            self.ctx.queue.add(key)

    def observe(self, obj: Resource, *, initial: bool = False) -> None:
        """Take a stored object into the world, and wake what depends on it."""
        world, kind = self.ctx.world, obj["kind"]
        if kind == "Task":
            before, info = world.observe_task(obj)
            if not initial:
                self._dispatcher.refresh(info)
                if before is not None and before.open_job and not info.open_job:
                    self._dispatcher.wake()
                    turn = self.ctx.turns.turns.get(before.open_injection)
                    if turn is not None:
                        self._wake_approvals_of(turn)
                if before is None:
                    waits = info.key in self._dispatcher
                    self.ctx.queue.add(info.key, after=FIRST_LOOK_SECONDS if waits else 0.0)
                elif _wants(before) != _wants(info):
                    self.ctx.queue.add(info.key)
                if before is None or _differs(before, info):
                    self._task_changed(before, info)
        elif kind == "Project":
            old, new = world.observe_project(obj)
            if not initial and (old is None or _gates(old) != _gates(new)):
                self._wake_members(new.key)
        elif kind == "Swarm":
            past, now = world.observe_swarm(obj)
            if not initial and (past is None or past.accepted != now.accepted):
                self._dispatcher.wake()
                for task in world.targeting(now.key):
                    if not task.finished:
                        self.ctx.queue.add(task.key)
        elif kind == "SwarmClass":
            self._class_changed(key_of(obj))
        elif kind in ("ConfigMap", "Secret"):
            self._references_changed(key_of(obj))

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

    def _wake_members(self, project: Key) -> None:
        for task in self.ctx.world.members(project).values():
            if not task.finished:
                self._dispatcher.refresh(task)
                self.ctx.queue.add(task.key)

    def _task_changed(self, before: TaskInfo | None, info: TaskInfo | None) -> None:
        """Dependents, parents and owners of a task that is not what it was."""
        some = info or before
        if some is None:
            return
        if some.project:
            for dependent in self.ctx.world.dependents(some):
                self._dispatcher.refresh(dependent)
                self.ctx.queue.add(dependent.key)
            settled = info is None or before is None or info.finished != before.finished
            project = project_key(some)
            pause = max(SETTLED_SECONDS if settled else 0.5, self._costs.get(project, 0.0) * SHARE)
            self.ctx.queue.add(project, after=pause)
        if some.parent:
            self.ctx.queue.add(Key("Task", some.key.namespace, some.parent))
        if some.swarm and info is None:
            self.ctx.queue.add(swarm_key(some), after=1.0)

    def _orphaned(self, info: TaskInfo) -> None:
        """A Task is gone while its turn runs: the turn is interrupted."""
        if info.open_job:
            swarm = Key("Swarm", info.key.namespace, info.open_swarm)
            asyncio.get_running_loop().create_task(
                self._interrupt(swarm, info.open_job, info.open_injection)
            )

    async def _interrupt(self, swarm: Key, job: str, injection: str) -> None:
        payload = {"action": "interrupt", "injection_id": injection, "reason": "Cancelled"}
        record = {"type": "control", "epoch": self.ctx.epoch, "payload": payload}
        try:
            handle, provider = self.ctx.handle_of(swarm)
            info = self.ctx.world.swarms.get(swarm)
            worker = info.workers.get(job) if info else None
            if worker is not None:
                await provider.deliver(handle, job, worker.index, record)
        except ProviderError as error:
            self.ctx.event_for(swarm, error.reason, str(error))

    # --- mail --------------------------------------------------------------------------------

    def on_mail(self, batch: RecordBatch) -> None:
        """Lines from an outbox: kept as the transcript, and merged into the facts."""
        self.ctx.transcripts.append(batch)
        now = self.ctx.clock.now()
        for line in batch.lines:
            record = parse(line)
            if record is None:
                continue
            turn = self.ctx.turns.apply(batch.job, record, now)
            self._wake_by(batch.job, record["event"], turn)

    def _wake_by(self, job: str, event: str, turn: TurnFacts | None) -> None:
        if event == rec.THREAD_STATUS:
            self._wake_swarm_of(job)
        if turn is None:
            return
        if event == rec.TURN_COMPLETE:
            self._wake_task_of(turn, 0.0)
            self._dispatcher.wake()
        elif event == rec.EXEC_APPROVAL_REQUIRED:
            self._wake_task_of(turn, 0.0)
        elif event == rec.EXEC_APPROVAL_RESOLVED:
            self._wake_approvals_of(turn)
        elif event in (rec.TURN_STARTED, rec.TASK_STARTED):
            self._wake_task_of(turn, FOLLOW_SECONDS)
        elif event == rec.COMMAND_COMPLETED and turn.merges:
            self._wake_project_of(turn)
        elif event == rec.USAGE:
            self._wake_task_of(turn, USAGE_SECONDS)

    def _wake_task_of(self, turn: TurnFacts, after: float) -> None:
        uid = turn.injection.rpartition(".")[0]
        key = self.ctx.world.by_uid.get(uid)
        if key is not None:
            self.ctx.queue.add(key, after)
        elif turn.complete is not None:
            self.ctx.turns.forget(turn.injection)
        elif not turn.injection.endswith(".system"):
            self._stray(turn)

    def _wake_approvals_of(self, turn: TurnFacts) -> None:
        """A worker has confirmed an answer, or nobody waits for one any more."""
        uid, _, attempt = turn.injection.rpartition(".")
        key = self.ctx.world.by_uid.get(uid)
        if key is not None and attempt.isdigit():
            for request in turn.approvals:
                name = approval_name(key.name, int(attempt), request)
                self.ctx.queue.add(Key("Approval", key.namespace, name))

    def _wake_project_of(self, turn: TurnFacts) -> None:
        """An integration has merged one more branch."""
        key = self.ctx.world.by_uid.get(turn.injection.rpartition(".")[0])
        info = self.ctx.world.tasks.get(key) if key else None
        if info is not None and info.project:
            self.ctx.queue.add(project_key(info), after=MERGED_SECONDS)

    def _stray(self, turn: TurnFacts) -> None:
        """A turn that no Task knows (any more) must not go on."""
        for swarm in self.ctx.world.swarms.values():
            if turn.job in swarm.workers:
                asyncio.get_running_loop().create_task(
                    self._interrupt(swarm.key, turn.job, turn.injection)
                )

    def _wake_swarm_of(self, job: str) -> None:
        for swarm in self.ctx.world.swarms.values():
            if job in swarm.workers:
                self.ctx.queue.add(swarm.key)


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
    return (info.uid, info.revision, info.cancel, info.suspend, info.deleting, info.priority)


def _gates(info: object) -> tuple[object, ...]:
    names = ("accepted", "suspended", "deleting", "halted", "swarms", "max_parallel", "retry",
             "timeout", "stall", "uid")  # fmt: skip
    return tuple(getattr(info, name) for name in names)
