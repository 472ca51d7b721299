"""The Kubernetes home's controller: one process, one event loop, the Lease, and kopf's watches.

It ends by itself, with an error, when it lost its Lease or its watches: beginning anew is what a
pod's restart is for, and every start is a resume.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.http.health import Health
from controller.http.kube_auth import KubeAuth
from controller.http.listen import listen, url_of
from controller.http.monitor import Monitor
from controller.http.service import Service
from controller.reconcile.clock import SystemClock
from controller.reconcile.context import Context
from controller.reconcile.manager import Manager
from controller.reconcile.transcripts import Transcripts
from controller.repository.service import Repositories
from controller.resources import settings
from controller.resources.texts import Sources
from controller.runtime.aws import aws_provider, begin_sweep
from controller.runtime.fencing import FencedProvider
from controller.runtime.home import Home
from controller.runtime.kube_watch import Watches, not_served
from controller.runtime.lease import Lease
from controller.store.base import Forbidden, NotFound, StoreError, StoreUnavailable
from controller.store.kube import WATCHED, KubeStore
from controller.store.kube_api import Api, connect
from providers.base import Provider, ProviderError
from providers.hosted import HostedProvider
from providers.local import LocalProvider
from providers.slurm import SlurmProvider
from providers.slurm_remote import RemoteLogins
from providers.ssh_target import Means

LOG = logging.getLogger("codeswarm")

EXIT_UNAVAILABLE = 5
CONFIG_VARIABLE = "CODESWARM_CONFIG"
HOST_VARIABLE = "CODESWARM_WORKER_HOST"
RESYNC_SECONDS = 300.0
AGAIN_SECONDS = 5.0
"""Before what the cluster does not have yet (CRDs, rights) is looked for again."""
STOP_SECONDS = 10.0
"""For writes that are under way, at the end; a server that is silent is waited for no longer."""
LINGER_SECONDS = 30.0
"""After the controller's end until its process is ended by force."""
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Options:
    """What a controller serves, and how it gets there."""

    namespace: str = ""
    """The only one; empty: the pod's own, or that of the kubeconfig's context."""
    all_namespaces: bool = False
    kubeconfig: str | None = None
    """None: the usual one; in a pod its ServiceAccount."""
    context: str | None = None


