"""Dispatch: ready tasks to idle workers, the intent committed before anything is delivered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from controller.domain.scheduling import (
    Assignment,
    IdleWorker,
    ProjectLoad,
    ReadyQueue,
    ReadyTask,
    assign,
)
from controller.reconcile.attempts import Undeliverable, begin_attempt, user_record
from controller.reconcile.budget import halted
from controller.reconcile.carriages import NotYet
from controller.reconcile.carrying import carry_out
from controller.reconcile.context import Context
from controller.reconcile.infos import TaskInfo, WorkerInfo, project_key
from controller.reconcile.readiness import pool_of, unready
from controller.reconcile.task_status import task_conditions
from controller.repository.problems import RepositoryProblem
from controller.store.base import (
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
    key_of,
)
from providers.base import ProviderError

LOG = logging.getLogger(__name__)

ACKNOWLEDGE_SECONDS = 10.0
"""After this long without a word from the worker the record is delivered again."""
UNAVAILABLE_SECONDS = 2.0
"""Between two attempts to write an intent."""

Mail = tuple[dict[str, Any], dict[str, str] | None]
"""An inbox record, and the secrets that go beside it."""


def swarm_id(namespace: str, name: str) -> str:
    """A swarm's name in pools: tasks of several namespaces share one queue."""
    return f"{namespace}/{name}"


