"""One controller at a time on a cluster: a Lease, and the epoch that fences what it does.

The holder renews the Lease; who waits takes it over when it saw no renewal for its whole
duration, by its own monotonic clock, so that clocks of different machines are never compared
(as in client-go's leaderelection).  The holder itself stops writing some seconds earlier.

The epoch stands in an annotation and rises with every take-over.  It begins with the time, in
milliseconds, so that it rises even if somebody deletes the Lease.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.runtime.lock import start_time
from controller.store.base import (
    AlreadyExists,
    Conflict,
    Key,
    NotFound,
    Resource,
    StoreError,
    StoreUnavailable,
)
from controller.store.kube_api import FIELD_MANAGER, Api
from controller.store.kube_rest import path_of

LOG = logging.getLogger(__name__)

NAME = "codeswarm-controller"
EPOCH = "codeswarm.dev/epoch"
DURATION_SECONDS = 15.0
RENEW_SECONDS = 5.0
MARGIN_SECONDS = 3.0
"""The holder holds its hands still so long before anybody may take over."""
POLL_SECONDS = 2.0
"""Between two looks of one that waits."""
RETRY_SECONDS = 0.5
"""After a renewal that failed."""
_REQUEST_SECONDS = 4.0
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Fenced(StoreUnavailable):
    """This controller does not hold the Lease (any more): it must do nothing."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who holds a Lease, as its ``holderIdentity`` says."""

    text: str
    pod: str = ""

    @classmethod
    def of_this_process(cls) -> Identity:
        """The pod's name, or host, boot, pid and start time of the process."""
        pod = os.environ.get("POD_NAME", "") or (
            os.environ.get("HOSTNAME", "") if "KUBERNETES_SERVICE_HOST" in os.environ else ""
        )
        if pod:
            return cls(pod, pod)
        return cls("_".join([os.uname().nodename, _boot(), str(os.getpid()), _start(os.getpid())]))

    def outlives(self, holder: str) -> bool:
        """Whether it is certain that a holder is no more.

        A pod runs one controller, so its former one has ended; and a process of this machine and
        boot is gone if there is none of its pid and start time.
        """
        if self.pod:
            return holder == self.pod
        parts = holder.rsplit("_", 3)
        if len(parts) != 4 or parts[:2] != self.text.rsplit("_", 3)[:2] or not parts[2].isdigit():
            return False
        return _start(int(parts[2])) != parts[3]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _start(pid: int) -> str:
    return start_time(pid)