def in_pod() -> bool:
    """Whether this process runs in a pod, as its environment says."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


class KubeController:
    """One life of the controller.

    Args:
        options: what to serve.
        home: where transcripts, stores and (without a worker host) workspaces are.
    """

    def __init__(self, options: Options, home: Home) -> None:
        self._options = options
        self._home = home
        self._stop = asyncio.Event()
        self._lease: Lease | None = None
        self._watches: Watches | None = None
        self._manager: Manager | None = None
        self._waits = "it starts"
        self._monitor = Monitor()
        self._health = Health(lambda: self.ready)

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether it converges, or what it waits for."""
        lease = self._lease
        if lease is not None and lease.trouble:
            return False, f"waits for its lease: {lease.trouble}"
        if lease is not None and lease.waits_for:
            return False, f"waits for the lease that {lease.waits_for} holds"
        return self._manager is not None, self._waits

    async def run(self) -> None:
        """Converge until SIGTERM or SIGINT. Raises: StoreError, SettingsError, ProviderError."""
        configuration = settings.load(_config(self._home))
        self._take_signals()
        pod = in_pod() and self._options.kubeconfig is None
        api = await connect(self._options.kubeconfig, self._options.context, in_cluster=pod)
        try:
            http = await self._http(api, configuration, pod)
            try:
                await self._hold_and_serve(api, configuration, pod)
            finally:
                await http.stop()
        finally:
            await api.close()

    async def _hold_and_serve(self, api: Api, configuration: settings.Settings, pod: bool) -> None:
        own = _own_namespace(api, pod)
        served = None if self._options.all_namespaces else self._options.namespace or own
        lease = self._lease = Lease(api, own if pod or served is None else served)
        if await self._unless_stopped(lease.acquire()):
            LOG.info("holds %s, epoch %d", lease.name, lease.epoch)
            try:
                await self._serve(api, served, lease, configuration)
            finally:
                await lease.release()

    async def _http(self, api: Api, configuration: settings.Settings, pod: bool) -> Service:
        """Probes, metrics, transcripts: from the start, so that one can see what is waited for.

        Raises: StoreUnavailable, where nothing can be listened to.
        """
        host = configuration.http.host or ("" if pod else "127.0.0.1")
        try:
            try:
                sock = listen(host, configuration.http.port)
            except OSError:
                if pod:
                    raise  # its Service and probes know one port
                sock = listen(host, 0)
        except OSError as error:
            where = f"{host}:{configuration.http.port}"
            raise StoreUnavailable(f"no HTTP on {where}: {error.strerror or error}") from error
        service = Service(
            health=self._health,
            monitor=self._monitor,
            authenticator=KubeAuth(api),
            transcripts=self._home.transcripts,
            api_requests=lambda: api.requests,
        )
        LOG.info("HTTP on %s", url_of(sock))
        await service.start(sock)
        return service

    async def _serve(
        self, api: Api, served: str | None, lease: Lease, configuration: settings.Settings
    ) -> None:
        store = KubeStore(api, served, lease.check)
        watches = self._watches = Watches(api, store, served)
        holding = asyncio.get_running_loop().create_task(lease.hold(), name="lease")
        try:
            if await self._unless_stopped(self._begin(store), holding):
                watches.heard()
                self._health.contact = watches.age
                await self._converge(store, watches, lease, configuration, holding)
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await store.close()

    async def _begin(self, store: KubeStore) -> None:
        """Read everything, as soon as the cluster has it.

        Without some of the kinds only what is being deleted is seen to: a CRD that is deleted waits
        until its objects are let go, whatever became of the others.
        """
        store.start()
        before: tuple[str, ...] = ()
        while True:
            try:
                served = await store.survey()
            except (NotFound, Forbidden, StoreUnavailable) as error:
                self._wait(str(error))
            else:
                if served == WATCHED or (served == before and store.leaves(served)):
                    store.serve(served)
                    return
                before = served
                self._wait(not_served(served))
            await asyncio.sleep(AGAIN_SECONDS)

    def _wait(self, why: str) -> None:
        """Say what is waited for, once."""
        if self._waits != why:
            LOG.warning("waiting: %s", why)
            self._waits = why

    async def _converge(
        self,
        store: KubeStore,
        watches: Watches,
        lease: Lease,
        configuration: settings.Settings,
        holding: asyncio.Task[None],
    ) -> None:
        homes = await lease.identities()
        aws = aws_provider(self._home, Means.none, lambda: homes[0], left=lease.left)
        ctx = self._context(store, lease, configuration, aws)
        self._monitor.watch(ctx)
        self._health.oldest = ctx.queue.oldest
        manager = Manager(ctx)
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        watching = loop.create_task(watches.run(self._take_signals, done), name="watches")
        listing = loop.create_task(watches.resync(RESYNC_SECONDS), name="resync")
        manager.start()
        removing = configuration.aws.remove_leftovers
        sweep = begin_sweep(
            self._home, aws, store, lambda: homes, removing=removing, served=store.namespace
        )
        self._manager = manager
        gc.freeze()
        LOG.info("controller is up, epoch %d", lease.epoch)
        try:
            await self._unless_stopped(_forever(), holding, watching)
            LOG.info("stopping; workers run on")
        finally:
            self._manager, self._waits = None, "it stops"
            if sweep is not None:
                sweep.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(manager.stop(), STOP_SECONDS)
            done.set()
            listing.cancel()
            await asyncio.gather(watching, listing, return_exceptions=True)

    def _context(
        self, store: KubeStore, lease: Lease, configuration: settings.Settings, aws: Provider
    ) -> Context:
        return Context(
            store=store,
            clock=SystemClock(),
            epoch=lease.epoch,
            providers={
                "local": FencedProvider(self._local(lease.epoch), lease.check),
                "slurm": FencedProvider(_slurm(lease), lease.check),
                "aws": FencedProvider(aws, lease.check),
            },
            repositories=Repositories(check=lease.check),
            settings=configuration,
            transcripts=Transcripts(self._home.transcripts),
            stores=self._home.workspaces / "stores",
            archives=self._home.archives,
            sources=Sources(
                files=False,
                roots=configuration.file_roots,
                environment={
                    name: os.environ[name]
                    for name in configuration.allowed_env
                    if name in os.environ
                },
            ),
            observer=self._monitor,
        )

    def _local(self, epoch: int) -> Provider:
        """Workers in this process's own surroundings, or in the container beside it."""
        socket = os.environ.get(HOST_VARIABLE)
        if socket:
            return HostedProvider(Path(socket), epoch, archives=self._home.archives)
        return LocalProvider(self._home.workspaces)

    async def _unless_stopped(self, work: Awaitable[Any], *beside: asyncio.Task[None]) -> bool:
        """Whether ``work`` came to its end; False if the order to stop came first.

        Raises: what ``work`` or one of those ``beside`` it raises.
        """
        loop = asyncio.get_running_loop()
        working = asyncio.ensure_future(work)
        stopping = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait([working, stopping, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in (working, *beside):
                if task.done():
                    task.result()
            return working.done()
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)


def _slurm(lease: Lease) -> Provider:
    """Workers on clusters; people's keys and files here are no concern of a manifest's."""
    return SlurmProvider(RemoteLogins(Means.none), epoch=lease.epoch, left=lease.left)


async def _forever() -> None:
    await asyncio.Event().wait()


def _config(home: Home) -> Path:
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else home.config


def _own_namespace(api: Api, pod: bool) -> str:
    """The pod's namespace, or that of the kubeconfig's context."""
    if pod:
        with contextlib.suppress(OSError):
            return POD_NAMESPACE.read_text().strip()
    return api.namespace or "default"


def run(options: Options, home: Home) -> int:
    """Run the controller in this process; an exit code."""
    leaving = threading.Timer(LINGER_SECONDS, _leave)
    leaving.daemon = True

    async def serve() -> int:
        try:
            home.ensure()
            await KubeController(options, home).run()
        except (StoreError, settings.SettingsError, ProviderError) as error:
            LOG.error("%s", error)
            return EXIT_UNAVAILABLE
        finally:
            leaving.start()
        return 0

    try:
        return asyncio.run(serve())
    finally:
        leaving.cancel()


def _leave() -> None:
    """A controller that has ended does not stay, whatever clings to its event loop."""
    LOG.error("not everything has ended; leaving it")
    os._exit(EXIT_UNAVAILABLE)
