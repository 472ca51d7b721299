"""The observer of one controller: counts what happens, and passes live records on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.http.counts import Counts
from controller.http.feed import Feed, Item
from controller.http.tokens import Tokens
from controller.reconcile.context import Context
from controller.reconcile.infos import SwarmInfo, TaskInfo
from controller.reconcile.observer import Observer
from controller.store.base import Key, Resource


class Monitor(Observer):
    """Made before the ``Context`` that it is given to; ``watch`` then tells it of that."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.tokens = Tokens()
        self.feed = Feed()
        self.ctx: Context | None = None

    def watch(self, ctx: Context) -> None:
        """Whose picture of the world metrics and live records are told from."""
        self.ctx = ctx

    def waited(self, key: Key, seconds: float) -> None:
        """As ``Observer.waited``."""
        self.counts.waits.add((key.kind,), seconds)

    def passed(self, key: Key, result: str, seconds: float) -> None:
        """As ``Observer.passed``."""
        self.counts.passes[key.kind, result] += 1
        self.counts.durations.add((key.kind,), seconds)

    def task(self, before: TaskInfo | None, info: TaskInfo, obj: Resource, initial: bool) -> None:
        """As ``Observer.task``."""
        self.tokens.task(before, info, obj, initial)
        if not initial:
            self.counts.task(before, info, obj)

    def task_gone(self, info: TaskInfo) -> None:
        """As ``Observer.task_gone``."""
        self.tokens.gone(info)

    def swarm(self, info: SwarmInfo, obj: Resource, initial: bool) -> None:
        """As ``Observer.swarm``."""
        self.tokens.swarm(info, obj, initial)

    def heard(self, job: str, record: Mapping[str, Any]) -> None:
        """As ``Observer.heard``."""
        self.counts.records[record["event"],] += 1
        if self.ctx is not None and len(self.feed):
            self._publish(self.ctx, job, record)

    def _publish(self, ctx: Context, job: str, record: Mapping[str, Any]) -> None:
        namespace, swarm = ctx.transcripts.place(job)
        if not namespace:
            return
        uid = (record.get("injection_id") or "").rpartition(".")[0]
        key = ctx.world.by_uid.get(uid)
        task = key.name if key is not None and key.namespace == namespace else ""
        about = {"namespace": namespace, "swarm": swarm, "job": job, "task": task or None}
        try:
            # Written anew: what agents wrote may have line ends that break the stream's framing.
            text = json.dumps({**about, "record": record}, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError):
            return
        self.feed.publish(Item(namespace, swarm, task, text.encode()))
