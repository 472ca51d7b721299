"""Machines made ready for workers: set up over SSH, the coordinator first, a task for each.

What a machine needs is looked for anew by whoever does not know it to be ready, so that a reboot,
or a controller that was started anew, needs no memory.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from providers.aws_nodes import LOCAL_ROOT, Node
from providers.aws_plan import pause_after
from providers.aws_setup import (
    Coordinator,
    Member,
    Ready,
    clients_of,
    log,
    mounted_from,
    set_up,
    share,
)
from providers.aws_state import SiteState
from providers.aws_values import FORMATTED_TAG, READY_TAG, YES, Instance, Inventory, Volume
from providers.base import InProgress, ProviderError, ProviderUnreachable
from providers.remote_setup import Installed, Place

_LOG = logging.getLogger(__name__)
AT_ONCE = 16
"""Machines that are set up at a time."""
LOG_BYTES = 64 * 1024
LOG_SECONDS = 15.0
_SILENT = frozenset({
    "ConnectionRefused", "ConnectTimedOut", "ConnectionLost", "HostUnreachable", "CommandTimedOut",
    "SessionRefused",
})  # fmt: skip
"""What a machine that hangs looks like from outside."""
_BOOTING = _SILENT | {"NoAddress"}
"""What one that is still booting looks like."""
_EARLY = frozenset({"AuthenticationFailed", "HostKeyChanged", "HostKeyUnknown", "LoginFailed"})
"""What one says whose sshd is up before cloud-init gave it its keys, or while pam_nologin(8) lets
nobody in yet; from one that has booted it is a mistake of the manifest's."""


@dataclass(slots=True)
class _Attempts:
    """What was tried in vain; our clock."""

    since: float
    again: float
    failures: int = 0
    said: str = ""
    """Why the last one was in vain."""
    answered: float | None = None
    """When it let us know that it does not let us in."""