class Dispatcher:
    """Keeps the queue of ready tasks and pairs it with idle workers, one look at a time."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._ready: ReadyQueue[Key] = ReadyQueue()
        self._wanted = False
        self._running: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def __contains__(self, key: Key) -> bool:
        """Whether a task only waits for a worker."""
        return key in self._ready

    def wake(self) -> None:
        """Ask for a look; several wishes of one turn of the event loop are one look."""
        if not self._wanted:
            self._wanted = True
            asyncio.get_running_loop().call_soon(self._look)

    def refresh(self, info: TaskInfo) -> None:
        """Put a task into the queue or take it out, by what the world says of it now."""
        if self._ctx.world.is_reserved(info.key):
            return  # it is being assigned, and looked at again after that
        project = self._ctx.world.projects.get(project_key(info)) if info.project else None
        unseen = project is not None and not project.looked
        if unseen or unready(self._ctx.world, info, self._ctx.clock.now()):
            self._ready.remove(info.key)
            return
        namespace = info.key.namespace
        position = project.order.get(info.name, len(project.order)) if project else 0
        self._ready.add(
            ReadyTask(
                key=info.key,
                pool=tuple(swarm_id(namespace, s) for s in pool_of(self._ctx.world, info)),
                priority=info.priority,
                order=("" if project else info.created, position, info.created, info.name),
                worker=info.worker,
                project=f"{namespace}/{info.project}" if info.project else None,
                owned_paths=info.owned_paths,
            )
        )
        self.wake()

    def forget(self, info: TaskInfo) -> None:
        """A task is gone."""
        self._ready.remove(info.key)

    def _loads(self) -> Mapping[str, ProjectLoad[Key]]:
        loads = {}
        for key, project in self._ctx.world.projects.items():
            name = f"{key.namespace}/{key.name}"
            loads[name] = ProjectLoad(
                running=len(project.running),
                max_parallel=project.max_parallel,
                claims=self._ctx.world.claims(key),
            )
        return loads

    def _look(self) -> None:
        self._wanted = False
        if not len(self._ready) or self._closing.is_set():
            return
        workers = {w.job: w for w in self._ctx.world.idle_workers() if self._takes(w)}
        if not workers:
            return
        idle = [
            IdleWorker(swarm_id(w.swarm.namespace, w.swarm.name), w.index, w.job)
            for w in workers.values()
        ]
        for assignment in assign(self._ready, idle, self._loads()):
            self._begin(assignment, workers[assignment.worker.job])

    def _takes(self, worker: WorkerInfo) -> bool:
        facts = self._ctx.turns.workers.get(worker.job)
        if facts is None or facts.active or facts.leaving or facts.frozen_since is not None:
            return False
        swarm = self._ctx.world.swarms[worker.swarm]
        if swarm.silence is not None:
            return False
        # What it was started with, where that is known: its swarm may have another by now.
        credential = worker.credential or swarm.credential
        if self._ctx.world.pauses.held(credential, self._ctx.clock.now()):
            return False
        return halted(self._ctx.world, swarm) is None

    def _begin(self, assignment: Assignment[Key], worker: WorkerInfo) -> None:
        """Reserve both sides at once, then write and deliver."""
        info = self._ctx.world.tasks[assignment.task.key]
        self._ready.remove(info.key)
        self._ctx.world.reserve(info, worker)
        task = asyncio.get_running_loop().create_task(self._assign(info.key, worker))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _assign(self, key: Key, worker: WorkerInfo) -> None:
        again = False
        try:
            await self._commit_and_deliver(key, worker)
            again = True
        except (Conflict, NotFound):
            self._ctx.queue.add(key, after=0.05)
            again = True
        except (Undeliverable, RepositoryProblem):
            self._ctx.queue.add(key, after=0.05)  # its pass finds out why, and puts it back
        except NotYet:
            self._ctx.queue.add(key, after=1.0)  # its pass delivers it; it is woken before
        except ProviderError:
            self._ctx.queue.add(key, after=0.5)
            self._ctx.queue.add(worker.swarm)
        except StoreError as error:
            LOG.error("%s: %s", key, error)
            self._ctx.queue.add(key, after=2.0)
        except Exception as error:
            self._ctx.report(key, error)
            self._ctx.queue.add(key, after=1.0)
        finally:
            self._ctx.world.unreserve(key)
            info = self._ctx.world.tasks.get(key)
            if info is not None and again:
                self.refresh(info)
            self.wake()

    async def _commit_and_deliver(self, key: Key, worker: WorkerInfo) -> None:
        """What cannot be delivered is found out before it is written down."""
        obj = self._ctx.store.get(key)
        if obj is None:
            return
        status = begin_attempt(self._ctx, obj, worker)
        mail = user_record(self._ctx, {**obj, "status": status})
        task_conditions(self._ctx, obj, status)
        injection = status["attempts"][-1]["injectionId"]
        self._ctx.delivering.add(injection)  # the task's own pass begins as soon as it is written
        try:
            stored = await self._written(obj, status)
            await deliver(self._ctx, stored, mail)
        finally:
            self._ctx.delivering.discard(injection)
        self._ctx.queue.add(key, after=ACKNOWLEDGE_SECONDS)
        self._ctx.queue.add(worker.swarm, after=1.0)

    async def _written(self, obj: Resource, status: Mapping[str, Any]) -> Resource:
        """Write the intent until it is certain what came of it.

        Without an answer it may be stored or not.  The worker stays promised until then, else it
        would be given a second task.  The version in the write keeps it from being stored twice.
        """
        while True:
            try:
                return await self._ctx.write_status(obj, status)
            except StoreUnavailable as error:
                if self._closing.is_set():
                    raise
                self._ctx.unavailable(key_of(obj), error)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), UNAVAILABLE_SECONDS)

    async def close(self) -> None:
        """Begin nothing more, and let the writes that are under way finish."""
        self._closing.set()
        while self._running:
            await asyncio.wait(self._running)


async def deliver(ctx: Context, obj: dict[str, Any], mail: Mail | None = None) -> None:
    """Hand the open attempt of a stored Task to its worker; safe to repeat.

    ``mail`` is its record and secrets, if they are at hand.

    Raises: ProviderError, Undeliverable; where workers do not reach repositories also NotYet (it
        is being sent there), RepositoryProblem (it cannot be).
    """
    attempt = obj["status"]["attempts"][-1]
    swarm = Key("Swarm", obj["metadata"]["namespace"], attempt["swarm"])
    handle, provider = ctx.handle_of(swarm)
    record, secrets = mail or user_record(ctx, obj)
    if provider.stores is not None and "repository" in record:
        record, secrets = await carry_out(ctx, obj, record), None
    await provider.deliver(handle, attempt["job"], attempt["worker"], record, secrets=secrets)
    ctx.delivered.add(attempt["injectionId"])
