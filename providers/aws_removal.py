"""The end of everything that a swarm has on EC2, and the proof that nothing is left.

May be begun again after any crash: whatever EC2 still shows is ended.  "Nothing is left" is only
said some time after instances may have been asked for last: EC2 shows new ones late.
"""

from __future__ import annotations

from providers.aws_state import SiteState
from providers.aws_values import ENDED, IN_USE_TAG, KEPT_TAG, YES, Instance, Volume
from providers.base import InProgress


async def remove(state: SiteState, *, keep: bool, last_request: float) -> None:
    """End all instances, then delete the volume or leave it.

    Args:
        state: of the swarm's site, which takes no steps any more.
        keep: leave the volume, whatever the manifest says, if anything can be on it.
        last_request: when instances may have been asked for last, at the latest; our clock.

    Raises: InProgress (``InstancesEnding``, ``VolumeEnding``), ProviderError.
    """
    around, uid = state.around, state.swarm.uid
    found = await around.lookout.look(uid, age=0.0)
    keep = keep or not state.wish.volume.delete
    # Said before anything ends: whoever goes on after a crash must not bring back an instance to
    # read what was read already, nor delete what is to be kept.
    staying = [v for v in found.volumes if _stays(v, keep) and not v.kept]
    await _release(state, [v for v in found.volumes if v.in_use or v in staying], keep)
    await _end_instances(state, [i for i in found.instances if i.state not in ENDED])
    left = [v for v in found.volumes if v.state not in ("deleting", "deleted")]
    await _delete(state, [v for v in left if not _stays(v, keep)])
    wait = last_request + around.times.settle - state.now()
    if wait > 0:
        raise InProgress(
            "InstancesEnding", "EC2 may still show an instance that was asked for a moment ago"
        )


def _stays(volume: Volume, keep: bool) -> bool:
    """Whether a volume is kept; one that never had a file system holds nothing to keep."""
    return volume.kept or (keep and volume.formatted)


async def _release(state: SiteState, volumes: list[Volume], keep: bool) -> None:
    if volumes:
        state.may()
        tags = {IN_USE_TAG: "false", **({KEPT_TAG: YES} if keep else {})}
        await state.around.ec2.tag([v.id for v in volumes], tags)
        state.around.lookout.doubt()


async def _end_instances(state: SiteState, instances: list[Instance]) -> None:
    """Raises: InProgress, as long as there are some."""
    if not instances:
        return
    around = state.around
    ending = [i.id for i in instances if i.state != "shutting-down"]
    if ending:
        state.may()
        await around.ec2.terminate(ending)
        around.lookout.terminated(ending)
        around.lookout.doubt()
    names = ", ".join(sorted(i.id for i in instances)[:5])
    more = f" and {len(instances) - 5} more" if len(instances) > 5 else ""
    raise InProgress("InstancesEnding", f"waiting until EC2 says that {names}{more} ended")


async def _delete(state: SiteState, volumes: list[Volume]) -> None:
    """Raises: InProgress, as long as there are some; ProviderError."""
    if not volumes:
        return
    around = state.around
    state.may()
    for volume in volumes:
        if volume.state == "available":
            await around.ec2.delete_volume(volume.id)
    around.lookout.doubt()
    names = ", ".join(v.id for v in volumes)
    raise InProgress("VolumeEnding", f"waiting until EC2 says that {names} is gone")
