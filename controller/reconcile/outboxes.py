"""Which outboxes are followed, and which workers the world knows: both follow a swarm's table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from controller.domain.fleet import Entry
from controller.reconcile.context import Context
from controller.reconcile.infos import WorkerInfo
from controller.reconcile.readiness import pool_of
from controller.store.base import Key, Resource
from providers.base import Provider, ProviderError, SwarmHandle

INTERRUPT_AGAIN_SECONDS = 10.0


class Outboxes:
    """Follows workers from their first sight until they are gone."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._followed: dict[Key, dict[str, Provider]] = {}
        self._interrupted: dict[str, float] = {}

    def attach(
        self,
        obj: Resource,
        handle: SwarmHandle,
        provider: Provider,
        entries: Iterable[Entry],
        jobs: Collection[str],
    ) -> None:
        """Follow those of a table's workers that left a trace (each once)."""
        key = Key("Swarm", handle.namespace, handle.name)
        followed = self._followed.setdefault(key, {})
        for entry in entries:
            if entry.job in followed or entry.job not in jobs:
                continue
            settled = self._ctx.transcripts.open(
                handle.namespace, handle.name, handle.uid, entry.job
            )
            facts = self._ctx.turns.worker(entry.job)
            facts.ready = entry.ready_at is not None
            facts.seq = self._ctx.transcripts.last_seq(entry.job) if facts.ready else 0
            followed[entry.job] = provider
            provider.follow(handle, entry.job, entry.index, settled if facts.ready else 0)

    def promise(self, key: Key, provider: str, workers: int) -> None:
        """So many workers there will be, once that is written: others leave them room."""
        info = self._ctx.world.swarms.get(key)
        if info is not None:
            info.provider, info.replicas = provider, workers

    def publish(
        self, key: Key, entries: Sequence[Entry], *, open: bool = True, spec_hash: str = ""
    ) -> list[str]:
        """Tell the world which workers there are, and let go of the others; their jobs.

        Without ``open`` none of them is given tasks.  Those of ``spec_hash`` have the swarm's
        present credential.
        """
        info = self._ctx.world.swarms.get(key)
        if info is None:
            return []
        before = info.workers
        info.workers = {
            e.job: WorkerInfo(
                key,
                e.index,
                e.job,
                ready=open and e.phase in ("Idle", "Busy"),
                credential=info.credential if e.spec_hash == spec_hash else "",
            )
            for e in entries
        }
        first, info.observed = not info.observed, True
        gone = [job for job in {**self._followed.get(key, {}), **before} if job not in info.workers]
        self._let_go(key, gone)
        self._wake_orphans(list(self._ctx.world.open_jobs) if first else gone)
        if set(before) != set(info.workers):
            self._wake_prompts(key)
        if first:
            self.wake_waiting(key)
        if any(w.ready and not (j in before and before[j].ready) for j, w in info.workers.items()):
            self._ctx.wake_dispatch()
        return gone

    def gone(self, key: Key) -> list[str]:
        """A swarm is gone, its workers with it; their jobs."""
        info = self._ctx.world.forget_swarm(key)
        gone = list({**self._followed.pop(key, {}), **(info.workers if info else {})})
        self._let_go(key, gone)
        self._ctx.wake_dispatch()
        self._wake_prompts(key)
        self._wake_orphans(list(self._ctx.world.open_jobs))
        self.wake_waiting(key)
        return gone

    async def end_strays(self, handle: SwarmHandle, provider: Provider) -> None:
        """Interrupt turns that are no open attempt of any Task (any more)."""
        info = self._ctx.world.swarms.get(Key("Swarm", handle.namespace, handle.name))
        for worker in info.workers.values() if info else ():
            facts = self._ctx.turns.workers.get(worker.job)
            injection = facts.active if facts else ""
            if injection and not self._wanted(worker.job, injection):
                await self._interrupt(handle, provider, worker, injection)

    def _wanted(self, job: str, injection: str) -> bool:
        if injection == f"{job}.system":
            return True
        task = self._ctx.world.by_uid.get(injection.rpartition(".")[0])
        info = self._ctx.world.tasks.get(task) if task else None
        return info is not None and info.open_injection == injection

    async def _interrupt(
        self, handle: SwarmHandle, provider: Provider, worker: WorkerInfo, injection: str
    ) -> None:
        now = self._ctx.clock.now()
        last = self._interrupted.get(worker.job)
        if last is not None and now - last < INTERRUPT_AGAIN_SECONDS:
            return
        self._interrupted[worker.job] = now
        payload = {"action": "interrupt", "injection_id": injection, "reason": "Cancelled"}
        record = {"type": "control", "epoch": self._ctx.epoch, "payload": payload}
        try:
            await provider.deliver(handle, worker.job, worker.index, record)
        except ProviderError as error:
            key = Key("Swarm", handle.namespace, handle.name)
            self._ctx.event_for(key, error.reason, str(error))

    def _let_go(self, key: Key, jobs: Iterable[str]) -> None:
        followed = self._followed.get(key, {})
        for job in jobs:
            provider = followed.pop(job, None)
            if provider is not None:
                provider.unfollow(job)
            self._interrupted.pop(job, None)
            self._ctx.turns.forget_worker(job)
            self._ctx.transcripts.close(job)

    def _wake_orphans(self, jobs: Iterable[str]) -> None:
        """Tasks whose worker is gone want a pass."""
        for job in jobs:
            task = self._ctx.world.open_jobs.get(job)
            if task is not None:
                self._ctx.queue.add(task)

    def wake_waiting(self, key: Key) -> None:
        """Tasks that wait for a worker of this swarm: why they do may be something else now."""
        for task in self._ctx.world.tasks.values():
            mine = task.key.namespace == key.namespace and not (task.finished or task.open_job)
            if mine and key.name in pool_of(self._ctx.world, task):
                self._ctx.queue.add(task.key, leisurely=True)

    def _wake_prompts(self, key: Key) -> None:
        """Prompts to this swarm may have workers now, or none any more."""
        for task in self._ctx.world.targeting(key):
            if not task.finished and (task.expands or task.worker is not None):
                self._ctx.queue.add(task.key)
