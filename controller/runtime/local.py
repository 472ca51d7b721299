"""The file home's controller: one process, one loop, everything below ``$CODESWARM_HOME``.

Run as ``python -m controller.runtime.local``; it logs to stderr, and ends gracefully on SIGTERM
and SIGINT: what is being written is finished, and workers run on.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys

from controller.http.health import Health
from controller.http.local import LocalHttp
from controller.http.monitor import Monitor
from controller.reconcile.clock import SystemClock
from controller.reconcile.context import Context
from controller.reconcile.manager import Manager
from controller.reconcile.transcripts import Transcripts
from controller.repository.service import Repositories
from controller.resources import settings
from controller.runtime.aws import aws_provider, begin_sweep
from controller.runtime.home import Home
from controller.runtime.lock import ControllerLock, ControllerRunning
from controller.store.base import StoreUnavailable
from controller.store.database import Database
from controller.store.sqlite import SqliteStore
from providers.base import ProviderError
from providers.local import LocalProvider
from providers.slurm import SlurmProvider
from providers.slurm_remote import RemoteLogins
from providers.ssh_target import Means

LOG = logging.getLogger("codeswarm")
EXIT_UNAVAILABLE = 5
HOME_SECONDS = 2.0
"""Between two looks whether the home is still there."""


async def serve(home: Home, lock: ControllerLock, stop: asyncio.Event) -> None:
    """Converge one home until ``stop`` is set.

    Raises: StoreUnavailable, SettingsError, ProviderError.
    """
    configuration = settings.load(home.config)
    database = Database(home.state)
    store = SqliteStore(database)
    await store.start()
    try:
        epoch = database.next_epoch()
        await store.collect_orphans()
        monitor = Monitor()
        aws = aws_provider(home, Means.own, lambda: home.identity)
        ctx = Context(
            store=store,
            clock=SystemClock(),
            epoch=epoch,
            providers={
                "local": LocalProvider(home.workspaces),
                "slurm": SlurmProvider(RemoteLogins(Means.own), epoch=epoch),
                "aws": aws,
            },
            repositories=Repositories(),
            settings=configuration,
            transcripts=Transcripts(home.transcripts),
            stores=home.workspaces / "stores",
            archives=home.archives,
            observer=monitor,
        )
        monitor.watch(ctx)
        manager = Manager(ctx)
        manager.start()
        removing = configuration.aws.remove_leftovers
        sweep = begin_sweep(home, aws, store, lambda: [home.identity], removing=removing)
        health = Health(lambda: (True, ""), oldest=ctx.queue.oldest)
        http = LocalHttp(configuration.http, health, monitor, home.transcripts, home.http)
        http.start()
        lock.acquire(epoch)
        gc.freeze()
        LOG.info("controller of %s is up, epoch %d", home.root, epoch)
        await _until(stop, home, lock)
        LOG.info("stopping; workers run on")
        if sweep is not None:
            sweep.cancel()
        await http.stop()
        await manager.stop()
    finally:
        await store.close()
        database.close()


async def _until(stop: asyncio.Event, home: Home, lock: ControllerLock) -> None:
    """Wait for the order to stop, or until the home is not there any more."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), HOME_SECONDS)
        if lock.is_lost:
            LOG.error("%s was removed or replaced: its controller ends", home.root)
            return


def main() -> int:
    """Run the controller of ``$CODESWARM_HOME`` in this process; an exit code."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    home = Home.from_env()
    lock = ControllerLock(home)
    try:
        home.ensure()
        lock.acquire()
        asyncio.run(_run(home, lock))
    except (StoreUnavailable, settings.SettingsError, ProviderError, ControllerRunning) as error:
        LOG.error("%s", error)
        return EXIT_UNAVAILABLE
    except OSError as error:
        LOG.error("%s cannot be used: %s", home.root, error)
        return EXIT_UNAVAILABLE
    finally:
        lock.release()
    return 0


async def _run(home: Home, lock: ControllerLock) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    await serve(home, lock, stop)


if __name__ == "__main__":
    sys.exit(main())
