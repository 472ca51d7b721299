"""The coordinator's attendant: folders, mail, tools and stores of one swarm's volume.

Another coordinator may take its place; what is followed goes on there from where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from providers.aws_nodes import Node, marker
from providers.base import ProviderUnreachable, Sink, SwarmHandle
from providers.remote import RemoteHost
from providers.remote_setup import Place
from providers.remote_tools import ToolsThere
from providers.remote_values import JobFacts

FOLDERS_SECONDS = 1.0
"""For how long one look at a swarm's folders is good enough."""


class VolumeHost:
    """Where a swarm's files are now.

    Args:
        sink: takes what workers say.
        clock: monotonic, seconds.
    """

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._remote: RemoteHost | None = None
        self._tools: ToolsThere | None = None
        self._node: Node | None = None
        self._followed: dict[str, tuple[SwarmHandle, int, int]] = {}
        """By job: the swarm, the index, and the offset from which it goes on elsewhere."""
        self._listed: tuple[float, list[JobFacts]] | None = None

    @property
    def coordinator(self) -> str:
        """Id of the instance; empty: there is none."""
        return self._node.instance.id if self._node is not None else ""

    @property
    def remote(self) -> RemoteHost:
        """The attendant. Raises: ProviderUnreachable (``CoordinatorLost``)."""
        if self._remote is None:
            raise ProviderUnreachable(
                "CoordinatorLost", "no instance has the shared volume ready for use now"
            )
        return self._remote

    @property
    def tools(self) -> ToolsThere:
        """The agents' tools on the volume. Raises: ProviderUnreachable."""
        if self._tools is None:
            self._tools = ToolsThere(self.remote)
        return self._tools

    def is_on(self, node: Node) -> bool:
        """Whether this machine, by this way to it, is where we are."""
        return self._node is node

    async def move(self, node: Node, root: str, volume: str) -> None:
        """Be on this machine from now on, which has the volume mounted."""
        await self.leave()
        place = Place(node.name, root, None, (marker(root, volume),))
        self._node, self._remote = node, RemoteHost(node.shell, place)
        self._remote.start(self._sink)
        for job, (swarm, index, offset) in self._followed.items():
            self._remote.follow(swarm, job, index, offset)

    async def leave(self) -> None:
        """Be nowhere: the coordinator is gone, or about to go."""
        remote, tools = self._remote, self._tools
        if remote is not None:
            for job, (swarm, index, offset) in list(self._followed.items()):
                self._followed[job] = swarm, index, max(offset, remote.offset(job))
        self._remote = self._tools = self._node = self._listed = None
        if tools is not None:
            await tools.close()
        if remote is not None:
            await remote.close()

    async def folders(self, swarm: SwarmHandle, *, fresh: bool = False) -> list[JobFacts]:
        """All workers' folders. Raises: ProviderUnreachable, ProviderError."""
        remote, now = self.remote, self._clock()
        if fresh or self._listed is None or now - self._listed[0] >= FOLDERS_SECONDS:
            facts = await remote.jobs(swarm)
            if remote is not self._remote:
                raise ProviderUnreachable("CoordinatorLost", "the coordinator was lost meanwhile")
            self._listed = now, facts
        return self._listed[1]

    def doubt(self) -> None:
        """Something in the folders was changed."""
        self._listed = None

    def follow(self, swarm: SwarmHandle, job: str, index: int, offset: int) -> None:
        """As ``Provider.follow``; without a coordinator, once there is one."""
        self._followed[job] = swarm, index, offset
        if self._remote is not None:
            self._remote.follow(swarm, job, index, offset)

    def unfollow(self, job: str) -> None:
        """As ``Provider.unfollow``."""
        if self._followed.pop(job, None) is not None and self._remote is not None:
            self._remote.unfollow(job)

    async def flush(self, job: str) -> None:
        """As ``Provider.flush``. Raises: ProviderUnreachable."""
        if job in self._followed:
            await self.remote.flush(job)
