"""Mail from workers: kept as transcripts, merged into facts, and turned into wishes for passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo, project_key
from controller.reconcile.questions import approval_name
from controller.reconcile.turns import TurnFacts, parse
from controller.store.base import Key, StoreUnavailable
from providers.base import NotTaken, ProviderError, RecordBatch
from worker import records as rec

LOG = logging.getLogger(__name__)
FOLLOW_SECONDS = 0.25
"""A turn that ends within this time is settled without having been written as running."""
USAGE_SECONDS = 1.0
MERGED_SECONDS = 0.25


class Mail:
    """What comes out of outboxes, and turns that nobody asks for (any more)."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._full = False

    def orphaned(self, info: TaskInfo) -> None:
        """A Task is gone while its turn runs: the turn is interrupted."""
        if info.open_job:
            swarm = Key("Swarm", info.key.namespace, info.open_swarm)
            asyncio.get_running_loop().create_task(
                self._interrupt(swarm, info.open_job, info.open_injection)
            )

    async def _interrupt(self, swarm: Key, job: str, injection: str) -> None:
        payload = {"action": "interrupt", "injection_id": injection, "reason": "Cancelled"}
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": payload}
        try:
            handle, provider = self._ctx.handle_of(swarm)
            info = self._ctx.world.swarms.get(swarm)
            worker = info.workers.get(job) if info else None
            if worker is not None:
                await provider.deliver(handle, job, worker.index, record)
        except ProviderError as error:
            self._ctx.event_for(swarm, error.reason, str(error))
        except StoreUnavailable as error:
            LOG.warning("%s was not interrupted: %s", job, error)

    def on_mail(self, batch: RecordBatch) -> None:
        """Lines from an outbox: kept as the transcript, and merged into the facts.

        Raises: NotTaken (they cannot be kept now).
        """
        self._keep(batch)
        now = self._ctx.clock.now()
        for line in batch.lines:
            record = parse(line)
            if record is None:
                continue
            turn = self._ctx.turns.apply(batch.job, record, now)
            self._ctx.observer.heard(batch.job, record)
            self._wake_by(batch.job, record, turn)

    def _keep(self, batch: RecordBatch) -> None:
        try:
            self._ctx.transcripts.append(batch)
        except OSError as error:
            if not self._full:
                LOG.error(
                    "mail of %s waits, its transcript cannot be written: %s", batch.job, error
                )
            self._full = True
            raise NotTaken from error
        self._full = False

    def _wake_by(self, job: str, record: Mapping[str, Any], turn: TurnFacts | None) -> None:
        event = record["event"]
        if event == rec.THREAD_STATUS:
            self.wake_swarm_of(job)
        if turn is None:
            return
        if event == rec.TURN_COMPLETE:
            self._wake_task_of(turn, 0.0)
            self._ctx.wake_dispatch()
        elif event == rec.EXEC_APPROVAL_REQUIRED:
            self._wake_task_of(turn, 0.0)
        elif event == rec.EXEC_APPROVAL_RESOLVED:
            self._wake_approvals(turn, [str(record["data"].get("request_id"))])
            self._wake_task_of(turn, FOLLOW_SECONDS)
        elif event in (rec.TURN_STARTED, rec.TASK_STARTED):
            self._wake_task_of(turn, FOLLOW_SECONDS)
        elif event == rec.COMMAND_COMPLETED and turn.merges:
            self._wake_project_of(turn)
        elif event == rec.USAGE:
            self._wake_task_of(turn, USAGE_SECONDS)

    def _wake_task_of(self, turn: TurnFacts, after: float) -> None:
        """The Task whose open attempt this is; any other is ended, then dropped.

        An answer may come before the assignment's own write has been taken over: an attempt that
        is newer than the one known here is the Task's as well.
        """
        uid, _, attempt = turn.injection.rpartition(".")
        key = self._ctx.world.by_uid.get(uid)
        task = self._ctx.world.tasks.get(key) if key else None
        number = int(attempt) if attempt.isdigit() else 0
        if task is not None and (task.open_injection == turn.injection or number > task.attempt):
            self._ctx.queue.add(task.key, after)
        elif turn.complete is not None and not turn.injection.endswith(".system"):
            self._ctx.turns.forget(turn.injection)
        else:
            self.wake_swarm_of(turn.job)  # whose pass ends turns that nobody asks for

    def wake_approvals_of(self, turn: TurnFacts) -> None:
        """Nobody waits for an answer any more."""
        self._wake_approvals(turn, turn.approvals)

    def _wake_approvals(self, turn: TurnFacts, requests: Iterable[str]) -> None:
        uid, _, attempt = turn.injection.rpartition(".")
        key = self._ctx.world.by_uid.get(uid)
        if key is not None and attempt.isdigit():
            for request in requests:
                name = approval_name(key.name, int(attempt), request)
                self._ctx.queue.add(Key("Approval", key.namespace, name))

    def _wake_project_of(self, turn: TurnFacts) -> None:
        """An integration has merged one more branch."""
        key = self._ctx.world.by_uid.get(turn.injection.rpartition(".")[0])
        info = self._ctx.world.tasks.get(key) if key else None
        if info is not None and info.project:
            self._ctx.queue.add(project_key(info), after=MERGED_SECONDS)

    def wake_swarm_of(self, job: str) -> None:
        """Something about this worker changed."""
        for swarm in self._ctx.world.swarms.values():
            if job in swarm.workers:
                self._ctx.queue.add(swarm.key)
