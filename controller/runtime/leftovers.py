"""A controller's look, once after its start, at what is left on EC2 of swarms that are gone.

It says so in its log, and removes something only where the settings say so (``removeLeftovers``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

from controller.store.base import StoreError
from providers.aws_sweep import Found, Known, Standing, removable, remove, survey
from providers.aws_values import Api
from providers.base import ProviderError

if TYPE_CHECKING:
    from providers.aws_api import Boto, Clouds

LOG = logging.getLogger(__name__)
DELAY_SECONDS = 60.0
"""After the start: first come the swarms that there are."""


async def look_for_leftovers(
    clouds: Clouds,
    places: Collection[Api],
    homes: Collection[str],
    known: Known,
    *,
    removing: bool = False,
    served: str | None = None,
    delay: float = DELAY_SECONDS,
) -> None:
    """Look at every place once, and say or remove what is left over. Raises nothing.

    Args:
        clouds: EC2s; their permission is asked for before anything is removed.
        places: where this home has or had machines; without one nothing is asked.
        homes: by which identities this home goes.
        known: asks for the uids of all swarms there are; the store must be complete.
        removing: whether to remove, not only to say.
        served: the only namespace whose swarms ``known`` knows; None: it knows all.
        delay: seconds to wait first.
    """
    if not places:
        return
    await asyncio.sleep(delay)
    for api in places:
        try:
            await _look(clouds.of(api), homes, known, removing, served)
        except (ProviderError, StoreError) as error:
            LOG.warning("what is left over in %s could not be looked at: %s", api, error)


async def _look(
    cloud: Boto, homes: Collection[str], known: Known, removing: bool, served: str | None
) -> None:
    found = await survey(cloud, homes, known)
    if served is not None:  # whoever served more before may have left living swarms elsewhere
        found = [one for one in found if one.swarm.partition("/")[0] == served]
    chosen = removable(found, volumes=False)
    spared = [one for one in found if one.standing is Standing.HOLDS]
    if spared:
        LOG.warning(
            "no swarm owns these volumes any more, and they may hold work: %s; `codeswarm doctor "
            "--aws --remove --volumes` deletes them",
            _names(spared),
        )
    if not chosen:
        return
    if not removing:
        LOG.warning(
            "no swarm owns these machines and volumes any more, and they cost: %s; `codeswarm "
            "doctor --aws --remove` ends them",
            _names(chosen),
        )
        return
    LOG.warning("ends what no swarm owns any more: %s", _names(chosen))
    left = await remove(cloud, chosen)
    for words in left:
        LOG.error("left over in %s: %s", cloud.api, words)


def _names(found: Collection[Found]) -> str:
    return ", ".join(f"{one.id} ({one.what}, of {one.swarm}, {one.api})" for one in found)
