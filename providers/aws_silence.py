"""A coordinator that lets nobody log in: given up once it is sure that it is not our own network.

Whoever cannot reach the coordinator knows nothing of its workers, so all waits for it.  EC2's own
checks, or another machine of the swarm that answers meanwhile, say that it is the machine.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from providers.aws_ready import Readiness
from providers.aws_state import SiteState
from providers.aws_values import Instance
from providers.base import ProviderError

_LOG = logging.getLogger(__name__)
WITNESSES = 3
SECONDS = 15.0


class Silence:
    """Judges the coordinator of one swarm.

    Args:
        state: of its site.
        readiness: of its machines.
    """

    def __init__(self, state: SiteState, readiness: Readiness) -> None:
        self._state = state
        self._readiness = readiness
        self._asked: float | None = None

    async def deaf(self, coordinator: Instance | None, instances: Sequence[Instance]) -> list[str]:
        """The coordinator, if it is to be given up.

        Args:
            coordinator: the running instance that has the volume.
            instances: all of the swarm.
        """
        state, times = self._state, self._state.around.times
        since = None if coordinator is None else self._readiness.silent_since(coordinator.id)
        if coordinator is None or since is None or state.now() - since < times.patience.silent:
            return []
        if self._asked is not None and state.now() - self._asked < times.doubt:
            return []
        self._asked = state.now()
        others = [
            i for i in instances
            if i.running and i.id != coordinator.id and self._readiness.is_ready(i.id)
        ]  # fmt: skip
        if not (await self._impaired(coordinator) or await self._answer(others[:WITNESSES])):
            return []
        text = "swarm %s: the coordinator %s has let nobody log in for %.0f s and is given up"
        _LOG.warning(text, state.swarm.name, coordinator.id, state.now() - since)
        return [coordinator.id]

    async def _impaired(self, instance: Instance) -> bool:
        try:
            return instance.id in await self._state.around.ec2.impaired([instance.id])
        except ProviderError as error:
            _LOG.debug("the state of %s: %s", instance.id, error)
            return False

    async def _answer(self, instances: Sequence[Instance]) -> bool:
        """Whether one of these does."""
        return any(await asyncio.gather(*map(self._answers, instances)))

    async def _answers(self, instance: Instance) -> bool:
        state = self._state
        try:
            node = await state.nodes.node(state.swarm, state.wish, instance)
            done = await node.shell.run(["true"], seconds=SECONDS, repeatable=True)
        except ProviderError:
            return False
        return done.code == 0
