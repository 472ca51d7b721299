"""The shared volume of a swarm: made once, and said to be in use before it is."""

from __future__ import annotations

from providers.aws_plan import chosen
from providers.aws_state import SiteState
from providers.aws_values import IN_USE_TAG, KEPT_TAG, YES, Volume, tags_of
from providers.base import ProviderUnreachable


async def create(state: SiteState, zone: str) -> bool:
    """Create the volume, unless a fresh look shows one; whether it was created.

    Raises: ProviderError, ProviderUnreachable, OutcomeUnknown.
    """
    around, uid = state.around, state.swarm.uid
    if (await around.lookout.look(uid, age=0.0)).volumes:
        return False
    state.may()
    tags = tags_of(around.home, state.swarm, state.wish)
    made = await around.ec2.create_volume(state.wish, zone, token=f"{uid}-volume", tags=tags)
    around.lookout.created(made)
    return True


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
