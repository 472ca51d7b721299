"""A swarm's machines over SSH: logged in to, made ready, told to begin and to end workers.

Only short commands are run here; mail, files and stores are the coordinator's attendant's.  What
must work while the shared file system hangs lies in the login user's home, not below the root.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from providers.aws_userdata import lets_in
from providers.aws_values import Instance, Wish
from providers.base import ProviderUnreachable, SwarmHandle
from providers.remote_setup import Installed, Place, install, login
from worker.wire import clean

if TYPE_CHECKING:
    from providers.ssh import SshHost, SshHosts
    from providers.ssh_target import Means, SshTarget

LOCAL_ROOT = "~/.codeswarm"
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 90.0
START_SECONDS = 60.0
STOP_SECONDS = 30.0
_GRACE = 15.0
_ANY_ADDRESS = "192.0.2.1"
"""Of no machine (RFC 5737): it is only looked up in the user's SSH configuration."""


@dataclass(slots=True)
class Node:
    """One machine."""

    instance: Instance
    name: str
    """As messages call it."""
    target: SshTarget
    shell: SshHost
    installed: Installed | None = None


def marker(root: str, volume: str) -> str:
    """A shell command that fails where the volume is not mounted."""
    path = f"{root}/.codeswarm-{volume}"
    quoted = f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
    words = "the shared volume is not mounted"
    return f"timeout -k 1 20 test -e {quoted} || {{ echo '{words}' >&2; false; }}"


def target_of(swarm: SwarmHandle, wish: Wish, instance: Instance) -> SshTarget:
    """How a machine is logged in to.

    The manifest's own known hosts go before the key that the machine was given by us.
    """
    from providers.ssh_target import SshTarget

    given = {**swarm.parameters, "port": wish.ssh_port, "user": wish.user}
    address = instance.address(wish)
    target = SshTarget.from_parameters(given, swarm.secrets, host=address)
    if target.known_hosts or target.known_hosts_file or not instance.host_key:
        return target
    place = address if wish.ssh_port == 22 else f"[{address}]:{wish.ssh_port}"
    return replace(target, host_keys=f"{place} {instance.host_key}")


def _anywhere(swarm: SwarmHandle, wish: Wish) -> SshTarget:
    """How some machine is logged in to, before there is one."""
    from providers.ssh_target import SshTarget

    given = {**swarm.parameters, "port": wish.ssh_port, "user": wish.user}
    return SshTarget.from_parameters(given, swarm.secrets, host=_ANY_ADDRESS)