class Lease:
    """The Lease of one controller's deployment.

    Args:
        api: the server.
        namespace: where the Lease is.
        identity: ours.
    """

    def __init__(self, api: Api, namespace: str, identity: Identity | None = None) -> None:
        self._api = api
        self._key = Key("Lease", namespace, NAME)
        self._identity = identity or Identity.of_this_process()
        self._valid_until = 0.0
        self._version = ""
        self.name = f"{namespace}/{NAME}"
        self.epoch = 0
        self.uid = ""
        """The object's uid, once it is held: which home this is, for what it leaves elsewhere."""
        self.waits_for = ""
        """Who holds it, while we wait."""
        self.trouble = ""
        """Why it cannot be had now, whoever holds it."""

    @property
    def held(self) -> bool:
        """Whether we may act now."""
        return self.left() > 0

    def left(self) -> float:
        """Seconds for which we may act, if it is not renewed."""
        return self._valid_until - _clock()

    def check(self) -> None:
        """Raises: Fenced, if we may not act."""
        if not self.held:
            raise Fenced(f"{self.name} is not held (any more)")

    async def acquire(self) -> int:
        """Wait until it is ours; the epoch. Raises: StoreError, for what waiting cannot mend."""
        seen, since = "", _clock()
        last: Resource | None = None
        """A Lease that somebody deletes: who held it learns of that only when it renews."""
        while True:
            try:
                found = await self._read()
                version = found["metadata"]["resourceVersion"] if found else ""
                if version != seen:
                    seen, since = version, _clock()
                last = found or last
                if last is None or self._free(last, since):
                    return await self._take(found)
                self._waits(_holder(last))
            except (Conflict, AlreadyExists):
                continue  # somebody else was faster: look again
            except (NotFound, StoreUnavailable) as error:
                if self.trouble != str(error):
                    self.trouble = str(error)
                    LOG.warning("%s: %s", self._key, error)
            await asyncio.sleep(POLL_SECONDS)

    def _free(self, found: Resource, since: float) -> bool:
        holder = _holder(found)
        seconds = float(found["spec"].get("leaseDurationSeconds") or DURATION_SECONDS)
        gone = not holder or self._identity.outlives(holder)
        return gone or _clock() - since > seconds

    def _waits(self, holder: str) -> None:
        self.trouble = ""
        if self.waits_for != holder:
            LOG.info("waiting for the lease that %s holds", holder)
            self.waits_for = holder

    async def identities(self) -> tuple[str, ...]:
        """Which home this is, for what it leaves elsewhere (tags of machines): the uid of the
        Lease's namespace, which outlives the Lease, where it may be read, and the Lease's own.

        The first one is what new things are marked with; what has any of them is ours.
        """
        found = [self.uid] if self.uid else []
        try:
            space = await self._api.request(
                "GET", f"/api/v1/namespaces/{self._key.namespace}", seconds=_REQUEST_SECONDS
            )
        except StoreError as error:
            LOG.info("the namespace's uid is not known: %s", error)
        else:
            found.insert(0, str(space["metadata"]["uid"]))
        return tuple(found)

    async def hold(self) -> None:
        """Renew it for ever. Raises: Fenced, when it is lost."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._renew()

    async def _renew(self) -> None:
        while self.held:
            try:
                async with asyncio.timeout(self.left()):
                    await self._renew_once()
                    return
            except TimeoutError:
                break
            except Fenced:
                raise
            except StoreError as error:
                LOG.warning("%s was not renewed: %s", self._key, error)
                await asyncio.sleep(RETRY_SECONDS)
        raise Fenced(
            f"{self._key} was not renewed in time: another controller may go on in its place"
        )

    async def _renew_once(self) -> None:
        while True:
            try:
                found = await self._write(self._version, {"renewTime": _now()}, _clock())
            except (Conflict, NotFound) as error:
                await self._examine(error)
            else:
                self._version = found["metadata"]["resourceVersion"]
                return

    async def _examine(self, error: StoreError) -> None:
        """Somebody wrote the Lease: still ours, if our own write was only not confirmed."""
        found = await self._read()
        ours = found is not None and _holder(found) == self._identity.text
        if found is None or not ours or _epoch(found) != self.epoch:
            self._valid_until = 0.0
            who = _holder(found) if found else "nobody: it was deleted"
            raise Fenced(f"{self._key} is held by {who}") from error
        self._version = found["metadata"]["resourceVersion"]

    async def release(self) -> None:
        """Give it up, so that the next one need not wait."""
        if not self.held:
            return
        self._valid_until = 0.0
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._write(self._version, {"holderIdentity": ""}, _clock())
        except (StoreError, TimeoutError) as error:
            LOG.info("%s was not released: %s", self._key, error)
        self._valid_until = 0.0

    # --- requests ------------------------------------------------------------------------------

    async def _read(self) -> Resource | None:
        path = path_of(*self._key)
        try:
            return await self._api.request("GET", path, seconds=_REQUEST_SECONDS)
        except NotFound:
            return None

    async def _take(self, found: Resource | None) -> int:
        began = _clock()
        epoch = max(_epoch(found) + 1 if found else 0, int(time.time() * 1000))
        spec = {
            "holderIdentity": self._identity.text,
            "leaseDurationSeconds": int(DURATION_SECONDS),
            "acquireTime": _now(),
            "renewTime": _now(),
            "leaseTransitions": _transitions(found) + 1,
        }
        if found is None:
            stored = await self._create(spec, epoch)
            self._valid_until = began + DURATION_SECONDS - MARGIN_SECONDS
        else:
            version = found["metadata"]["resourceVersion"]
            stored = await self._write(version, spec, began, epoch=epoch)
        self._version = stored["metadata"]["resourceVersion"]
        self.uid = str(stored["metadata"].get("uid") or "")
        self.epoch, self.waits_for, self.trouble = epoch, "", ""
        return epoch

    async def _create(self, spec: dict[str, Any], epoch: int) -> Resource:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._key.name,
                "namespace": self._key.namespace,
                "annotations": {EPOCH: str(epoch)},
            },
            "spec": spec,
        }
        path = path_of("Lease", self._key.namespace)
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._api.request(
            "POST", path, body=body, query=query, seconds=_REQUEST_SECONDS
        )

    async def _write(
        self, version: str, spec: dict[str, Any], began: float, *, epoch: int | None = None
    ) -> Resource:
        """Change the Lease as it was read; valid from when the request ``began``."""
        metadata: dict[str, Any] = {"resourceVersion": version}
        if epoch is not None:
            metadata["annotations"] = {EPOCH: str(epoch)}
        found = await self._api.request(
            "PATCH",
            path_of(*self._key),
            body={"metadata": metadata, "spec": spec},
            query=[("fieldManager", FIELD_MANAGER)],
            content_type="application/merge-patch+json",
            seconds=_REQUEST_SECONDS,
        )
        self._valid_until = began + DURATION_SECONDS - MARGIN_SECONDS
        return found


def _clock() -> float:
    """Seconds that go on while the machine sleeps: its Lease runs out all the same."""
    return time.clock_gettime(_CLOCK)


def _holder(found: Resource) -> str:
    return str((found.get("spec") or {}).get("holderIdentity") or "")


def _epoch(found: Resource) -> int:
    text = str((found["metadata"].get("annotations") or {}).get(EPOCH) or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _transitions(found: Resource | None) -> int:
    return int((found or {}).get("spec", {}).get("leaseTransitions") or 0)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
