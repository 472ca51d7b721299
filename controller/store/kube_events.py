"""Kubernetes Events of what the controller tells people: folded, in the background, never fatal."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.resources import kinds
from controller.store.base import Key, NotFound, StoreError
from controller.store.kube_api import FIELD_MANAGER, Api, Check
from controller.store.kube_rest import path_of

LOG = logging.getLogger(__name__)

WAITING = 2_000
"""Events that may wait to be sent; beyond it the newest are dropped."""
FOLDED = 2_000
"""Sent events that a repetition is counted on."""
SENDERS = 2
MESSAGE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class _Happening:
    key: Key
    uid: str
    type: str
    reason: str
    message: str
    at: str

    @property
    def identity(self) -> tuple[str, ...]:
        return (self.uid, self.type, self.reason, self.message)


@dataclass(slots=True)
class _Sent:
    name: str
    count: int


class Recorder:
    """Sends events one after another; what cannot be sent is dropped with a word in the log.

    Args:
        api: the server.
        check: asked before each is sent; raises, if this process may not write any more.
    """

    def __init__(self, api: Api, check: Check) -> None:
        self._api = api
        self._check = check
        self._queue: asyncio.Queue[_Happening] = asyncio.Queue(WAITING)
        self._sent: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._senders: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to send."""
        loop = asyncio.get_running_loop()
        self._senders = [loop.create_task(self._send(), name="events") for _ in range(SENDERS)]

    async def close(self, seconds: float = 2.0) -> None:
        """Give what waits a moment, then stop."""
        try:
            await asyncio.wait_for(self._queue.join(), seconds)
        except TimeoutError:
            LOG.warning("%d events were not sent", self._queue.qsize())
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)

    def record(self, key: Key, uid: str, type: str, reason: str, message: str) -> None:
        """Note an event of an object."""
        text = message.encode("utf-8", "replace").decode()
        if len(text) > MESSAGE_LENGTH:
            text = text[: MESSAGE_LENGTH - 1] + "…"
        try:
            self._queue.put_nowait(_Happening(key, uid, type, reason, text, _now()))
        except asyncio.QueueFull:
            LOG.warning("%s: event %s was dropped: too many wait", key, reason)

    async def _send(self) -> None:
        while True:
            happening = await self._queue.get()
            try:
                await self._post(happening)
            except StoreError as error:
                LOG.info("%s: event %s was not sent: %s", happening.key, happening.reason, error)
            finally:
                self._queue.task_done()

    async def _post(self, happening: _Happening) -> None:
        known = self._sent.get(happening.identity)
        if known is not None:
            known.count += 1
            try:
                await self._count(happening, known)
            except NotFound:  # it was too old, and the server has dropped it
                del self._sent[happening.identity]
            else:
                return
        name = f"{happening.key.name[:220]}.{uuid.uuid4().hex[:16]}"
        self._sent[happening.identity] = _Sent(name, 1)
        while len(self._sent) > FOLDED:
            self._sent.popitem(last=False)
        path = path_of("Event", happening.key.namespace)
        await self._api.request("POST", path, body=_body(happening, name), check=self._check)

    async def _count(self, happening: _Happening, sent: _Sent) -> None:
        path = path_of("Event", happening.key.namespace, sent.name)
        change = {"count": sent.count, "lastTimestamp": happening.at}
        type_ = "application/merge-patch+json"
        await self._api.request("PATCH", path, body=change, content_type=type_, check=self._check)


def _body(happening: _Happening, name: str) -> dict[str, Any]:
    key = happening.key
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": key.namespace},
        "involvedObject": {
            "apiVersion": kinds.get(key.kind).api_version,
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "uid": happening.uid,
        },
        "type": happening.type,
        "reason": happening.reason,
        "message": happening.message,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": happening.at,
        "lastTimestamp": happening.at,
        "count": 1,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