class Nodes:
    """All machines of one swarm that were spoken to.

    Args:
        means: what of this machine's user may be used to get in.
    """

    def __init__(self, means: Callable[[], Means]) -> None:
        self._means = means
        self._hosts: SshHosts | None = None
        self._nodes: dict[str, Node] = {}

    async def node(self, swarm: SwarmHandle, wish: Wish, instance: Instance) -> Node:
        """A machine, by today's way to it.

        Raises: ProviderUnreachable (``NoAddress``).
        """
        if not instance.address(wish):
            raise ProviderUnreachable(
                "NoAddress", f"{instance.id} has no address yet at which it could be reached"
            )
        target = target_of(swarm, wish, instance)
        known = self._nodes.get(instance.id)
        if known is not None and known.target == target:
            known.instance = instance
            return known
        if known is not None:
            await self.forget(instance.id)
        shell = self._ssh().host(target)
        name = f"{instance.id} ({target})"
        node = self._nodes[instance.id] = Node(instance, name, target, shell)
        return node

    async def check(self, swarm: SwarmHandle, wish: Wish) -> None:
        """See that what lets us in can be used, before there is a machine.

        Raises: ProviderUnreachable (``KeyUnusable``, ``SshConfigInvalid``, ``NotInThisHome``).
        """
        from providers.ssh_config import resolve

        await asyncio.to_thread(resolve, _anywhere(swarm, wish), self._means())

    async def lets_in(self, swarm: SwarmHandle, wish: Wish) -> tuple[str, ...]:
        """Public keys that new machines are to let in, where no key pair of EC2's is named."""
        if wish.key_name:
            return ()
        files = self._means().files
        return await asyncio.to_thread(lets_in, _anywhere(swarm, wish), files=files)

    def _ssh(self) -> SshHosts:
        if self._hosts is None:
            from providers.ssh import Retry, SshHost, SshHosts

            def make(target: SshTarget, means: Means) -> SshHost:
                return SshHost(
                    target,
                    means,
                    retry=Retry(attempts=0),
                    connect_seconds=CONNECT_SECONDS,
                    idle_seconds=IDLE_SECONDS,
                )

            self._hosts = SshHosts(self._means(), make=make)
        return self._hosts

    def known(self, id: str) -> Node | None:
        """A machine that was spoken to."""
        return self._nodes.get(id)

    async def forget(self, id: str) -> None:
        """End the connection to a machine that is not needed any more."""
        node = self._nodes.pop(id, None)
        if node is not None and self._hosts is not None:
            await self._hosts.discard(node.target)

    async def keep_only(self, ids: Sequence[str]) -> None:
        """Forget all others."""
        for id in [id for id in self._nodes if id not in ids]:
            await self.forget(id)

    async def close(self) -> None:
        """End all connections."""
        self._nodes.clear()
        if self._hosts is not None:
            await self._hosts.close()

    # --- workers ---------------------------------------------------------------------------------

    async def start(
        self, node: Node, root: str, volume: str, message: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Begin workers (``worker.machine``); by job what came of it.

        Raises: ProviderUnreachable.
        """
        told = await self._ask(
            node, ["start", root], message, START_SECONDS, setup=(marker(root, volume),)
        )
        return _jobs(node, told)

    async def stop(
        self, node: Node, root: str, folders: Mapping[str, str], *, force: bool
    ) -> dict[str, Any]:
        """End workers; by job whether they are gone.

        Args:
            node: where they run.
            root: ``workspaceRoot``.
            folders: of the workers, below the root, by job.
            force: SIGKILL to all of them, and to all that they started.

        Raises: ProviderUnreachable.
        """
        jobs = [{"job": job, "folder": folder} for job, folder in folders.items()]
        message = {
            "jobs": jobs, "node": node.instance.id, "force": force, "seconds": 5 if force else 0,
        }  # fmt: skip
        return _jobs(node, await self._ask(node, ["stop", root], message, STOP_SECONDS))

    async def clear(self, node: Node, root: str) -> None:
        """End every worker on a machine, whatever the file system says.

        Raises: ProviderUnreachable (``StillRunning``: some cannot be killed, ...).
        """
        told = await self._ask(node, ["clear", root], {}, STOP_SECONDS)
        if told.get("left") != 0:
            raise ProviderUnreachable(
                "StillRunning",
                f"{node.name}: {told.get('left')} processes of workers cannot be killed there",
            )

    async def _ask(
        self,
        node: Node,
        arguments: Sequence[str],
        message: Mapping[str, Any],
        seconds: float,
        *,
        setup: Sequence[str] = (),
    ) -> dict[str, Any]:
        if node.installed is None:
            node.installed = await install(node.shell, Place(node.name, LOCAL_ROOT))
        argv = [node.installed.python, "-I", node.installed.path, "machine", *arguments]
        done = await node.shell.run(
            login(setup, argv),
            input=json.dumps(message).encode(),
            seconds=seconds + _GRACE,
            repeatable=True,
        )
        told = _last_object(done.out)
        if done.code != 0 or told is None:
            node.installed = None  # its file or its Python may be gone: look again
            words = clean(done.err.decode(errors="replace")).strip()[-300:]
            raise ProviderUnreachable(
                "MachineFailed",
                f"{node.name}: `machine {arguments[0]}` failed (exit status {done.code}): "
                f"{words or 'without a word'}",
            )
        return told


def _jobs(node: Node, told: Mapping[str, Any]) -> dict[str, Any]:
    """What a machine says of each job. Raises: ProviderUnreachable."""
    jobs = told.get("jobs")
    if not isinstance(jobs, dict):
        raise ProviderUnreachable(
            "MachineFailed", f"{node.name} does not take the order: {clean(str(told))[:500]}"
        )
    return jobs


def _last_object(out: bytes) -> dict[str, Any] | None:
    """The last line that is a JSON object: a login shell may print what it likes before it."""
    for line in reversed(out.decode(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict):
                return told
    return None
