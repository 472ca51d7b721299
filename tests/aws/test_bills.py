"""Which machines a swarm pays for is asked without doing anything for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from providers.aws import AwsProvider
from providers.aws_lookout import Lookout
from providers.aws_state import Times
from providers.aws_values import UID_TAG, Instance
from providers.base import Machine, SwarmHandle
from tests.aws.fake import FakeEc2

PARAMETERS = {
    "region": "us-east-1",
    "amiId": "ami-1",
    "instanceType": "c7i.large",
    "workspaceRoot": "/shared",
}


class Ledger(AwsProvider):
    """The provider with a scripted EC2; no site may begin."""

    def __init__(self, ec2: FakeEc2) -> None:
        super().__init__(cast(Any, None), home=lambda: "home")
        self.lookout = Lookout(cast(Any, ec2))

    def _around(self, api: object) -> Any:
        return SimpleNamespace(lookout=self.lookout, times=Times())

    def _site(self, swarm: SwarmHandle) -> Any:
        raise AssertionError("a site was begun")

    def ask(self, uid: str = "u1") -> list[Machine]:
        handle = SwarmHandle("default", "one", uid, PARAMETERS)
        return asyncio.run(self.machines(handle))

    def remove_all(self, uid: str = "u1") -> None:
        self._removed.add(self._key(SwarmHandle("default", "one", uid, PARAMETERS)))


def instance(id: str, uid: str = "u1", **more: Any) -> Instance:
    values = {"type": "c7i.large", "launched_at": 1000.0, "tags": {UID_TAG: uid}} | more
    return Instance(id, values.pop("state", "running"), **values)


@pytest.fixture
def ec2() -> FakeEc2:
    return FakeEc2()


@pytest.fixture
def ledger(ec2: FakeEc2) -> Ledger:
    return Ledger(ec2)


def test_machines_are_told_with_what_their_price_depends_on(ec2: FakeEc2, ledger: Ledger) -> None:
    ec2.shown = [
        instance("i-1"),
        instance("i-2", spot=True),
        instance("i-3", state="terminated", ended_at=2000.0),
        instance("i-4", "u2"),
    ]
    assert sorted(ledger.ask(), key=lambda m: m.id) == [
        Machine("i-1", "c7i.large", 1000.0),
        Machine("i-2", "spot:c7i.large", 1000.0),
        Machine("i-3", "c7i.large", 1000.0, 2000.0),
    ]


def test_an_end_that_ec2_does_not_date_is_when_it_was_seen(ec2: FakeEc2, ledger: Ledger) -> None:
    ec2.shown = [
        instance("i-1", state="terminated"),
        instance("i-2", "u2", state="terminated"),
    ]
    (first,) = ledger.ask()
    assert first.until is not None
    ledger.ask("u2")
    assert ledger.ask() == [first], "also after others were asked about"


def test_the_last_look_comes_after_everything_was_removed(ec2: FakeEc2, ledger: Ledger) -> None:
    ec2.shown = [instance("i-1", state="shutting-down")]
    assert ledger.ask()[0].until is None
    ec2.shown = [replace(ec2.shown[0], state="terminated", ended_at=1500.0)]
    ledger.remove_all()
    assert ledger.ask()[0].until == 1500.0
    assert not ledger.lookout.known("u1").instances, "and it is looked at no more"
