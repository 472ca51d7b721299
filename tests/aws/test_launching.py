"""A launch is one request until it is answered, whatever becomes of its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from providers.aws_launching import MISMATCH_SECONDS, Launching
from providers.aws_values import HOST_KEY_TAG, READY_TAG, Api, Instance, Wish
from providers.base import OutcomeUnknown, ProviderError
from tests.aws.fake import Clock, FakeEc2

WISH = Wish(Api("us-east-1"), "ami-1", "c7i.large", "/shared")
JOBS = ("w-0-1", "w-1-2")


class Lab:
    """One swarm's launches, by any number of controllers."""

    def __init__(self) -> None:
        self.ec2, self.clock = FakeEc2(), Clock()
        self.launching = self.controller()

    def controller(self) -> Launching:
        return Launching(cast(Any, self.ec2), "u1", self.clock)

    def run(self, count: int = 2, wish: Wish = WISH) -> list[Instance]:
        call = self.launching.run(wish, count, zone=None, jobs=JOBS, tags={})
        return asyncio.run(call)

    @property
    def tokens(self) -> list[str]:
        return [request["token"] for request in self.ec2.requests]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def test_a_lost_answer_is_asked_for_by_the_very_same_request(lab: Lab) -> None:
    lab.ec2.failure = OutcomeUnknown("ConnectionLost", "cut")
    with pytest.raises(OutcomeUnknown):
        lab.run()
    lab.ec2.failure = None
    lab.run(count=5, wish=replace(WISH, ami="ami-2"))  # whatever is wanted by now
    first, second = lab.ec2.requests
    assert first == second


def test_an_answer_is_found_by_the_host_key(lab: Lab) -> None:
    lab.ec2.failure = OutcomeUnknown("ConnectionLost", "cut")
    with pytest.raises(OutcomeUnknown):
        lab.run()
    key = lab.ec2.requests[0]["key"]
    lab.launching.seen([Instance("i-1", "pending", tags={HOST_KEY_TAG: key})])
    lab.ec2.failure = None
    lab.run(count=1)
    assert lab.ec2.requests[1]["count"] == 1
    assert lab.tokens[0] != lab.tokens[1]


def test_another_controller_asks_for_the_same_with_the_same_token(lab: Lab) -> None:
    lab.ec2.failure = OutcomeUnknown("ConnectionLost", "cut")
    with pytest.raises(OutcomeUnknown):
        lab.run()
    lab.launching, lab.ec2.failure = lab.controller(), None
    lab.run()
    assert lab.tokens[0] == lab.tokens[1]


def test_what_was_answered_is_never_asked_with_its_token_again(lab: Lab) -> None:
    lab.run()
    lab.run()
    assert lab.tokens[0] != lab.tokens[1]


def test_what_an_earlier_controller_sent_is_waited_for(lab: Lab) -> None:
    lab.ec2.failure = ProviderError("IdempotentParameterMismatch", "other parameters")
    with pytest.raises(ProviderError):
        lab.run()
    assert lab.launching.waits > 0
    with pytest.raises(ProviderError):
        lab.run()
    assert lab.tokens[0] == lab.tokens[1]
    lab.clock.now += MISMATCH_SECONDS + 1
    with pytest.raises(ProviderError):
        lab.run()  # nothing came of it
    lab.ec2.failure = None
    lab.run()
    assert lab.tokens[-1] != lab.tokens[0]


def test_a_token_of_machines_that_ended_is_given_up_at_once(lab: Lab) -> None:
    lab.ec2.failure = ProviderError("IdempotentInstanceTerminated", "long ago")
    with pytest.raises(ProviderError):
        lab.run()
    assert lab.launching.waits == 0
    lab.ec2.failure = None
    lab.run()
    assert lab.tokens[0] != lab.tokens[1]


def test_what_is_refused_is_asked_for_less_and_less(lab: Lab) -> None:
    lab.ec2.failure = ProviderError("InsufficientInstanceCapacity", "none left")
    pauses = []
    for _ in range(10):
        with pytest.raises(ProviderError):
            lab.run()
        pauses.append(lab.launching.waits)
        lab.clock.now += lab.launching.waits
    assert pauses[:3] == [5.0, 10.0, 20.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 300.0
    lab.launching.retry()
    assert lab.launching.waits == 0


def test_machines_that_die_before_their_use_are_not_bought_again_at_once(lab: Lab) -> None:
    lab.run()
    lab.launching.died()
    first = lab.launching.waits
    lab.launching.died()
    assert lab.launching.waits > first > 0
    lab.launching.settled()
    lab.launching.retry()
    lab.launching.died()
    assert lab.launching.waits == first


def test_after_instances_that_ended_before_use_the_next_ones_wait(lab: Lab) -> None:
    """A disk that EC2 could not make: EC2 accepts the launch, and ends the instance at once."""
    ending = Instance("i-1", "terminated", state_reason="Client.VolumeLimitExceeded")
    old = Instance("i-0", "terminated", state_reason="Server.InternalError")
    assert lab.launching.ended([old]) is None, "that was before us"
    lab.run()
    told = lab.launching.ended([old, ending])
    assert told is not None
    assert told.reason == "VolumeLimitExceeded"
    assert lab.launching.waits == 5.0
    assert lab.launching.ended([old, ending]) is None, "once is enough"
    lab.clock.now += 5.0
    lab.run()
    assert lab.launching.ended([ending, replace(ending, id="i-2")])
    assert lab.launching.waits == 10.0


def test_instances_that_were_used_or_ended_by_us_are_no_failures(lab: Lab) -> None:
    lab.launching.ended([])
    used = Instance("i-1", "terminated", state_reason="Server.SpotInstanceTermination")
    used = replace(used, tags={READY_TAG: "true"})
    ours = Instance("i-2", "terminated", state_reason="Client.UserInitiatedShutdown")
    assert lab.launching.ended([used, ours]) is None
    assert lab.launching.waits == 0.0
