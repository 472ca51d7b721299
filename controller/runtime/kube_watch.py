"""kopf's part: its watches tell the store which object is different now, and nothing else.

Handlers here decide nothing, patch nothing and are never retried: what they miss or repeat does
no harm, since the reconcilers look at the store afresh.  kopf keeps the streams alive: it connects
again, lists anew when a version is too old, and gives up streams that are silent for too long.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from typing import Any, cast

import aiohttp
import kopf
from kopf import AiohttpSession

from controller.resources.kinds import GROUP, VERSION, kinds
from controller.runtime import kopf_log
from controller.store.base import StoreError
from controller.store.kube import WATCHED, KubeStore
from controller.store.kube_api import Api

LOG = logging.getLogger(__name__)

SERVER_SECONDS = 600
"""After which the server ends a watch by itself, and it is begun anew."""
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
SILENT_SECONDS = 70.0
"""A stream without a byte for so long is begun anew (servers send a bookmark a minute)."""
WORKERS = 2000
IDLE_SECONDS = 0.5
"""kopf serves a changed object by a task that ends so long after the last change of it, and by at
most ``WORKERS`` tasks of a kind: if more objects change in this time, they are told of late."""
RELISTED_SECONDS = 1.0
"""After the last object of a new listing of kopf's, ours looks for what is gone."""
AGAIN_SECONDS = 5.0
"""Before a list that failed is read again."""
DEAF_SECONDS = 60.0
"""After which every kind must have been listed: kopf leaves out, for ever, what the server's
discovery does not name when it begins."""
LEFT_SECONDS = 30.0
"""In which objects of the other kinds are marked as deleted, when all CRDs go at once."""
STOP_SECONDS = 5.0
BACKOFFS = (0.5, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)
LAST_BACKOFF = 15.0


class _Patience:
    """Pauses between a request's attempts, seconds: without end.

    A watch that was given up would end the controller; whether it has been deaf for too long is
    for the dead-man's switch to tell, and whether it may go on for the Lease.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain(BACKOFFS, itertools.repeat(LAST_BACKOFF))


class WatchFailed(StoreError):
    """The watches ended, and nothing is noticed any more: the process has to begin anew."""


class _NoMemory(kopf.DiffBaseStorage):
    """No copy of each object to compare with: there are no handlers of differences."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None


