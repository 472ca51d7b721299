"""Workers on EC2 in both homes: the provider, where it was used, and what is left over there."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

from controller.domain import machine_logs
from controller.runtime.home import Home
from controller.runtime.leftovers import look_for_leftovers
from controller.store.base import Store
from providers.aws import AwsProvider
from providers.aws_places import Places, place_in
from providers.base import SwarmHandle
from providers.ssh_target import Means
from worker.paths import PRIVATE_DIR, write_private


def aws_provider(
    home: Home,
    means: Callable[[], Means],
    identity: Callable[[], str],
    *,
    left: Callable[[], float] = lambda: math.inf,
) -> AwsProvider:
    """The provider, which asks nobody before the first swarm on EC2 is there.

    Args:
        home: where the places that were used, and set-up logs of machines, as transcripts, are
            kept.
        means: what may be used to log in to machines.
        identity: which home this is, for tags.
        left: seconds for which this controller may act.
    """

    def log(swarm: SwarmHandle, instance: str, text: str) -> None:
        folder = home.transcripts / swarm.namespace / f"{swarm.name}-{swarm.uid[:8]}"
        folder.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        data = machine_logs.transcript(instance, text, time.time())
        write_private(folder / f"{instance}.jsonl", data)

    places = Places(home.aws_places)
    return AwsProvider(
        means, home=identity, left=left, log=log, used=places.note, belongs=places.belongs
    )


def begin_sweep(
    home: Home,
    provider: AwsProvider,
    store: Store,
    homes: Callable[[], Collection[str]],
    *,
    removing: bool,
    served: str | None = None,
) -> asyncio.Task[None] | None:
    """Look once, in the background, at what no swarm owns any more, where this home ever was.

    Args:
        home: where the places that were used are written down; a pod's may be a new one.
        provider: whose EC2 it is.
        store: of the swarms.
        homes: by which identities this home goes.
        removing: whether to remove, not only to say.
        served: the only namespace whose swarms the store shows; None: it shows all.

    Returns: the task, to be cancelled at the end; None: this home was nowhere.
    """
    settings = [(obj.get("status") or {}).get("effective") or {} for obj in store.list("Swarm")]
    now = [api for one in settings for api in place_in(one)]
    places = list(dict.fromkeys([*Places(home.aws_places).all(), *now]))
    if not places:
        return None

    async def known() -> Collection[str]:
        return [str(obj["metadata"]["uid"]) for obj in store.list("Swarm")]

    work = look_for_leftovers(
        provider.clouds, places, homes(), known, removing=removing, served=served
    )
    return asyncio.get_running_loop().create_task(work)
