"""One look at EC2 serves everybody, and what EC2 shows late is not taken for gone."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from providers.aws_lookout import Lookout
from providers.base import ProviderUnreachable
from tests.aws.fake import Clock, FakeEc2, disk, machine

EACH_LOOK = 2
"""Requests: instances and volumes."""


@pytest.fixture
def ec2() -> FakeEc2:
    return FakeEc2()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lookout(ec2: FakeEc2, clock: Clock) -> Lookout:
    one = Lookout(cast(Any, ec2), clock=clock)
    one.add("u1")
    return one


def ids(lookout: Lookout, uid: str = "u1") -> set[str]:
    return {i.id for i in lookout.known(uid).instances}


def look(lookout: Lookout, age: float = -1.0, uid: str = "u1") -> set[str]:
    asyncio.run(lookout.look(uid, age=age))
    return ids(lookout, uid)


def test_all_swarms_share_a_look(lookout: Lookout, ec2: FakeEc2) -> None:
    async def all() -> None:
        for number in range(50):
            lookout.add(f"u{number}")
        await asyncio.gather(*(lookout.look(f"u{n}", age=5.0) for n in range(50)))

    asyncio.run(all())
    assert ec2.calls == EACH_LOOK


def test_a_look_is_good_for_a_while(lookout: Lookout, ec2: FakeEc2, clock: Clock) -> None:
    look(lookout, 5.0)
    clock.now += 4.0
    look(lookout, 5.0)
    assert ec2.calls == EACH_LOOK
    clock.now += 2.0
    look(lookout, 5.0)
    assert ec2.calls == 2 * EACH_LOOK


def test_volumes_can_be_looked_at_less_often(lookout: Lookout, ec2: FakeEc2, clock: Clock) -> None:
    asyncio.run(lookout.look("u1", age=5.0, volumes_age=300.0))
    clock.now += 6.0
    asyncio.run(lookout.look("u1", age=5.0, volumes_age=300.0))
    assert ec2.calls == EACH_LOOK + 1


def test_a_new_swarm_is_looked_at_at_once(lookout: Lookout, ec2: FakeEc2) -> None:
    ec2.shown = [machine("i-1"), machine("i-2", "u2")]
    assert look(lookout, 60.0) == {"i-1"}
    lookout.add("u2")
    assert look(lookout, 60.0, "u2") == {"i-2"}


def test_what_was_launched_is_there_before_ec2_shows_it(lookout: Lookout, clock: Clock) -> None:
    look(lookout)
    lookout.launched([machine("i-1", state="pending")])
    clock.now += 30.0
    assert look(lookout) == {"i-1"}


def test_what_is_left_out_for_long_is_gone(lookout: Lookout, ec2: FakeEc2, clock: Clock) -> None:
    ec2.shown = [machine("i-1")]
    assert look(lookout) == {"i-1"}
    ec2.shown = []
    assert look(lookout) == {"i-1"}
    clock.now += 59.0
    assert look(lookout) == {"i-1"}
    clock.now += 2.0
    assert look(lookout) == set()


def test_what_is_shown_again_was_never_gone(lookout: Lookout, ec2: FakeEc2, clock: Clock) -> None:
    ec2.shown = [machine("i-1")]
    look(lookout)
    for shown in ([], [machine("i-1")], []):
        ec2.shown = shown
        clock.now += 50.0
        assert look(lookout) == {"i-1"}


def test_one_that_has_ended_may_be_left_out(lookout: Lookout, ec2: FakeEc2) -> None:
    ec2.shown = [machine("i-1", state="terminated")]
    assert look(lookout) == {"i-1"}
    ec2.shown = []
    assert look(lookout) == set()


def test_an_end_that_was_asked_for_is_not_undone_by_an_old_answer(
    lookout: Lookout, ec2: FakeEc2, clock: Clock
) -> None:
    ec2.shown = [machine("i-1")]
    look(lookout)
    lookout.terminated(["i-1"])
    look(lookout)
    assert [i.state for i in lookout.known("u1").instances] == ["shutting-down"]
    clock.now += 61.0  # EC2 still says that it runs: so it does
    look(lookout)
    assert [i.state for i in lookout.known("u1").instances] == ["running"]


def test_a_new_volume_is_there_before_ec2_shows_it(
    lookout: Lookout, ec2: FakeEc2, clock: Clock
) -> None:
    lookout.created(disk("vol-1"))
    look(lookout)
    assert [v.id for v in lookout.known("u1").volumes] == ["vol-1"]
    clock.now += 61.0
    look(lookout)
    assert not lookout.known("u1").volumes


def test_an_ec2_that_does_not_answer_is_asked_less_and_less(
    lookout: Lookout, ec2: FakeEc2, clock: Clock
) -> None:
    ec2.failure = ProviderUnreachable("RequestLimitExceeded", "slow down")
    for _ in range(100):
        with pytest.raises(ProviderUnreachable, match="slow down"):
            look(lookout)
        clock.now += 1.0
    assert ec2.calls < 10
    ec2.failure = None
    clock.now += 31.0
    look(lookout)


def test_a_swarm_that_is_gone_is_forgotten(lookout: Lookout, ec2: FakeEc2) -> None:
    ec2.shown, ec2.disks = [machine("i-1")], [disk("vol-1")]
    look(lookout)
    lookout.drop("u1")
    assert not lookout.known("u1").instances
    assert not lookout.known("u1").volumes


def test_one_that_only_its_id_finds_is_not_gone(
    lookout: Lookout, ec2: FakeEc2, clock: Clock
) -> None:
    """A list may leave out what is there: two workers would do one task."""
    ec2.shown, ec2.known = [machine("i-1")], {"i-1"}
    look(lookout)
    ec2.shown = []
    for _ in range(8):
        clock.now += 20.0
        assert look(lookout) == {"i-1"}
    ec2.known = set()
    for _ in range(4):
        clock.now += 20.0
        look(lookout)
    assert look(lookout) == set()