class Watches:
    """The watch streams of one controller.

    Args:
        api: whose credentials are used.
        store: is fed.
        namespace: the only one; None: all.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: Api,
        store: KubeStore,
        namespace: str | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._store = store
        self._namespace = namespace
        self._clock = clock
        self._heard = clock()
        self._relisted: dict[str, asyncio.TimerHandle] = {}
        self._syncing: set[asyncio.Task[None]] = set()
        self._plurals = {kind.plural: kind.kind for kind in kinds() if kind.kind in WATCHED}
        self._listed: set[str] = set()

    def age(self) -> float:
        """Seconds since the last byte of any watch, or the last list."""
        return self._clock() - self._heard

    def heard(self) -> None:
        """Something came from the server."""
        self._heard = self._clock()

    async def run(self, started: Callable[[], None], stop: asyncio.Event) -> None:
        """Watch until ``stop`` is set.

        Args:
            started: called when kopf has taken what it takes (signals among it).

        Raises: WatchFailed.
        """
        kopf_log.install()
        while True:
            error = await self._watch(started, stop)
            if stop.is_set():
                return
            if not _is_gone(error):
                text = getattr(error, "message", None) or error or "cancelled"
                raise WatchFailed(f"the watches ended: {text}")
            await self._go_on_without()

    async def _watch(
        self, started: Callable[[], None], stop: asyncio.Event
    ) -> BaseException | None:
        """Watch what is served; what ended it."""
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_settings(),
            standalone=True,
            clusterwide=self._namespace is None,
            namespaces=[] if self._namespace is None else [self._namespace],
            stop_flag=stop,
        )
        started()
        loop = asyncio.get_running_loop()
        all_tasks: list[asyncio.Task[Any]] = [
            loop.create_task(self._all_listed()),
            loop.create_task(self._all_served()),
            *tasks,
        ]
        try:
            done, _ = await asyncio.wait(all_tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for handle in self._relisted.values():
                handle.cancel()
            # When one watcher has failed, kopf leaves the others alone; and whoever cancels them
            # together with what they wait for, as a closing event loop does, never ends them.
            await _end(task for task in asyncio.all_tasks() if _is_watcher(task))
            await _end([*all_tasks, *self._syncing])
        errors = [task.exception() for task in done if not task.cancelled()]
        return next((error for error in errors if error is not None), None)

    async def _go_on_without(self) -> None:
        """A kind is not served any more: let go what is being deleted of the others.

        Raises: WatchFailed, if there is nothing to do without it.
        """
        before: tuple[str, ...] = ()
        deadline = self._clock() + LEFT_SECONDS
        while True:
            try:
                served = await self._store.survey()
            except StoreError as error:
                raise WatchFailed(f"the watches ended: {error}") from error
            if served == WATCHED:
                raise WatchFailed("the watches ended: a kind was not served for a moment")
            leaves = self._store.leaves(served)
            if not served or (not leaves and self._clock() > deadline):
                raise WatchFailed(f"the watches ended: {not_served(served)}")
            if leaves and served == before:
                LOG.warning("%s; what is being deleted is let go", not_served(served))
                self._store.serve(served)
                return
            before = served
            await asyncio.sleep(RELISTED_SECONDS)

    async def _all_listed(self) -> None:
        """Raises: WatchFailed, if that takes too long."""
        self._listed.clear()
        await asyncio.sleep(DEAF_SECONDS)
        deaf = set(self._store.served) - self._listed
        if deaf:
            raise WatchFailed(f"not to be watched in {DEAF_SECONDS:g} s: {', '.join(sorted(deaf))}")
        await asyncio.Event().wait()

    async def _all_served(self) -> None:
        """Raises: WatchFailed, when the server knows kinds that it did not."""
        missing = [kind for kind in WATCHED if kind not in self._store.served]
        while missing:
            await asyncio.sleep(AGAIN_SECONDS)
            for kind in missing:
                try:
                    await self._store.sync([kind])
                except StoreError:
                    continue
                raise WatchFailed(f"the API server serves {kind} again: everything begins anew")
        await asyncio.Event().wait()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: Any) -> AiohttpSession:
            session = self._api.session(_response_class(self._answered, self.heard))
            return AiohttpSession(
                server=self._api.configuration.host,
                default_namespace=self._namespace,
                aiohttp_session=session,
            )

        kopf.on.login(registry=registry)(login)
        for kind in kinds():
            if kind.kind in self._store.served:
                kopf.on.event(GROUP, VERSION, kind.plural, registry=registry)(self._event)
        return registry

    async def _event(self, event: Any, **_: Any) -> None:
        self.heard()
        obj, type_ = dict(event["object"]), event["type"]
        self._store.feed(obj, deleted=type_ == "DELETED")
        if type_ is None:
            self._list_soon(obj["kind"])

    def _answered(self, path: str, *, watch: bool) -> None:
        """kopf lists anew: what was deleted meanwhile it does not tell, were it everything."""
        plural = path.rpartition("/")[2]
        if not watch and plural in self._plurals:
            kind = self._plurals[plural]
            self._listed.add(kind)
            self._list_soon(kind)

    def _list_soon(self, kind: str, seconds: float = RELISTED_SECONDS) -> None:
        timer = self._relisted.pop(kind, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._relisted[kind] = loop.call_later(seconds, self._begin_sync, kind)

    def _begin_sync(self, kind: str) -> None:
        self._relisted.pop(kind, None)
        task = asyncio.get_running_loop().create_task(self._sync([kind]), name=f"sync {kind}")
        self._syncing.add(task)
        task.add_done_callback(self._syncing.discard)

    async def resync(self, seconds: float) -> None:
        """List everything now and then, whatever was missed, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self._sync(self._store.served)

    async def _sync(self, only: Any) -> None:
        try:
            await self._store.sync(only)
        except StoreError as error:
            LOG.warning("the list of %s failed: %s", ", ".join(only), error)
            for kind in only:
                self._list_soon(kind, AGAIN_SECONDS)
        else:
            self.heard()


def _is_watcher(task: asyncio.Task[Any]) -> bool:
    """Whether a task is one of kopf's, for one kind."""
    return task.get_name().startswith("watcher for ")


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and give them time to end."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    if ending:
        await asyncio.wait(ending, timeout=STOP_SECONDS)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # looking for CRDs and namespaces needs cluster-wide rights
    settings.watching.server_timeout = SERVER_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.watching.inactivity_timeout = SILENT_SECONDS
    settings.watching.reconnect_backoff = 0.5
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.error_backoffs = _Patience()
    settings.queueing.worker_limit = WORKERS
    settings.queueing.idle_timeout = IDLE_SECONDS
    settings.execution.default_backoff = 5
    settings.persistence.diffbase_storage = _NoMemory()
    settings.process.ultimate_exiting_timeout = None
    return settings


def not_served(served: Collection[str]) -> str:
    """That some kinds are missing in a cluster, in words."""
    missing = [kind.plural for kind in kinds() if kind.kind in WATCHED and kind.kind not in served]
    return f"the API server does not serve {', '.join(missing)}; apply the CRDs (crds/)"


def _is_gone(error: BaseException | None) -> bool:
    """Whether a watch ended since its kind is not there any more."""
    return getattr(error, "status", 0) == 404


def _response_class(
    answered: Callable[..., None], heard: Callable[[], None]
) -> type[aiohttp.ClientResponse]:
    """A response that tells when it begins, and whenever a part of its body is read."""

    class Heard(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            response = await super().start(connection)
            if self.status == 200:
                answered(self.url.path, watch="watch" in self.url.query)
            self.content = cast(aiohttp.StreamReader, _Listening(self.content, heard))
            return response

    return Heard


class _Listening:
    """A stream reader that tells of what is read from it."""

    def __init__(self, inner: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._inner = inner
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        async for chunk in self._inner.iter_chunked(size):
            self._heard()
            yield chunk