class Readiness:
    """Which machines of one swarm are ready, and the way there.

    Args:
        state: of its site.
    """

    def __init__(self, state: SiteState) -> None:
        self._state = state
        self._ready: dict[str, Node] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, _Attempts] = {}
        self._doubted: dict[str, float] = {}
        """When machines that were ready were doubted last; our clock."""
        self._silent: dict[str, float] = {}
        self._exported: frozenset[str] = frozenset()
        self._exporting = asyncio.Lock()
        self._withdrawal: asyncio.Task[None] | None = None
        self._withdrawn_at = -math.inf
        self._room = asyncio.Semaphore(AT_ONCE)

    def is_ready(self, id: str) -> bool:
        """Whether workers can begin there, as far as this process knows."""
        return id in self._ready

    async def coordinator_lost(self) -> None:
        """Nothing is mounted any more that one may rely on."""
        self._ready.clear()
        self._exported = frozenset()
        await self.close()

    async def close(self) -> None:
        """Set up nothing any more."""
        tasks = list(self._tasks.values())
        if self._withdrawal is not None:
            tasks.append(self._withdrawal)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def doubt(self, id: str) -> None:
        """Something is wrong with a machine: it is made ready anew, but not again and again."""
        now = self._state.now()
        last = self._doubted.get(id)
        if id in self._ready and (last is None or now - last >= self._state.around.times.doubt):
            self._doubted[id] = now
            del self._ready[id]
            self._state.wake()

    def silent_since(self, id: str) -> float | None:
        """Since when nobody can log in on a machine, try after try; our clock."""
        return self._silent.get(id)

    def advance(
        self, found: Inventory, volume: Volume | None, coordinator: Instance | None
    ) -> None:
        """Begin to set up machines whose turn has come; returns at once."""
        live = {i.id: i for i in found.instances if i.live}
        known = {*self._ready, *self._attempts, *self._doubted, *self._silent}
        for id in known - live.keys():
            for kept in (self._ready, self._attempts, self._doubted, self._silent):
                kept.pop(id, None)
            self._state.trouble.pop(f"set-up {id}", None)
        for id in [id for id in self._tasks if id not in live]:
            self._tasks[id].cancel()
        for instance in live.values():
            leads = coordinator is not None and instance.id == coordinator.id
            if volume is not None and instance.running and self._due(instance, leads):
                clients = [i.private_ip for i in live.values() if i.private_ip]
                work = self._set_up(instance, volume, clients, leads=leads)
                task = asyncio.get_running_loop().create_task(work)
                self._tasks[instance.id] = task
                task.add_done_callback(functools.partial(self._ended, instance.id))

        if volume is not None and coordinator is not None and self.is_ready(coordinator.id):
            self._withdraw(volume)

    def _addresses(self) -> list[str]:
        """Of all machines that live, by what is known now."""
        found = self._state.around.lookout.known(self._state.swarm.uid).instances
        return [i.private_ip for i in found if i.live and i.private_ip]

    def _withdraw(self, volume: Volume) -> None:
        """Export to nobody who has gone: addresses are given to others, by and by."""
        now = self._state.now()
        under_way = self._withdrawal is not None and not self._withdrawal.done()
        if under_way or now - self._withdrawn_at < self._state.around.times.doubt:
            return
        if self._exported - set(self._addresses()):
            self._withdrawn_at = now
            work = self._export_only(volume)
            self._withdrawal = asyncio.get_running_loop().create_task(work)

    async def _export_only(self, volume: Volume) -> None:
        state = self._state
        leader = state.nodes.known(state.host.coordinator)
        if leader is None:
            return
        try:
            async with self._exporting:  # whoever joined meanwhile stays among them
                role = self._role(leader, volume, self._addresses())
                await share(leader.shell, leader.name, state.wish, role)
                self._exported = frozenset(role.clients)
        except ProviderError as error:
            _LOG.info("exports of %s, swarm %s: %s", leader.name, state.swarm.name, error)

    def _due(self, instance: Instance, leads: bool) -> bool:
        state = self._state
        if instance.id in self._ready or instance.id in self._tasks:
            return False
        if not leads and not state.host.coordinator:
            return False
        attempts = self._attempts.get(instance.id)
        return attempts is None or state.now() >= attempts.again

    def _ended(self, id: str, _: asyncio.Task[None]) -> None:
        self._tasks.pop(id, None)
        self._state.wake()

    async def _set_up(
        self, instance: Instance, volume: Volume, clients: Collection[str], *, leads: bool
    ) -> None:
        state, key = self._state, f"set-up {instance.id}"
        try:
            async with self._room:
                node = await state.nodes.node(state.swarm, state.wish, instance)
                if leads:
                    await self._lead(node, volume, clients)
                else:
                    await self._join(node, volume, clients)
                await self._keep_log(node)
            if not instance.was_ready:
                state.may()
                await state.around.ec2.tag([instance.id], {READY_TAG: YES})
        except InProgress as wait:
            self._silent.pop(instance.id, None)
            self._again(instance.id, soon=True)
            _LOG.info("%s of swarm %s: %s", instance.id, state.swarm.name, wait)
        except ProviderError as error:
            await self._failed(instance, error)
        except Exception:
            _LOG.exception("%s of swarm %s", instance.id, state.swarm.name)
            self._again(instance.id)
        else:
            self._ready[instance.id] = node
            self._attempts.pop(instance.id, None)
            self._silent.pop(instance.id, None)
            state.trouble.pop(key, None)

    async def _lead(self, node: Node, volume: Volume, addresses: Collection[str]) -> None:
        """Make a machine the coordinator. Raises: ProviderError."""
        state, role = self._state, self._role(node, volume, addresses)
        if await mounted_from(node.shell):
            # Whoever still runs there under another's export must be gone before it is unmounted.
            await state.nodes.clear(node, state.wish.root)
        self._take(node, await set_up(node.shell, node.name, state.wish, role))
        self._exported = frozenset(role.clients)
        if not volume.formatted:
            state.may()
            await state.around.ec2.tag([volume.id], {FORMATTED_TAG: YES})
        if not state.host.is_on(node):
            await state.host.move(node, state.wish.root, volume.id)

    async def _join(self, node: Node, volume: Volume, addresses: Collection[str]) -> None:
        """Have a machine use the coordinator's volume. Raises: ProviderError."""
        state = self._state
        leader = state.nodes.known(state.host.coordinator)
        if leader is None:
            raise ProviderUnreachable("CoordinatorLost", "there is no coordinator any more")
        async with self._exporting:
            role = self._role(leader, volume, addresses)
            if not self._exported >= frozenset(role.clients):
                await share(leader.shell, leader.name, state.wish, role)
                self._exported = frozenset(role.clients)
        server = leader.instance.private_ip
        if await mounted_from(node.shell) not in ("", server):
            await state.nodes.clear(node, state.wish.root)
        self._take(node, await set_up(node.shell, node.name, state.wish, Member(server, volume.id)))

    def _role(self, leader: Node, volume: Volume, addresses: Collection[str]) -> Coordinator:
        return Coordinator(
            volume.id,
            clients_of(addresses, leader.instance.private_ip),
            fsid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{volume.id} {leader.instance.id}")),
            may_format=not volume.formatted,
            size_gib=volume.size_gib,
        )

    def _take(self, node: Node, ready: Ready) -> None:
        """Remember how the worker's file is run there."""
        place = Place(node.name, LOCAL_ROOT)
        node.installed = Installed(place, ready.python, ready.worker, LOCAL_ROOT)

    async def _failed(self, instance: Instance, error: ProviderError) -> None:
        state = self._state
        if error.reason in _SILENT:
            self._silent.setdefault(instance.id, state.now())
        else:
            self._silent.pop(instance.id, None)
        booting = error.reason in _BOOTING and not instance.was_ready
        attempts = self._again(instance.id, soon=error.reason in _BOOTING)
        early = error.reason in _EARLY and not instance.was_ready
        now, limit, since = state.now(), state.around.times.booting, attempts.since
        if early:
            attempts.answered = since = now if attempts.answered is None else attempts.answered
            limit = state.around.times.early
            if now - since <= limit:
                # A connection that was refused so is not tried again for minutes: make it anew.
                await state.nodes.forget(instance.id)
        if not (booting or early) or now - since > limit:
            state.trouble[f"set-up {instance.id}"] = error
        if attempts.said != str(error):
            _LOG.info("%s of swarm %s: %s", instance.id, state.swarm.name, error)
        attempts.said = str(error)
        if not isinstance(error, ProviderUnreachable):
            await self.keep_log(instance.id)

    def _again(self, id: str, *, soon: bool = False) -> _Attempts:
        """Try again later."""
        now = self._state.now()
        attempts = self._attempts.setdefault(id, _Attempts(now, now))
        attempts.failures += 1
        pause = self._state.around.times.busy if soon else pause_after(attempts.failures)
        attempts.again = now + pause
        return attempts

    async def keep_log(self, id: str) -> None:
        """Fetch a machine's set-up log, if it can be had."""
        node = self._state.nodes.known(id)
        if node is not None:
            await self._keep_log(node)

    async def _keep_log(self, node: Node) -> None:
        try:
            async with asyncio.timeout(LOG_SECONDS):
                text = await log(node.shell, LOG_BYTES)
        except (ProviderError, TimeoutError) as error:
            _LOG.debug("the set-up log of %s: %s", node.name, error)
            return
        self._state.around.log(self._state.swarm, node.instance.id, text)
