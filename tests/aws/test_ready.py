"""What a machine says while it boots is no trouble; what it still says later is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from providers.aws_ready import Readiness
from providers.aws_state import SiteState, Times
from providers.aws_values import READY_TAG, YES, Api, Instance, Inventory, Volume, Wish
from providers.base import ProviderUnreachable, SwarmHandle
from tests.aws.fake import Clock

WISH = Wish(Api("us-east-1"), "ami-1", "c7i.large", "/shared")
VOLUME = Volume("vol-1", "in-use", attached_to="i-1", attachment="attached")


class Doors:
    """Machines that answer, and let nobody in."""

    def __init__(self) -> None:
        self.reason, self.tries, self.forgotten = "", 0, 0

    async def node(self, *_: object) -> object:
        self.tries += 1
        raise ProviderUnreachable(self.reason, f"{self.reason} by the test")

    async def forget(self, id: str) -> None:
        self.forgotten += 1

    def known(self, id: str) -> None:
        return None


class Lab:
    def __init__(self) -> None:
        self.clock, self.doors = Clock(), Doors()
        around = SimpleNamespace(times=Times(), clock=self.clock)
        self.state = SiteState(
            SwarmHandle("default", "cloud", "u1"), WISH, cast(Any, around), cast(Any, self.doors),
            cast(Any, SimpleNamespace(coordinator="")),
        )  # fmt: skip
        self.readiness = Readiness(self.state)

    def says(self, reason: str, *, seconds: float, ready: bool = False) -> bool:
        """A machine says this for so long; whether that is trouble then."""
        self.doors.reason = reason
        one = Instance("i-1", "running", tags={READY_TAG: YES} if ready else {})

        async def go() -> bool:
            until = self.clock.now + seconds
            while True:
                self.readiness.advance(Inventory([one]), VOLUME, one)
                for _ in range(10):
                    await asyncio.sleep(0)
                if self.clock.now >= until:
                    return bool(self.state.trouble)
                self.clock.now += 1

        return asyncio.run(go())


@pytest.mark.parametrize("reason", ["AuthenticationFailed", "HostKeyChanged"])
def test_who_lets_nobody_in_yet_is_asked_again_soon(reason: str) -> None:
    lab = Lab()
    assert not lab.says(reason, seconds=Times().early - 10)
    assert lab.doors.tries >= 3 and lab.doors.forgotten == lab.doors.tries
    assert lab.says(reason, seconds=60)
    assert lab.state.trouble["set-up i-1"].reason == reason


def test_the_time_counts_from_the_first_answer() -> None:
    lab = Lab()
    assert not lab.says("ConnectionRefused", seconds=100)
    assert not lab.says("AuthenticationFailed", seconds=30)


def test_a_machine_that_let_us_in_before_has_no_such_excuse() -> None:
    assert Lab().says("AuthenticationFailed", seconds=0, ready=True)
