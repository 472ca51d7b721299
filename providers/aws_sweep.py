"""What is left on EC2 of swarms that are gone: found by tags, and removed when told to.

EC2 is asked first and the store of swarms afterwards, so that a swarm that is just beginning is
known by then; and what is younger than some minutes is left alone.  What another home tagged is
never touched.  Copies of a home (a restored backup, a second machine) have its identity too: only
a person knows of them, which is why removing is not done by itself.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from providers.aws_api import Boto
from providers.aws_requests import ROOT_OF_TAG
from providers.aws_values import HOME_TAG, SWARM_TAG, UID_TAG, Api, Instance, Volume
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable

LOG = logging.getLogger(__name__)
LEAST_AGE_SECONDS = 600.0
"""What is younger may belong to a swarm that nobody sees yet."""
WAIT_SECONDS = 600.0
"""For instances to end: EC2 takes minutes at times."""
_LOOK_SECONDS = 3.0
Known = Callable[[], Awaitable[Collection[str]]]


class Standing(enum.StrEnum):
    """Whose something is."""

    OWNED = "of a swarm"
    KEPT = "kept on purpose"
    HOLDS = "may hold work"
    YOUNG = "too new to tell"
    ANOTHER = "of another home"
    LEFT = "left over"


@dataclass(frozen=True, slots=True)
class Found:
    """An instance or a volume that some Codeswarm made."""

    api: Api
    id: str
    kind: str
    """``instance`` or ``volume``."""
    what: str
    """Its type, or its size."""
    state: str
    swarm: str
    """``<namespace>/<name>``."""
    uid: str
    begun: float
    """Seconds since the epoch."""
    standing: Standing
    root: bool = False
    """An instance's own disk, which goes with it."""


async def survey(
    cloud: Boto, homes: Collection[str], known: Known, *, now: Callable[[], float] = time.time
) -> list[Found]:
    """All that any Codeswarm made in a region.

    Args:
        cloud: EC2 of the region.
        homes: by which identities this home goes.
        known: asks for the uids of all swarms there are, those that are being deleted too.
        now: seconds since the epoch.

    Raises: ProviderUnreachable; what ``known`` raises.
    """
    instances = await cloud.instances_having(UID_TAG)
    volumes = [*await cloud.volumes_having(UID_TAG), *await cloud.volumes_having(ROOT_OF_TAG)]
    uids = frozenset(await known())
    running = {one.id for one in instances if one.state not in ("terminated", "shutting-down")}
    found = [
        _of_instance(cloud.api, one, homes, uids, now())
        for one in instances
        if one.state != "terminated"
    ]
    for volume in {one.id: one for one in volumes}.values():
        its_own = ROOT_OF_TAG in volume.tags
        if volume.state == "deleting" or (its_own and volume.attached_to in running):
            continue
        found.append(_of_volume(cloud.api, volume, homes, uids, now()))
    return sorted(found, key=lambda one: (one.kind, one.swarm, one.begun, one.id))


def _of_instance(
    api: Api, one: Instance, homes: Collection[str], uids: Collection[str], now: float
) -> Found:
    standing = _standing(one.uid, one.tags.get(HOME_TAG, ""), homes, uids, now - one.launched_at)
    swarm = one.tags.get(SWARM_TAG, "")
    return Found(
        api, one.id, "instance", one.type, one.state, swarm, one.uid, one.launched_at, standing
    )


def _of_volume(
    api: Api, one: Volume, homes: Collection[str], uids: Collection[str], now: float
) -> Found:
    uid = one.uid or one.tags.get(ROOT_OF_TAG, "")
    standing = _standing(uid, one.tags.get(HOME_TAG, ""), homes, uids, now - one.created_at)
    if standing is Standing.LEFT and one.kept:
        standing = Standing.KEPT
    elif standing is Standing.LEFT and one.in_use:
        standing = Standing.HOLDS
    size, swarm = f"{one.size_gib} GiB", one.tags.get(SWARM_TAG, "")
    return Found(
        api, one.id, "volume", size, one.state, swarm, uid, one.created_at, standing,
        ROOT_OF_TAG in one.tags,
    )  # fmt: skip


def _standing(
    uid: str, home: str, homes: Collection[str], uids: Collection[str], age: float
) -> Standing:
    if uid in uids:
        return Standing.OWNED
    if not home or home not in homes:
        return Standing.ANOTHER
    return Standing.YOUNG if age < LEAST_AGE_SECONDS else Standing.LEFT


def removable(found: Collection[Found], *, volumes: bool) -> list[Found]:
    """What a removal takes.

    Args:
        found: by ``survey``.
        volumes: those too that were kept on purpose or may hold work.
    """
    taken = {Standing.LEFT, Standing.KEPT, Standing.HOLDS} if volumes else {Standing.LEFT}
    return [one for one in found if one.standing in taken]


async def remove(
    cloud: Boto,
    found: Sequence[Found],
    *,
    seconds: float = WAIT_SECONDS,
    look_seconds: float = _LOOK_SECONDS,
) -> list[str]:
    """End instances, wait until they have, and delete volumes.

    Args:
        cloud: EC2 of the region where they all are.
        found: of ``removable``.
        seconds: to wait at most.
        look_seconds: between two looks.

    Returns: what is still there, in words; empty: nothing.
    """
    deadline = time.monotonic() + seconds
    instances = [one for one in found if one.kind == "instance"]
    left: list[str] = []
    if instances:
        try:
            await _insist(lambda: cloud.terminate([one.id for one in instances]), deadline)
        except ProviderError as error:
            left.append(str(error))
        left += await _ended(cloud, instances, deadline, look_seconds)
    for one in found:
        if one.kind == "volume":
            words = await _deleted(cloud, one, deadline, look_seconds)
            if words:
                left.append(words)
    return left


async def _ended(
    cloud: Boto, instances: Sequence[Found], deadline: float, look_seconds: float
) -> list[str]:
    uids, wanted = {one.uid for one in instances}, {one.id for one in instances}
    while True:
        why = ""
        try:
            seen = {one.id: one.state for one in await cloud.instances(uids)}
            going = sorted(i for i in wanted if seen.get(i, "terminated") != "terminated")
            if not going:
                return []
        except ProviderUnreachable as error:
            going, why = sorted(wanted), f" ({error})"
        if time.monotonic() > deadline:
            return [f"{one} has not ended{why}" for one in going]
        await asyncio.sleep(look_seconds)


async def _deleted(cloud: Boto, one: Found, deadline: float, look_seconds: float) -> str:
    """Delete a volume, as soon as it is attached nowhere. Returns: why it is still there."""
    while True:
        try:
            await _insist(lambda: cloud.delete_volume(one.id), deadline)
        except ProviderError as error:
            if error.reason != "VolumeInUse" or time.monotonic() > deadline:
                return f"{one.id} is still there: {error}"
            await asyncio.sleep(look_seconds)
        else:
            return ""


async def _insist(act: Callable[[], Awaitable[None]], deadline: float) -> None:
    """Do what may be done again, until there is an answer. Raises: ProviderError."""
    while True:
        try:
            return await act()
        except (OutcomeUnknown, ProviderUnreachable):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(_LOOK_SECONDS)
