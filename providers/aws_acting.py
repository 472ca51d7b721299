"""What a site has decided is done: volumes, ends and launches of instances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from providers import aws_before, aws_volume
from providers.aws_launching import Launching
from providers.aws_plan import Plan
from providers.aws_ready import Readiness
from providers.aws_seating import Seating
from providers.aws_state import SiteState
from providers.aws_values import Volume, tags_of
from providers.base import OutcomeUnknown, ProviderError, ProviderUnreachable


class Acting:
    """Carries out the plans of one swarm's site.

    Args:
        state: of the site.
        readiness: of its machines.
        seating: of its workers.
        launching: of its instances.
    """

    def __init__(
        self, state: SiteState, readiness: Readiness, seating: Seating, launching: Launching
    ) -> None:
        self._state = state
        self._readiness = readiness
        self._seating = seating
        self._launching = launching

    async def act(self, plan: Plan, volume: Volume | None) -> bool:
        """Whether anything was done. Raises: ProviderError."""
        state, around = self._state, self._state.around
        acted = False
        for id in plan.delete_volumes:
            state.may()
            await around.ec2.delete_volume(id)
            acted = True
        if plan.let_go and volume is not None:
            await aws_volume.say_in_use(state, volume, False)
        if plan.terminate:
            state.may()
            await asyncio.gather(*map(self._readiness.keep_log, plan.replace))
            if plan.replace:
                self._launching.died()
            acted = await self._terminate(plan.terminate) or acted
        else:
            state.trouble.pop("terminate", None)
        if plan.create_volume:
            jobs = self._seating.waiting
            acted = await aws_volume.create(state, plan.create_volume, jobs) or acted
        if plan.attach and volume is not None:
            await aws_volume.attach(state, volume, plan.attach)
            acted = True
        if not plan.launch:
            state.trouble.pop("launch", None)
        elif not self._launching.waits:
            acted = await self._launch(plan) or acted
        if acted:
            around.lookout.doubt()
        return acted

    async def _terminate(self, ids: Sequence[str]) -> bool:
        """End instances; one that a person protects keeps nothing else waiting."""
        around = self._state.around
        try:
            await around.ec2.terminate(ids)
        except ProviderError as error:
            if error.reason != "OperationNotPermitted":
                raise
            self._state.trouble["terminate"] = error
            return False
        self._state.trouble.pop("terminate", None)
        around.lookout.terminated(ids)
        return True

    async def _launch(self, plan: Plan) -> bool:
        """Raises: ProviderError."""
        state, around = self._state, self._state.around
        state.may()
        try:
            await aws_before.look(state, plan)
        except ProviderError as error:
            state.trouble["launch"] = error
            return False
        try:
            launched = await self._launching.run(
                state.wish,
                plan.launch,
                zone=plan.zone,
                jobs=list(self._seating.waiting),
                tags=tags_of(around.home, state.swarm, state.wish),
                lets_in=await state.nodes.lets_in(state.swarm, state.wish),
            )
        except OutcomeUnknown:
            around.lookout.doubt()
            raise
        except ProviderError as error:
            state.trouble["launch"] = error
            if not isinstance(error, ProviderUnreachable):
                around.preflight.forget()
            around.lookout.doubt()
            return False
        state.trouble.pop("launch", None)
        around.lookout.launched(launched)
        return True
