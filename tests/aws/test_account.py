"""With another account's credentials than a home had before, nothing is concluded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.aws_account import AGAIN_SECONDS, OwnAccount
from providers.aws_api import Boto
from providers.aws_lookout import Lookout
from providers.aws_places import Places
from providers.aws_values import Api
from providers.base import ProviderUnreachable
from tests.aws.conftest import Run
from tests.aws.fake import Clock
from tests.cloud.api import REGION, CloudApi

MINE = "123456789012"


def of(path: Path, ec2: Boto, clock: Callable[[], float]) -> Lookout:
    lookout = Lookout(ec2, before=OwnAccount(ec2, Places(path).belongs, clock), clock=clock)
    lookout.add("uid-1")
    return lookout


def test_the_account_is_remembered_and_asked_for_once(
    api: CloudApi, ec2: Boto, run: Run[Any], tmp_path: Path
) -> None:
    path, place = tmp_path / "places", Api(REGION, api.url)
    Places(path).note(place)  # as homes have it that were made before
    for _ in range(2):
        lookout = of(path, ec2, Clock())
        for _ in range(3):
            run(lookout.look("uid-1", age=0.0))
    assert api.counts()["GetCallerIdentity"] == 2
    assert Places(path).all() == [place]
    assert [json.loads(line).get("account") for line in path.read_text().splitlines()] == [
        None,
        MINE,
    ]


def test_what_another_account_does_not_show_is_not_gone(
    api: CloudApi, ec2: Boto, run: Run[Any], tmp_path: Path
) -> None:
    path, clock = tmp_path / "places", Clock()
    Places(path).belongs(Api(REGION, api.url), "999999999999")
    lookout = of(path, ec2, clock)
    for _ in range(3):
        with pytest.raises(ProviderUnreachable, match=f"{MINE}.*999999999999") as caught:
            run(lookout.look("uid-1", age=0.0))
        assert caught.value.reason == "AnotherAccount"
        clock.now += 5.0
    assert "DescribeInstances" not in api.counts()
    path.unlink()  # a person has settled it
    clock.now += AGAIN_SECONDS
    assert not run(lookout.look("uid-1", age=0.0)).instances


def test_an_endpoint_without_sts_is_nobodys(
    api: CloudApi, ec2: Boto, run: Run[Any], tmp_path: Path
) -> None:
    api.refuse("GetCallerIdentity", "InvalidAction", times=-1)
    assert not run(of(tmp_path / "places", ec2, Clock()).look("uid-1", age=0.0)).instances
    api.mend()
