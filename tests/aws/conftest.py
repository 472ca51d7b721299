"""One EC2 for the package, and boto3 with credentials of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from providers.aws_api import Boto
from providers.aws_session import Limits
from providers.aws_values import Api, Wish
from providers.base import SwarmHandle
from tests.cloud.api import REGION, CloudApi

T = TypeVar("T")
QUICK = Limits(connect=1.0, read=3.0, attempts=3, total=10.0)
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudApi]:
    with CloudApi(tmp_path_factory.mktemp("aws")) as api:
        yield api


@pytest.fixture
def api(whole: CloudApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudApi]:
    for name, value in whole.environment().items():
        monkeypatch.setenv(name, value)
    yield whole
    whole.reset()
    whole.set(hide_seconds=0.0, honour_tokens=False, capacity=-1, pending_seconds=0.05)
    whole.clear()


@pytest.fixture
def run() -> Iterator[Run[Any]]:
    """One event loop for a test: what belongs to it may be used in several calls."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def ec2(api: CloudApi, run: Run[Any]) -> Iterator[Boto]:
    boto = Boto(Api(REGION, api.url), QUICK)
    yield boto
    run(boto.close())


@pytest.fixture
def wish(api: CloudApi) -> Wish:
    return wish_of(api)


def wish_of(api: CloudApi, **more: Any) -> Wish:
    """What a manifest for this EC2 comes to."""
    return Wish.of(SwarmHandle("default", "cloud", "uid-1", api.parameters(**more)))


TAGS = {"codeswarm.dev/home": "h", "codeswarm.dev/swarm-uid": "uid-1", "Name": "codeswarm-x"}


async def launch(ec2: Boto, wish: Wish, count: int = 1, **more: Any) -> list[str]:
    """Launch instances; their ids."""
    asked = {"token": "t", "tags": TAGS, "user_data": "", "zone": None, **more}
    return [one.id for one in await ec2.run(wish, count, **asked)]
