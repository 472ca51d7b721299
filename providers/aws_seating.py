"""Workers that were asked for, and the machines on which they begin.

A worker begins once: its folder is claimed for one machine before it does, whoever tries.  What was
claimed and then did not begin (a crash between the two) is begun again on the same machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.aws_plan import places
from providers.aws_state import SiteState
from providers.aws_values import Instance, Volume
from providers.aws_volume import say_in_use
from providers.base import JobState, JobStatus, LaunchRequest, ProviderError, ProviderUnreachable
from providers.layout import swarm_parts
from providers.remote_launch import job_files
from providers.remote_tools import Tools
from worker.machine.orders import LEAVING

STUCK_SECONDS = 20.0
"""A worker whose folder is claimed and that has not begun since is begun again."""
FOLDERS_AT_ONCE = 8
LEAVING_SECONDS = 60.0
"""A machine that is about to be taken away is asked again after so long."""


@dataclass(slots=True)
class _Wanted:
    request: LaunchRequest
    at: float


class Seating:
    """The workers of one swarm that have not begun.

    Args:
        state: of its site.
        doubt: told of a machine that does not begin workers as one that is ready does.
    """

    def __init__(self, state: SiteState, doubt: Callable[[str], None]) -> None:
        self._state = state
        self._doubt = doubt
        self._wanted: dict[str, _Wanted] = {}
        self._unbegun: dict[str, tuple[float, str]] = {}
        """Since when a claimed worker has not begun, and where."""
        self._leaving: dict[str, float] = {}
        """When a machine was said to be about to be taken away; our clock."""

    @property
    def leaving(self) -> frozenset[str]:
        """Machines that are about to be taken away: nothing begins there, or on their files."""
        after = self._state.now() - LEAVING_SECONDS
        return frozenset(id for id, at in self._leaving.items() if at > after)

    @property
    def waiting(self) -> dict[str, LaunchRequest]:
        """Those asked for, by job."""
        return {job: one.request for job, one in self._wanted.items()}

    def want(self, requests: Iterable[LaunchRequest]) -> None:
        """These are asked for now."""
        now = self._state.now()
        for request in requests:
            self._wanted[request.job] = _Wanted(request, now)

    def withdraw(self, jobs: Iterable[str]) -> None:
        """These are not wanted any more."""
        for job in jobs:
            self._wanted.pop(job, None)

    def expire(self, before: float) -> None:
        """Those that nobody has asked for since then are not wanted any more."""
        self._wanted = {job: one for job, one in self._wanted.items() if one.at >= before}

    def lacks(self, requests: Collection[LaunchRequest]) -> bool:
        """Whether some of these still wait."""
        return any(request.job in self._wanted for request in requests)

    def seen(self, statuses: Mapping[str, JobStatus]) -> None:
        """These workers left a trace."""
        self.withdraw(statuses)
        now = self._state.now()
        self._unbegun = {
            job: (self._unbegun.get(job, (now, ""))[0], status.handle)
            for job, status in statuses.items()
            if status.state is JobState.PENDING
        }

    async def begin(
        self,
        volume: Volume,
        coordinator: Instance,
        ready: Sequence[Instance],
        alive: Mapping[str, int],
    ) -> bool:
        """Begin those for which there is a seat; whether there was anything to do.

        Raises: ProviderError, ProviderUnreachable; InProgress (``ToolsInstalling``).
        """
        state = self._state
        order = sorted(self._wanted.values(), key=lambda one: (one.request.index, one.request.job))
        leaving = self.leaving
        ready = [i for i in ready if not leaving & {i.id, coordinator.id}]
        seats = places(state.wish, ready, coordinator, alive, [one.request.job for one in order])
        again = self._stuck({i.id for i in ready})
        if not seats and not again:
            return False
        state.may()
        await say_in_use(state, volume, True)
        tools = await state.host.tools.have(state.swarm.parameters)
        root = (await state.host.remote.known()).root
        by_id = {i.id: i for i in ready}
        await self._make_folders(root, [job for jobs in seats.values() for job in jobs])
        orders = _merged(seats, again)
        results = await asyncio.gather(
            *(self._start(by_id[id], root, volume, tools, jobs) for id, jobs in orders.items()),
            return_exceptions=True,
        )
        state.host.doubt()
        for id, result in zip(orders, results, strict=True):
            if isinstance(result, ProviderUnreachable):
                self._doubt(id)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        state.trouble.pop("start", None)
        return True

    def _stuck(self, ready: Collection[str]) -> dict[str, list[str]]:
        before, found = self._state.now() - STUCK_SECONDS, dict[str, list[str]]()
        for job, (since, node) in self._unbegun.items():
            if since < before and node in ready:
                found.setdefault(node, []).append(job)
        return found

    async def _make_folders(self, root: str, jobs: Sequence[str]) -> None:
        room, remote = asyncio.Semaphore(FOLDERS_AT_ONCE), self._state.host.remote

        async def make(job: str) -> None:
            one = self._wanted.get(job)
            if one is None:
                return
            request = one.request
            async with room:
                await remote.make_job(
                    request.swarm, job, job_files(root, request), index=request.index
                )

        await asyncio.gather(*(make(job) for job in jobs))

    async def _start(
        self,
        instance: Instance,
        root: str,
        volume: Volume,
        tools: Tools,
        jobs: Sequence[str],
    ) -> None:
        """Raises: ProviderUnreachable; ProviderError, as a machine says."""
        state, leader = self._state, self._state.host.coordinator
        node = await state.nodes.node(state.swarm, state.wish, instance)
        folder = "/".join(swarm_parts(state.swarm))
        wanted = [
            {"job": job, "folder": f"{folder}/{job}"}
            for job in jobs
            if job in self._wanted or job in self._unbegun
        ]
        if not wanted:
            return
        message: dict[str, Any] = {
            "jobs": wanted,
            "node": instance.id,
            # Any controller may begin again what another one has claimed for this machine.
            "token": state.swarm.uid,
            "coordinator": leader,
            "path": list(tools.path),
            "python": tools.python,
            "spot": state.wish.spot,
        }
        told = await state.nodes.start(node, root, volume.id, message)
        for one in wanted:
            answer = told.get(one["job"])
            if isinstance(answer, dict) and answer.get(LEAVING) in (instance.id, leader):
                self._leaving[str(answer[LEAVING])] = state.now()
                return
            if isinstance(answer, dict) and "reason" in answer:
                raise ProviderError(
                    str(answer.get("reason") or "StartFailed")[:64],
                    f"{node.name}: {str(answer.get('message'))[:1000]}",
                )
            if answer != "started" and not isinstance(answer, dict):
                raise ProviderUnreachable(
                    "MachineFailed", f"{node.name}: what it says of {one['job']} cannot be read"
                )


def _merged(
    seats: Mapping[str, Sequence[str]], again: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Jobs by instance, of both."""
    return {id: [*seats.get(id, ()), *again.get(id, ())] for id in {**seats, **again}}
