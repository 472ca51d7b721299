"""What is looked at before instances are launched: the way to them, the manifest, the zone."""

from __future__ import annotations

from dataclasses import replace

from providers.aws_plan import Plan
from providers.aws_state import SiteState
from providers.base import ProviderError


async def look(state: SiteState, plan: Plan) -> None:
    """See that what is planned can be launched, and where the volume is.

    Raises: ProviderError (``VolumeInAnotherZone``; as ``Preflight`` and ``Nodes.check`` have it).
    """
    around, wish, zone = state.around, state.wish, plan.zone
    await state.nodes.check(state.swarm, wish)
    if zone is None or zone == wish.zone:
        await around.preflight(around.ec2, wish, plan.launch)
        return
    if wish.zone:
        raise _elsewhere(zone, f"availabilityZone is {wish.zone}")
    try:
        await around.preflight(around.ec2, replace(wish, zone=zone), plan.launch)
    except ProviderError as error:
        if error.reason != "ZoneNotFound":
            raise
        raise _elsewhere(zone, str(error)) from error


def _elsewhere(zone: str, words: str) -> ProviderError:
    return ProviderError(
        "VolumeInAnotherZone",
        f"the swarm's volume is in {zone}, and so must its instances be: give a subnetId or "
        f"availabilityZone of {zone}, or let another swarm do the work ({words})",
    )
