"""Workers ended on their machines; and a machine on which that cannot be done, ended itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence

from providers.aws_site import Site, instance_of
from providers.aws_values import Instance
from providers.base import JobState, ProviderError, ProviderUnreachable
from providers.layout import swarm_parts

_LOG = logging.getLogger(__name__)


async def stop(site: Site, jobs: Collection[str], *, force: bool) -> None:
    """End workers.

    Those that have not begun never will; the others are ended where they run.  One machine that
    does not answer keeps nobody from ending the rest.

    Raises: ProviderUnreachable (the volume cannot be read, so nobody knows where they run),
        ProviderError.
    """
    state = site.state
    site.seating.withdraw(jobs)
    if not await site.at_hand():
        return
    found, swarm = await site.look(), state.swarm
    statuses = await site.statuses(found)
    over = {job for job, status in statuses.items() if status.state is JobState.ENDED}
    ended = [job for job in statuses if job in jobs and job in over]
    site.told_gone = {
        job: id for job, id in site.told_gone.items() if job in statuses and job not in over
    }
    await state.host.remote.shut(swarm, jobs, ended)
    by_machine: dict[str, list[str]] = {}
    for job, status in (await site.statuses(found, fresh=True)).items():
        if job in jobs and status.state is not JobState.ENDED:
            by_machine.setdefault(status.handle, []).append(job)
    root = (await state.host.remote.known()).root
    folder = "/".join(swarm_parts(swarm))
    calls = []
    for id, mine in by_machine.items():
        instance = instance_of(found, id)
        if instance is not None and instance.live:
            folders = {job: f"{folder}/{job}" for job in mine}
            calls.append(_stop_on(site, instance, root, folders, force=force))
    await asyncio.gather(*calls)
    state.host.doubt()


async def _stop_on(
    site: Site, instance: Instance, root: str, folders: Mapping[str, str], *, force: bool
) -> None:
    state = site.state
    try:
        node = await state.nodes.node(state.swarm, state.wish, instance)
        told = await state.nodes.stop(node, root, folders, force=force)
    except ProviderUnreachable as error:
        await _deaf(site, instance, error, force=force)
        return
    if not force or _all_gone(told, list(folders)):
        if not force or not _unwritten(site, instance.id, folders):
            site.deaf.pop(instance.id, None)
            return
        told = {"": "nothing is left of its workers, but it cannot write that down"}
    await _deaf(
        site, instance, ProviderError("StopFailed", f"{node.name}: {told}"[:1000]), force=force
    )


def _unwritten(site: Site, instance: str, jobs: Collection[str]) -> bool:
    """Whether a machine has said before that these are gone, and still they count as alive."""
    again = any(site.told_gone.get(job) == instance for job in jobs)
    site.told_gone.update(dict.fromkeys(jobs, instance))
    return again


def _all_gone(told: Mapping[str, object], jobs: Sequence[str]) -> bool:
    return all(told.get(job) == "gone" for job in jobs)


async def _deaf(site: Site, instance: Instance, error: ProviderError, *, force: bool) -> None:
    """A machine on which workers cannot be ended: after a while it goes itself, with them.

    Not the coordinator: whoever reads the volume by way of it would have been told otherwise.
    """
    state = site.state
    _LOG.warning("%s of swarm %s: %s", instance.id, state.swarm.name, error)
    if force:  # as after a reboot: nothing is mounted there
        site.readiness.doubt(instance.id)
    if not force or instance.id == state.host.coordinator:
        return
    since = site.deaf.setdefault(instance.id, state.now())
    if state.now() - since >= state.around.times.deaf:
        state.may()
        await state.around.ec2.terminate([instance.id])
        state.around.lookout.terminated([instance.id])
        state.wake()
