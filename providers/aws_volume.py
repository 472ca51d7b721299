"""The shared volume of a swarm: made once, and said to be in use before it is."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection
from dataclasses import astuple

from providers.aws_plan import chosen
from providers.aws_state import SiteState
from providers.aws_values import IN_USE_TAG, KEPT_TAG, YES, Volume, tags_of
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable

DEVICES = tuple(f"/dev/sd{letter}" for letter in "fghijklmnop")
"""What EC2 recommends for volumes of one's own."""


async def create(state: SiteState, zone: str, jobs: Collection[str]) -> bool:
    """Create the volume, unless a fresh look shows one; whether it was created.

    Args:
        state: of the swarm's site.
        zone: where.
        jobs: the workers that it is for: a later volume of the same swarm is another request.

    Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
    """
    around, uid, making = state.around, state.swarm.uid, state.making
    if chosen((await around.lookout.look(uid, age=0.0)).volumes) is not None:
        return False
    state.may()
    tags = tags_of(around.home, state.swarm, state.wish)
    token = making.token or _token(state, zone, jobs)
    try:
        made = await around.ec2.create_volume(state.wish, zone, token=token, tags=tags)
    except OutcomeUnknown:
        making.token = token
        raise
    except ProviderUnreachable:
        raise
    except ProviderError:
        making.token, making.salt = "", secrets.token_hex(8)
        raise
    making.token, making.salt = "", secrets.token_hex(8)
    around.lookout.created(made)
    return True


def _token(state: SiteState, zone: str, jobs: Collection[str]) -> str:
    """Equal for the same need, also in a controller that was started anew."""
    need = [state.swarm.uid, "volume", zone, astuple(state.wish.volume), sorted(jobs)]
    words = json.dumps([*need, state.making.salt])
    return hashlib.sha256(words.encode()).hexdigest()


async def attach(state: SiteState, volume: Volume, instance: str) -> None:
    """Attach the volume, under another device name where the wished one is taken.

    Raises: ProviderError, ProviderUnreachable.
    """
    names = list(dict.fromkeys((state.wish.device, *DEVICES)))
    tried = state.making.devices.get(instance, 0)
    state.may()
    try:
        await state.around.ec2.attach(volume.id, instance, names[tried % len(names)])
    except ProviderError as error:
        if error.reason == "DeviceNameInvalid":
            state.making.devices[instance] = tried + 1
        raise


async def say_in_use(state: SiteState, volume: Volume, yes: bool) -> None:
    """Say on the volume whether workers' folders are on it, and see that EC2 says so.

    Raises: ProviderError, ProviderUnreachable (``EventuallyConsistent``: ask again).
    """
    if volume.in_use is yes:
        return
    state.may()
    around = state.around
    tags = {IN_USE_TAG: YES if yes else "false", KEPT_TAG: "false"}
    await around.ec2.tag([volume.id], tags)
    shown = chosen((await around.lookout.look(state.swarm.uid, age=0.0)).volumes)
    if shown is None or shown.id != volume.id or shown.in_use is not yes:
        raise ProviderUnreachable(
            "EventuallyConsistent", f"EC2 does not show yet what was said of {volume.id}"
        )
