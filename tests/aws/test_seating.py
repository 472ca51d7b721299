"""Nobody is seated on a machine that is about to be taken away, or on its files."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from providers.aws_seating import LEAVING_SECONDS, Seating
from providers.aws_state import SiteState
from providers.aws_values import IN_USE_TAG, WISH_TAG, YES, Api, Instance, Volume, Wish
from providers.base import LaunchRequest, SwarmHandle
from tests.aws.fake import Clock

WISH = Wish(Api("us-east-1"), "ami-1", "c7i.large", "/shared", spot=True)
VOLUME = Volume("vol-1", "in-use", tags={IN_USE_TAG: YES})
SWARM = SwarmHandle("default", "cloud", "0f1e2d3c4b5a")
LEADER, MEMBER = (Instance(id, "running", tags={WISH_TAG: WISH.digest}) for id in ("i-1", "i-2"))


class Lab:
    """Two machines that begin what they are told, but where one is about to go."""

    def __init__(self) -> None:
        self.clock, self.going, self.orders = Clock(), "", list[tuple[str, str]]()

        async def node(swarm: object, wish: object, instance: Instance) -> object:
            return SimpleNamespace(name=instance.id, instance=instance)

        async def start(node: Any, root: str, volume: str, told: dict[str, Any]) -> dict[str, Any]:
            jobs = [one["job"] for one in told["jobs"]]
            self.orders += [(node.instance.id, job) for job in jobs]
            if self.going in (told["node"], told["coordinator"]):
                return {job: {"reason": "SpotInterruption", "leaving": self.going} for job in jobs}
            return dict.fromkeys(jobs, "started")

        async def have(parameters: object) -> object:
            return SimpleNamespace(path=(), python="")

        async def known() -> object:
            return SimpleNamespace(root="/shared")

        async def make_job(*_: object, **__: object) -> None:
            pass

        host = SimpleNamespace(
            coordinator="i-1", tools=SimpleNamespace(have=have), doubt=lambda: None,
            remote=SimpleNamespace(known=known, make_job=make_job),
        )  # fmt: skip
        around = SimpleNamespace(clock=self.clock, left=lambda: 60.0)
        self.state = SiteState(
            SWARM, WISH, cast(Any, around), cast(Any, SimpleNamespace(node=node, start=start)),
            cast(Any, host),
        )  # fmt: skip
        self.seating = Seating(self.state, lambda id: None)

    def begin(self) -> list[tuple[str, str]]:
        """Which orders are given for one waiting worker."""
        self.orders.clear()
        self.seating.want([LaunchRequest(SWARM, "w-0-1", 0, {})])
        asyncio.run(self.seating.begin(VOLUME, LEADER, [LEADER, MEMBER], {}))
        return list(self.orders)


def test_a_member_that_goes_is_asked_once() -> None:
    lab = Lab()
    lab.going = "i-2"
    asyncio.run(_busy(lab))
    assert lab.seating.leaving == {"i-2"}
    assert lab.begin() == [("i-1", "w-0-1")]
    lab.clock.now += LEAVING_SECONDS + 1
    assert not lab.seating.leaving


async def _busy(lab: Lab) -> None:
    """The coordinator is full."""
    lab.seating.want([LaunchRequest(SWARM, "w-0-1", 0, {})])
    await lab.seating.begin(VOLUME, LEADER, [LEADER, MEMBER], {"i-1": 1})


def test_nobody_begins_while_the_coordinator_goes() -> None:
    lab = Lab()
    lab.going = "i-1"
    assert lab.begin() == [("i-1", "w-0-1")]
    assert lab.begin() == [] and lab.seating.waiting
